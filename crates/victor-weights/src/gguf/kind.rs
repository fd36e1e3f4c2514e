//! The number formats of GGUF tensors.
//!
//! Source: `ggml_type` in llama.cpp's `ggml.h` and the block structures of `ggml-common.h`.

use std::fmt;

/// A number format of tensors; all that are known by name, whether they are read or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorKind {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// The upper halves of 32-bit floats.
    Bf16,
    /// Blocks of 32: 4-bit integers and a scale.
    Q4_0,
    /// Blocks of 32: 4-bit integers, a scale and a minimum.
    Q4_1,
    /// Blocks of 32: 5-bit integers and a scale.
    Q5_0,
    /// Blocks of 32: 5-bit integers, a scale and a minimum.
    Q5_1,
    /// Blocks of 32: 8-bit integers and a scale.
    Q8_0,
    /// Blocks of 256: 2-bit integers, 4-bit scales and minima.
    Q2K,
    /// Blocks of 256: 3-bit integers, 6-bit scales.
    Q3K,
    /// Blocks of 256: 4-bit integers, 6-bit scales and minima.
    Q4K,
    /// Blocks of 256: 5-bit integers, 6-bit scales and minima.
    Q5K,
    /// Blocks of 256: 6-bit integers, 8-bit scales.
    Q6K,
    /// A format that is known by its place in the table and not read.
    Unread(u32),
}

/// The formats that are read, for messages.
pub(crate) const READ_KINDS: &str =
    "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K and Q6_K";

/// Number, name, elements of a block, bytes of a block.
const TABLE: [(u32, &str, usize, usize); 34] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

impl TensorKind {
    /// The format with a number of `ggml_type`, if it is known.
    pub fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => {
                TABLE.iter().find(|row| row.0 == id)?;
                Self::Unread(id)
            }
        })
    }

    /// Its number in `ggml_type`.
    pub fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2K => 10,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
            Self::Unread(id) => id,
        }
    }

    /// Whether [`GgufTensor::to_f32`](super::GgufTensor::to_f32) reads it.
    pub fn is_read(self) -> bool {
        !matches!(self, Self::Unread(_))
    }

    /// Elements of a block; rows are whole blocks.
    pub fn block_elements(self) -> usize {
        self.row().2
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.row().3
    }

    fn row(self) -> (u32, &'static str, usize, usize) {
        let id = self.id();
        let row = TABLE.iter().find(|row| row.0 == id);
        row.copied().unwrap_or((id, "of unknown type", 1, 1))
    }
}

impl fmt::Display for TensorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.row().1)
    }
}
