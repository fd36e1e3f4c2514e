//! What a model weighs and costs, from its config alone.

use serde::Serialize;
use victor_model::VlmConfig;
use victor_model::cost::{PromptCost, prompt_cost};
use victor_model::parameters::{Part, matrix_parameters, part_parameters};

/// Text tokens of the prompt whose cost is shown, as in the paper.
const TEXT_TOKENS: usize = 64;

/// What a model weighs and costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Info {
    /// Parameters by part.
    pub parts: Vec<PartSize>,
    /// All parameters.
    pub parameters: usize,
    /// Parameters only the visual-token reduction has.
    pub reduction_parameters: usize,
    /// Bytes of the weights in 32-bit floats.
    pub weight_bytes: usize,
    /// Bytes of the weights with the large matrices in 16-bit floats.
    pub half_weight_bytes: usize,
    /// The most visual tokens of a picture; 0 for a model that reads text only.
    pub visual_tokens: usize,
    /// Text tokens of the prompt the costs are for.
    pub text_tokens: usize,
    /// Costs with the config's reduction.
    pub reduced: Cost,
    /// Costs without any.
    pub unreduced: Cost,
}

/// A part of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartSize {
    /// Its name.
    pub name: &'static str,
    /// Its parameters.
    pub parameters: usize,
}

/// What one prompt with one picture costs in the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Image rows after the drop.
    pub final_tokens: usize,
    /// Image rows averaged over the layers.
    pub mean_tokens: f64,
    /// Multiply–accumulates of the prefill by FastV's formula, which the paper uses.
    pub prefill_macs_fastv: f64,
    /// Multiply–accumulates of the prefill with the gated feed-forward counted in full.
    pub prefill_macs_gated: f64,
    /// Bytes of the cache in 32-bit floats.
    pub kv_bytes: usize,
}

impl Info {
    /// Counts a config.
    pub fn new(config: &VlmConfig) -> Self {
        let parts: Vec<PartSize> = Part::ALL
            .iter()
            .map(|part| PartSize {
                name: part.name(),
                parameters: part_parameters(config, *part),
            })
            .collect();
        let parameters = parts.iter().map(|part| part.parameters).sum();
        let visual_tokens = config.visual_tokens();
        let cost = |reduced| Cost::from(prompt_cost(config, TEXT_TOKENS, visual_tokens, reduced));
        Self {
            parameters,
            reduction_parameters: part_parameters(config, Part::Registers),
            weight_bytes: parameters * size_of::<f32>(),
            half_weight_bytes: parameters * size_of::<f32>()
                - matrix_parameters(config) * size_of::<u16>(),
            visual_tokens,
            text_tokens: TEXT_TOKENS,
            reduced: cost(true),
            unreduced: cost(false),
            parts,
        }
    }
}

impl From<PromptCost> for Cost {
    fn from(cost: PromptCost) -> Self {
        Self {
            final_tokens: cost.final_tokens,
            mean_tokens: cost.mean_tokens,
            prefill_macs_fastv: cost.macs_fastv,
            prefill_macs_gated: cost.macs_gated,
            kv_bytes: cost.cache_elements * size_of::<f32>(),
        }
    }
}
