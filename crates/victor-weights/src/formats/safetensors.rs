//! Safetensors: a JSON header, then the numbers.

use super::{Format, Span};
use safetensors::Dtype;
use safetensors::tensor::{SafeTensorError, SafeTensors};
use std::collections::BTreeMap;

/// Where the tensors of a safetensors file lie.
///
/// # Errors
/// If the header is cut off, does not parse, or does not describe exactly these bytes.
pub fn spans(bytes: &[u8]) -> Result<BTreeMap<String, Span>, SafeTensorError> {
    let (header, metadata) = SafeTensors::read_metadata(bytes)?;
    let start = header + size_of::<u64>();
    let spans = metadata.tensors().into_iter().map(|(name, info)| {
        let (from, to) = info.data_offsets;
        let span = Span {
            shape: info.shape.clone(),
            format: format(info.dtype),
            bytes: start + from..start + to,
        };
        (name, span)
    });
    Ok(spans.collect())
}

fn format(dtype: Dtype) -> Format {
    match dtype {
        Dtype::F32 => Format::F32,
        Dtype::F16 => Format::F16,
        Dtype::BF16 => Format::BF16,
        Dtype::I8 => Format::I8,
        Dtype::F64 => Format::Other("F64"),
        Dtype::U8 => Format::Other("U8"),
        Dtype::I16 => Format::Other("I16"),
        Dtype::U16 => Format::Other("U16"),
        Dtype::I32 => Format::Other("I32"),
        Dtype::U32 => Format::Other("U32"),
        Dtype::I64 => Format::Other("I64"),
        Dtype::U64 => Format::Other("U64"),
        Dtype::BOOL => Format::Other("BOOL"),
        Dtype::F8_E4M3 => Format::Other("F8_E4M3"),
        Dtype::F8_E5M2 => Format::Other("F8_E5M2"),
        _ => Format::Other("an unknown format"),
    }
}
