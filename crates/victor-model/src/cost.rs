//! Multiply–accumulates and cache sizes, computed from a config.
//!
//! Source: FastV's formula (arXiv 2403.06764), which the Victor paper uses, beside the count a gated
//! feed-forward really needs.

use crate::config::{TextConfig, VlmConfig};

/// How the feed-forward of a layer is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formula {
    /// `4nd² + 2n²d + 2ndm`, FastV's and the paper's.
    FastV,
    /// `2nd·(q + kv) + 2n²q + 3ndm`: grouped keys, gated feed-forward.
    Gated,
}

/// Multiply–accumulates of one decoder layer on `rows` tokens.
pub fn layer_macs(config: &TextConfig, rows: usize, formula: Formula) -> f64 {
    let (n, d, m) = (
        rows as f64,
        config.hidden_size as f64,
        config.intermediate_size as f64,
    );
    match formula {
        Formula::FastV => 4.0 * n * d * d + 2.0 * n * n * d + 2.0 * n * d * m,
        Formula::Gated => {
            let queries = (config.num_attention_heads * config.head_dim) as f64;
            let keys = (config.num_key_value_heads * config.head_dim) as f64;
            2.0 * n * d * (queries + keys) + 2.0 * n * n * queries + 3.0 * n * d * m
        }
    }
}

/// What one prompt with one image costs in the decoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PromptCost {
    /// Multiply–accumulates of the prefill by FastV's formula.
    pub macs_fastv: f64,
    /// Multiply–accumulates of the prefill as computed.
    pub macs_gated: f64,
    /// Cached keys and values, in elements.
    pub cache_elements: usize,
    /// Image rows after the drop.
    pub final_tokens: usize,
    /// Image rows, averaged over the layers.
    pub mean_tokens: f64,
}

/// The cost of a prompt of `text` tokens and one image of `visual` tokens.
///
/// `reduced` says whether the config's reduction is applied; without it every layer sees the text
/// and the visual tokens.
pub fn prompt_cost(config: &VlmConfig, text: usize, visual: usize, reduced: bool) -> PromptCost {
    let decoder = &config.text_config;
    let layers = decoder.num_hidden_layers;
    let registers = if reduced { config.num_registers() } else { 0 };
    let drop = if reduced {
        config.drop_layer().unwrap_or(layers)
    } else {
        layers
    };
    let (early, late) = (
        visual + registers,
        if drop < layers {
            registers
        } else {
            visual + registers
        },
    );
    let total = |formula| {
        drop as f64 * layer_macs(decoder, text + early, formula)
            + (layers - drop) as f64 * layer_macs(decoder, text + late, formula)
    };
    let rows = drop * (text + early) + (layers - drop) * (text + late);
    PromptCost {
        macs_fastv: total(Formula::FastV),
        macs_gated: total(Formula::Gated),
        cache_elements: rows * 2 * decoder.num_key_value_heads * decoder.head_dim,
        final_tokens: late,
        mean_tokens: (drop * early + (layers - drop) * late) as f64 / layers as f64,
    }
}
