//! The number type that matrices are kept in, and numbers on their way into it.

use crate::WeightsError;
use crate::formats::Format;
use burn::tensor::{AllocationProperty, Bytes, DType};
use half::{bf16, f16};
use std::fmt;
use victor_backend::{HalfWeights, VictorBackend};

/// What a model's large matrices are kept in: those of linear layers and the embedding table.
///
/// Norms, biases and small tables are f32 whatever is chosen, and so are activations. Widening a
/// half is exact: a file stored as halves computes the same whether it is kept so or as f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WeightDtype {
    /// f16 and bf16 as they are stored, on backends that multiply them where they lie; else f32.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// 16-bit floats. Other numbers are rounded to them.
    F16,
    /// 16-bit floats with the exponent of f32. Other numbers are rounded to them.
    Bf16,
}

impl WeightDtype {
    /// Refuses a half type that the device does not take, before anything is read.
    pub(crate) fn check<B: VictorBackend>(self, device: &B::Device) -> Result<(), WeightsError> {
        let half = match self {
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
            Self::Auto | Self::F32 => return Ok(()),
        };
        if B::half_weights(device, half) == HalfWeights::Unsupported {
            return Err(WeightsError::HalfWeights {
                device: B::name(device),
                dtype: self,
            });
        }
        Ok(())
    }

    /// What a matrix stored as `stored` is kept in.
    pub(crate) fn kept<B: VictorBackend>(self, stored: Format, device: &B::Device) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
            Self::Auto => match tensor_dtype(stored) {
                Some(half @ (DType::F16 | DType::BF16))
                    if B::half_weights(device, half) == HalfWeights::InPlace =>
                {
                    half
                }
                _ => DType::F32,
            },
        }
    }
}

impl fmt::Display for WeightDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// The tensor type with the numbers of a stored type, where there is one.
pub(crate) fn tensor_dtype(stored: Format) -> Option<DType> {
    match stored {
        Format::F32 => Some(DType::F32),
        Format::F16 => Some(DType::F16),
        Format::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// Bytes of a file as a tensor's, without a copy; `None` if they do not lie as numbers must.
pub(crate) fn aligned(bytes: bytes::Bytes, dtype: DType) -> Option<Bytes> {
    let fits = (bytes.as_ptr() as usize).is_multiple_of(dtype.size());
    // Files are little-endian.
    (fits && cfg!(target_endian = "little"))
        .then(|| Bytes::from_shared(bytes, AllocationProperty::Other))
}

/// Numbers rounded to `dtype`; `None` if one is beyond it.
pub(crate) fn narrowed(values: Vec<f32>, dtype: DType) -> Option<Bytes> {
    let fits = |value: f32, rounded: f32| rounded.is_finite() || !value.is_finite();
    let bits: Option<Vec<u16>> = match dtype {
        DType::F16 => values
            .iter()
            .map(|value| (f16::from_f32(*value), *value))
            .map(|(half, value)| fits(value, half.to_f32()).then(|| half.to_bits()))
            .collect(),
        DType::BF16 => values
            .iter()
            .map(|value| (bf16::from_f32(*value), *value))
            .map(|(half, value)| fits(value, half.to_f32()).then(|| half.to_bits()))
            .collect(),
        _ => return Some(Bytes::from_elems(values)),
    };
    bits.map(Bytes::from_elems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beyond_a_half_are_found() {
        let some = |values: &[f32], dtype| narrowed(values.into(), dtype).is_some();
        assert!(some(&[65504.0, f32::INFINITY, f32::NAN, 1e-30], DType::F16));
        assert!(!some(&[1.0, 65536.0], DType::F16));
        assert!(some(&[65536.0], DType::BF16));
        assert!(!some(&[f32::MAX], DType::BF16));
        assert!(some(&[f32::MAX], DType::F32));
    }

    #[test]
    fn bytes_off_their_grid_are_not_shared() {
        let bytes = bytes::Bytes::from(vec![0_u8; 64]);
        let start = (bytes.as_ptr() as usize).next_multiple_of(4) - bytes.as_ptr() as usize;
        assert!(aligned(bytes.slice(start..start + 8), DType::F32).is_some());
        assert!(aligned(bytes.slice(start + 2..start + 10), DType::F32).is_none());
        assert!(aligned(bytes.slice(start + 2..start + 10), DType::F16).is_some());
    }
}
