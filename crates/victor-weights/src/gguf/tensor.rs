//! A tensor of a GGUF file: its bytes where they stand, or as floats.

use super::blocks::{q4_0, q4_1, q5_0, q5_1, q8_0};
use super::k_blocks::{q2_k, q3_k, q4_k, q5_k, q6_k};
use super::{GgufError, TensorKind};
use half::{bf16, f16};
use std::borrow::Cow;

/// A tensor in the file.
#[derive(Clone, Copy, Debug)]
pub struct GgufTensor<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Its shape, row-major: `[out, in]` for a matrix.
    pub shape: &'a [usize],
    /// Its number format.
    pub kind: TensorKind,
    /// Its bytes, as many as its shape and format call for.
    pub bytes: &'a [u8],
    /// In which order its rows stand.
    pub rows: RowOrder,
}

/// In which order the rows of a tensor stand in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowOrder {
    /// As this engine wants them.
    #[default]
    Ours,
    /// Within each head the two halves alternate, so that rotary embedding turns neighbours. That is
    /// how llama.cpp's converter writes q and k of the architecture `llama`.
    Interleaved {
        /// How many heads the rows are.
        heads: usize,
    },
}

impl<'a> GgufTensor<'a> {
    /// How many elements it has.
    pub fn elements(&self) -> usize {
        self.bytes.len() / self.kind.block_bytes() * self.kind.block_elements()
    }

    /// The bytes with rows in this engine's order: borrowed, unless rows have to be moved.
    ///
    /// # Errors
    /// If the rows do not divide into the heads.
    pub fn ordered_bytes(&self) -> Result<Cow<'a, [u8]>, GgufError> {
        let RowOrder::Interleaved { heads } = self.rows else {
            return Ok(Cow::Borrowed(self.bytes));
        };
        let rows = self.shape.first().copied().unwrap_or(1);
        if heads == 0 || !rows.is_multiple_of(2 * heads) {
            return Err(GgufError::Unbuilt {
                name: self.name.into(),
                what: "its rows do not divide into heads of two halves",
            });
        }
        let half = rows / heads / 2;
        let row = self.bytes.len() / rows;
        let mut ordered = Vec::with_capacity(self.bytes.len());
        for index in 0..rows {
            let (head, place) = (index / (2 * half), index % (2 * half));
            let stored = head * 2 * half + place % half * 2 + place / half;
            ordered.extend_from_slice(&self.bytes[stored * row..(stored + 1) * row]);
        }
        Ok(Cow::Owned(ordered))
    }

    /// The numbers in float32, dequantised as ggml's reference does, rows in this engine's order.
    ///
    /// # Errors
    /// If the format is not read, or the rows do not divide into the heads.
    pub fn to_f32(&self) -> Result<Vec<f32>, GgufError> {
        let bytes = self.ordered_bytes()?;
        let bytes = bytes.as_ref();
        let block = match self.kind {
            TensorKind::F32 => return Ok(bytes.chunks_exact(4).map(f32_of).collect()),
            TensorKind::F16 => {
                let half = |two: &[u8]| f16::from_le_bytes([two[0], two[1]]).to_f32();
                return Ok(bytes.chunks_exact(2).map(half).collect());
            }
            TensorKind::Bf16 => {
                let half = |two: &[u8]| bf16::from_le_bytes([two[0], two[1]]).to_f32();
                return Ok(bytes.chunks_exact(2).map(half).collect());
            }
            TensorKind::Q4_0 => q4_0,
            TensorKind::Q4_1 => q4_1,
            TensorKind::Q5_0 => q5_0,
            TensorKind::Q5_1 => q5_1,
            TensorKind::Q8_0 => q8_0,
            TensorKind::Q2K => q2_k,
            TensorKind::Q3K => q3_k,
            TensorKind::Q4K => q4_k,
            TensorKind::Q5K => q5_k,
            TensorKind::Q6K => q6_k,
            TensorKind::Unread(_) => {
                return Err(GgufError::UnreadKind {
                    name: self.name.into(),
                    kind: self.kind,
                });
            }
        };
        let mut values = vec![0.0; self.elements()];
        let blocks = bytes.chunks_exact(self.kind.block_bytes());
        for (values, bytes) in values
            .chunks_exact_mut(self.kind.block_elements())
            .zip(blocks)
        {
            block(bytes, values);
        }
        Ok(values)
    }
}

fn f32_of(four: &[u8]) -> f32 {
    f32::from_le_bytes([four[0], four[1], four[2], four[3]])
}
