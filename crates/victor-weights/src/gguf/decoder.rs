//! The configuration of a decoder, from metadata and the shapes of tensors.
//!
//! Source: `llama_model::load_hparams` in llama.cpp's `llama-model.cpp`, and its converters
//! `conversion/llama.py` and `conversion/qwen.py`.

use super::{GgufError, GgufFile, Metadata};
use crate::WeightsError;
use victor_model::{RopeConfig, RopeScaling, RotaryTable, TextConfig};

/// What is read as a decoder.
const EXPECTED: &str = "decoders of `llama` and `qwen2` are read (a tower and projector, `clip`, are \
                        given beside the decoder)";

/// The configuration of a decoder.
///
/// # Errors
/// If the architecture is not `llama` or `qwen2`, or the file says something that is not built:
/// experts, partial rotation, attention in windows, YaRN.
pub fn text_config(file: &GgufFile) -> Result<TextConfig, WeightsError> {
    read(file).map_err(WeightsError::gguf(file.path()))
}

fn read(file: &GgufFile) -> Result<TextConfig, GgufError> {
    let keys = Keys::new(file, &["llama", "qwen2"], EXPECTED)?;
    keys.unbuilt()?;
    let hidden_size = keys.size("embedding_length", None)?;
    let heads = keys.size("attention.head_count", None)?;
    let kv_heads = keys.size("attention.head_count_kv", Some(heads))?;
    let embedding = file.required("token_embd.weight")?;
    let has = |name: &str| file.tensor(name).is_some();
    let qwen2 = keys.architecture == "qwen2";
    let head_dim = head_dim(&keys, hidden_size, heads)?;
    let config = TextConfig {
        hidden_size,
        intermediate_size: keys.size("feed_forward_length", None)?,
        num_hidden_layers: keys.size("block_count", None)?,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        vocab_size: embedding.shape[0],
        rms_norm_eps: keys.number("attention.layer_norm_rms_epsilon", None)?,
        max_position_embeddings: keys.size("context_length", None)?,
        qkv_bias: qwen2 || has("blk.0.attn_q.bias"),
        output_bias: has("blk.0.attn_output.bias"),
        mlp_bias: has("blk.0.ffn_gate.bias"),
        tie_word_embeddings: !has("output.weight"),
        rope: rope(file, &keys, head_dim)?,
    };
    if embedding.shape.len() != 2 || embedding.shape[1] != hidden_size {
        return Err(keys.wrong("embedding_length", "the width of `token_embd.weight`"));
    }
    // A count that the file does not bear out would be believed wherever layers are listed.
    file.required(&format!(
        "blk.{}.attn_norm.weight",
        config.num_hidden_layers - 1
    ))?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(keys.wrong("attention.head_count_kv", "a divisor of the head count"));
    }
    let rows = heads.checked_mul(config.head_dim);
    if rows != file.required("blk.0.attn_q.weight")?.shape.first().copied() {
        return Err(keys.wrong(
            "attention.key_length",
            "the rows of `blk.0.attn_q.weight` divided by the head count",
        ));
    }
    Ok(config)
}

fn head_dim(keys: &Keys, hidden_size: usize, heads: usize) -> Result<usize, GgufError> {
    let width = keys.size("attention.key_length", Some((hidden_size / heads).max(1)))?;
    if keys.size("attention.value_length", Some(width))? != width {
        return Err(keys.wrong("attention.value_length", "the same as the key length"));
    }
    if keys.size("rope.dimension_count", Some(width))? != width {
        return Err(keys.wrong(
            "rope.dimension_count",
            "the width of a head: turning a part of it is not built",
        ));
    }
    if !width.is_multiple_of(2) {
        return Err(keys.wrong("attention.key_length", "an even number"));
    }
    Ok(width)
}

fn rope(file: &GgufFile, keys: &Keys, head_dim: usize) -> Result<RopeConfig, GgufError> {
    let theta = keys.number("rope.freq_base", Some(10_000.0))?;
    if theta <= 0.0 {
        return Err(keys.wrong("rope.freq_base", "a positive number"));
    }
    let old_factor = keys.number("rope.scale_linear", Some(0.0))?;
    let factor = keys.number("rope.scaling.factor", Some(old_factor))?;
    let kind = keys.key("rope.scaling.type");
    let linear = match keys.metadata.text(&kind)? {
        Some("linear") | None => true,
        Some("none") => false,
        Some(_) => return Err(keys.wrong("rope.scaling.type", "none or linear")),
    };
    // llama.cpp takes a factor of 0 as none.
    let stretched = linear && factor > 0.0 && factor != 1.0;
    let factors = match file.tensor("rope_freqs.weight") {
        Some(tensor) => Some(tensor.to_f32()?),
        None => None,
    };
    let scaling = match (stretched, factors) {
        (false, None) => None,
        (true, None) => Some(RopeScaling::Linear { factor }),
        (false, Some(factors)) => {
            let factors: Vec<f64> = factors.into_iter().map(f64::from).collect();
            let valid = |factor: &f64| factor.is_finite() && *factor > 0.0;
            if factors.len() != head_dim / 2 || !factors.iter().all(valid) {
                return Err(GgufError::Unbuilt {
                    name: "rope_freqs.weight".into(),
                    what: "other than one positive factor for each pair of a head's elements",
                });
            }
            llama3(theta, factors)
        }
        (true, Some(_)) => {
            return Err(keys.wrong("rope.scaling.factor", "none beside `rope_freqs.weight`"));
        }
    };
    Ok(RopeConfig { theta, scaling })
}

/// The scaling behind the factors of all frequencies: Llama 3's, or none if all are one.
///
/// The converter writes what each frequency is divided by, not what that was computed from. Llama 3.1
/// to 3.3 differ in the largest factor only.
fn llama3(theta: f64, factors: Vec<f64>) -> Option<RopeScaling> {
    if factors.iter().all(|factor| *factor == 1.0) {
        return None;
    }
    let frequencies = |scaling| {
        let table = RotaryTable::new(&RopeConfig { theta, scaling }, 2 * factors.len());
        table.inverse_frequencies().to_vec()
    };
    let scaling = RopeScaling::Llama3 {
        factor: factors.iter().copied().fold(1.0, f64::max),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192.0,
    };
    let plain = frequencies(None);
    let computed = frequencies(Some(scaling.clone()));
    let known = factors
        .iter()
        .zip(plain.iter().zip(computed))
        .all(|(factor, (plain, computed))| (plain / computed / factor - 1.0).abs() < 1e-4);
    Some(if known {
        scaling
    } else {
        RopeScaling::Factors { factors }
    })
}

/// Metadata under the name of an architecture.
pub(crate) struct Keys<'a> {
    pub(crate) architecture: &'a str,
    pub(crate) metadata: Metadata<'a>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(
        file: &'a GgufFile,
        known: &[&str],
        expected: &'static str,
    ) -> Result<Self, GgufError> {
        let architecture = file.architecture()?;
        if !known.contains(&architecture) {
            return Err(GgufError::Architecture {
                found: architecture.into(),
                expected,
            });
        }
        let metadata = file.metadata();
        if metadata.natural("split.count")?.unwrap_or(1) > 1 {
            return Err(metadata.wrong(
                "split.count",
                "1: join the parts with `llama-gguf-split --merge FIRST OUT`",
            ));
        }
        Ok(Self {
            architecture,
            metadata,
        })
    }

    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub(crate) fn wrong(&self, name: &str, expected: &'static str) -> GgufError {
        self.metadata.wrong(&self.key(name), expected)
    }

    /// A count of at least one; no size of a model comes near the limit.
    pub(crate) fn size(&self, name: &str, default: Option<usize>) -> Result<usize, GgufError> {
        const LARGEST: u64 = 1 << 28;
        let default = default.map(|size| size as u64);
        let found = self.metadata.natural(&self.key(name))?.or(default);
        match found {
            Some(size @ 1..=LARGEST) => Ok(size as usize),
            _ => Err(self.wrong(name, "a count of at least 1")),
        }
    }

    pub(crate) fn number(&self, name: &str, default: Option<f64>) -> Result<f64, GgufError> {
        let found = self.metadata.number(&self.key(name))?.or(default);
        found.ok_or_else(|| self.wrong(name, "a number"))
    }

    /// Refuses what llama.cpp computes under these architectures and this engine does not.
    fn unbuilt(&self) -> Result<(), GgufError> {
        let natural = |name: &str| self.metadata.natural(&self.key(name));
        if natural("expert_count")?.unwrap_or(0) > 0 {
            return Err(self.wrong("expert_count", "none: mixtures of experts are not built"));
        }
        let context = natural("context_length")?.unwrap_or(0);
        if natural("attention.sliding_window")?.is_some_and(|window| (1..context).contains(&window))
        {
            return Err(self.wrong(
                "attention.sliding_window",
                "none: attention in windows is not built",
            ));
        }
        if self.number("attention.scale", Some(0.0))? != 0.0 {
            return Err(self.wrong(
                "attention.scale",
                "none: it is one over the root of the width",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::testing::{Writer, tiny_decoder};

    fn config(writer: &Writer) -> TextConfig {
        text_config(&writer.file()).expect("a config")
    }

    fn refusal(writer: Writer) -> String {
        text_config(&writer.file())
            .expect_err("a refusal")
            .to_string()
    }

    #[test]
    fn llama_and_qwen2_are_read() {
        let llama = config(&tiny_decoder("llama"));
        let expected = TextConfig {
            hidden_size: 8,
            intermediate_size: 12,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 4,
            vocab_size: 10,
            rms_norm_eps: 1e-5,
            rope: RopeConfig {
                theta: 500_000.0,
                scaling: None,
            },
            max_position_embeddings: 64,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            tie_word_embeddings: true,
        };
        assert_eq!(llama, expected);
        let qwen2 = config(&tiny_decoder("qwen2").tensor("output.weight", &[10, 8], 0.0));
        let biased = TextConfig {
            qkv_bias: true,
            tie_word_embeddings: false,
            ..expected
        };
        assert_eq!(qwen2, biased);
    }

    #[test]
    fn rotary_scaling_is_read_or_refused() {
        let linear = tiny_decoder("llama")
            .text("llama.rope.scaling.type", "linear")
            .f32("llama.rope.scaling.factor", 4.0);
        let scaling = Some(RopeScaling::Linear { factor: 4.0 });
        assert_eq!(config(&linear).rope.scaling, scaling);
        let old = tiny_decoder("llama").f32("llama.rope.scale_linear", 4.0);
        assert_eq!(config(&old).rope.scaling, scaling);
        let none = linear.text("llama.rope.scaling.type", "none");
        assert_eq!(config(&none).rope.scaling, None);
        let yarn = refusal(none.text("llama.rope.scaling.type", "yarn"));
        assert!(
            yarn.contains("`llama.rope.scaling.type` is `\"yarn\"`"),
            "{yarn}"
        );
    }

    #[test]
    fn llama3_is_told_by_its_factors() {
        // What the converter writes for theta 500,000, 4 elements a head and Llama 3.1's factor 8: the
        // second pair turns in 4443 positions, between 2048 and 8192.
        let smooth = 8192.0 / (2.0 * std::f64::consts::PI * 500_000_f64.sqrt());
        let ramp = (smooth - 1.0) / 3.0;
        let second = 1.0 / ((1.0 - ramp) / 8.0 + ramp);
        assert!(second > 1.0 && second < 8.0);
        let file = |factors: &[f32]| {
            let bytes = factors.iter().flat_map(|factor| factor.to_le_bytes());
            tiny_decoder("llama").raw("rope_freqs.weight", &[2], 0, bytes.collect())
        };
        // No frequency of so short a head is divided by all of the factor: the factors stay as they are.
        let partial = config(&file(&[1.0, second as f32])).rope;
        let table = RotaryTable::new(&partial, 4);
        let expected = 1.0 / 500_000_f64.sqrt() / second;
        assert!((table.inverse_frequencies()[1] / expected - 1.0).abs() < 1e-6);
        assert_eq!(table.inverse_frequencies()[0], 1.0);
        // With theta 5e7 the second pair is divided by the factor itself.
        let whole = file(&[1.0, 8.0]).f32("llama.rope.freq_base", 5e7);
        assert_eq!(
            config(&whole).rope.scaling,
            Some(RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192.0,
            })
        );
        assert_eq!(config(&file(&[1.0, 1.0])).rope.scaling, None);
        let message = refusal(file(&[1.0, f32::NAN]));
        assert!(message.contains("rope_freqs.weight"), "{message}");
    }

    #[test]
    fn what_is_not_built_is_named() {
        let llama = || tiny_decoder("llama");
        let cases = [
            (
                tiny_decoder("gemma3"),
                "architecture `gemma3`; decoders of `llama`",
            ),
            (
                llama().u32("llama.expert_count", 8),
                "`llama.expert_count` is `8`",
            ),
            (llama().u32("split.count", 2), "llama-gguf-split --merge"),
            (
                llama().u32("llama.attention.sliding_window", 32),
                "attention in windows",
            ),
            (
                llama().u32("llama.rope.dimension_count", 2),
                "turning a part",
            ),
            (
                llama().u32("llama.attention.key_length", 6),
                "the same as the key length",
            ),
            (
                llama().i32s("llama.feed_forward_length", &[12, 12]),
                "`llama.feed_forward_length` is `an array of 2`",
            ),
            (
                llama().u32("llama.attention.head_count", 0),
                "`llama.attention.head_count` is `0`",
            ),
            (llama().without("llama.block_count"), "is missing"),
            (
                llama().u32("llama.block_count", 1 << 28),
                "no tensor `blk.268435455.attn_norm.weight`",
            ),
            (
                llama().remove_tensor("token_embd.weight"),
                "no tensor `token_embd.weight`",
            ),
            (
                llama().u32("llama.embedding_length", 16),
                "the width of `token_embd.weight`",
            ),
        ];
        for (writer, expected) in cases {
            let message = refusal(writer);
            assert!(message.contains(expected), "{message} ({expected})");
        }
    }
}
