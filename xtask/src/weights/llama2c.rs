//! llama2.c's model and tokenizer files (its `export.py` version 0, and `tokenizer.py`), with the model's
//! tensors under the names and in the rotary layout of Hugging Face's Llama.

use anyhow::{Context, Result, ensure};

use super::tensor::{Tensor, Tensors};
use super::vocabulary::Vocabulary;

/// The header of a model file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) num_key_value_heads: usize,
    pub(super) vocab_size: usize,
    /// Positions it was trained at.
    pub(super) positions: usize,
}

impl Header {
    /// Width of one attention head.
    pub(super) fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// Reads a model file, then the tokenizer that follows it in the same bytes.
pub(super) fn parse(bytes: &[u8]) -> Result<(Header, Tensors, Vocabulary)> {
    let mut reader = Reader(bytes);
    let (header, tensors) = model(&mut reader).context("parsing the llama2.c model")?;
    let pieces = tokenizer(&mut reader, header.vocab_size).context("parsing its tokenizer")?;
    ensure!(reader.0.is_empty(), "bytes after the tokenizer");
    Ok((header, tensors, pieces))
}

fn model(reader: &mut Reader<'_>) -> Result<(Header, Tensors)> {
    let header = Header {
        hidden_size: reader.size()?,
        intermediate_size: reader.size()?,
        num_hidden_layers: reader.size()?,
        num_attention_heads: reader.size()?,
        num_key_value_heads: reader.size()?,
        // Negative where the head is a matrix of its own, which none of ours has.
        vocab_size: reader.size()?,
        positions: reader.size()?,
    };
    let hidden = header.hidden_size;
    let heads = header.num_attention_heads;
    ensure!(
        heads > 0 && hidden.is_multiple_of(2 * heads),
        "{heads} heads do not divide {hidden} into even parts"
    );
    let keys = header.num_key_value_heads * header.head_dim();
    let inner = header.intermediate_size;

    let mut tensors = Tensors::new();
    let embedding = reader.tensor(&[header.vocab_size, hidden])?;
    tensors.insert("model.embed_tokens.weight".into(), embedding);
    for (module, shape) in [
        ("input_layernorm", &[hidden][..]),
        ("self_attn.q_proj", &[hidden, hidden]),
        ("self_attn.k_proj", &[keys, hidden]),
        ("self_attn.v_proj", &[keys, hidden]),
        ("self_attn.o_proj", &[hidden, hidden]),
        ("post_attention_layernorm", &[hidden]),
        ("mlp.gate_proj", &[inner, hidden]),
        ("mlp.down_proj", &[hidden, inner]),
        ("mlp.up_proj", &[inner, hidden]),
    ] {
        for layer in 0..header.num_hidden_layers {
            let mut tensor = reader.tensor(shape)?;
            if matches!(module, "self_attn.q_proj" | "self_attn.k_proj") {
                tensor.values = halves(&tensor.values, header.head_dim(), hidden);
            }
            tensors.insert(format!("model.layers.{layer}.{module}.weight"), tensor);
        }
    }
    tensors.insert("model.norm.weight".into(), reader.tensor(&[hidden])?);
    // The tables of cosines and sines, which the angles' formula gives again.
    reader.tensor(&[2, header.positions, header.head_dim() / 2])?;
    Ok((header, tensors))
}

/// The rows of a query or key projection, from rotated pairs side by side, (0, 1), (2, 3), …, to pairs
/// half a head apart, (0, `head_dim` / 2), …, which is how Hugging Face's `rotate_half` takes them.
///
/// # Shapes
/// - rows, output: `[heads * head_dim, width]`
fn halves(rows: &[f32], head_dim: usize, width: usize) -> Vec<f32> {
    let mut output = Vec::with_capacity(rows.len());
    for head in rows.chunks_exact(head_dim * width) {
        for member in 0..2 {
            for pair in 0..head_dim / 2 {
                let row = 2 * pair + member;
                output.extend_from_slice(&head[row * width..(row + 1) * width]);
            }
        }
    }
    output
}

fn tokenizer(reader: &mut Reader<'_>, size: usize) -> Result<Vocabulary> {
    let _longest = reader.size()?;
    let mut vocabulary = Vocabulary::default();
    for id in 0..size {
        let score = reader.float()?;
        let length = reader.size()?;
        let bytes = reader.bytes(length)?;
        // What the file holds is what a piece prints: bytes for themselves, a space for a word's mark.
        let piece = match id {
            0 => "<unk>".to_owned(),
            1 => "<s>".to_owned(),
            2 => "</s>".to_owned(),
            3..=258 => format!("<0x{:02X}>", id - 3),
            _ => std::str::from_utf8(bytes)
                .with_context(|| format!("piece {id}"))?
                .replace(' ', "\u{2581}"),
        };
        vocabulary.push(piece, score);
    }
    Ok(vocabulary)
}

/// What is left of the file.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (found, rest) = self
            .0
            .split_at_checked(count)
            .context("the file ends early")?;
        self.0 = rest;
        Ok(found)
    }

    fn word(&mut self) -> Result<[u8; 4]> {
        Ok(self.bytes(4)?.try_into()?)
    }

    fn size(&mut self) -> Result<usize> {
        let value = i32::from_le_bytes(self.word()?);
        usize::try_from(value).with_context(|| format!("a size of {value}"))
    }

    fn float(&mut self) -> Result<f32> {
        Ok(f32::from_le_bytes(self.word()?))
    }

    fn tensor(&mut self, shape: &[usize]) -> Result<Tensor> {
        let count: usize = shape.iter().product();
        let (floats, _) = self.bytes(4 * count)?.as_chunks::<4>();
        let values = floats.iter().map(|&bytes| f32::from_le_bytes(bytes));
        Tensor::new(shape, values.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_move_half_a_head_apart() {
        // Two heads of four rows, each row two copies of its number.
        let rows: Vec<f32> = (0..8).flat_map(|row| [row as f32; 2]).collect();
        let moved: Vec<f32> = halves(&rows, 4, 2).into_iter().step_by(2).collect();
        assert_eq!(moved, [0., 2., 1., 3., 4., 6., 5., 7.]);
    }

    #[test]
    fn rotation_in_either_layout_gives_the_same_scores() {
        let (query, key) = ([0.3, -1.2, 0.8, 2.0], [1.1, 0.4, -0.7, 0.9]);
        let angles = [0.9_f32, 0.05];
        let beside = |x: [f32; 4]| {
            let turn = |pair: usize| {
                let (sin, cos) = angles[pair].sin_cos();
                let (a, b) = (x[2 * pair], x[2 * pair + 1]);
                [a * cos - b * sin, a * sin + b * cos]
            };
            [turn(0), turn(1)].concat()
        };
        let apart = |x: &[f32]| {
            let turn = |pair: usize| {
                let (sin, cos) = angles[pair].sin_cos();
                let (a, b) = (x[pair], x[pair + 2]);
                (a * cos - b * sin, a * sin + b * cos)
            };
            let (first, second) = (turn(0), turn(1));
            vec![first.0, second.0, first.1, second.1]
        };
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let expected = dot(&beside(query), &key);
        let found = dot(&apart(&halves(&query, 4, 1)), &halves(&key, 4, 1));
        assert!((expected - found).abs() < 1e-6);
    }

    #[test]
    fn a_file_that_ends_early_is_refused() {
        assert!(parse(&[0; 20]).is_err());
    }
}
