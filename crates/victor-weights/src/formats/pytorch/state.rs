//! The tensors of a state dict.

use super::PytorchError;
use super::archive::Archive;
use super::pickle::{Id, Value};
use crate::formats::{Format, Span};
use std::collections::BTreeMap;

/// Where each tensor of the state dict lies in the file.
///
/// Entries that are no tensors (a step count, a config) are passed over. A state dict under
/// `state_dict`, as training frameworks wrap it, is found.
pub(super) fn tensors(archive: &Archive) -> Result<BTreeMap<String, Span>, PytorchError> {
    let mut spans = BTreeMap::new();
    for &(key, value) in state_dict(archive)? {
        let (Some(name), Value::Tensor(arguments)) =
            (archive.pickle.name(key), archive.pickle.get(value))
        else {
            continue;
        };
        spans.insert(name.into(), span(archive, name, *arguments)?);
    }
    Ok(spans)
}

fn state_dict(archive: &Archive) -> Result<&[(Id, Id)], PytorchError> {
    let expected = "a dict of tensors";
    let Value::Dict(root) = archive.pickle.get(archive.root) else {
        return Err(PytorchError::Value { at: 0, expected });
    };
    let wrapped = root.iter().find_map(|&(key, value)| {
        match (archive.pickle.get(key), archive.pickle.get(value)) {
            (Value::Text(key), Value::Dict(inner)) if key == "state_dict" => Some(inner),
            _ => None,
        }
    });
    Ok(wrapped.unwrap_or(root))
}

/// `(storage, offset, shape, strides, …)`.
fn span(archive: &Archive, name: &str, arguments: Id) -> Result<Span, PytorchError> {
    let malformed = || PytorchError::OutOfFile {
        tensor: name.into(),
    };
    let arguments = archive.pickle.tuple(arguments).unwrap_or_default();
    let [storage, offset, shape, strides, ..] = *arguments else {
        return Err(malformed());
    };
    let (Some(storage), Value::Whole(offset)) =
        (archive.pickle.storage(storage), archive.pickle.get(offset))
    else {
        return Err(malformed());
    };
    let shape = sizes(archive, shape).ok_or_else(malformed)?;
    let strides = sizes(archive, strides).ok_or_else(malformed)?;
    // Checkpoints hold such views among parts that are never used (CLIP's `visual_projection`): it is
    // an error only when it is read.
    if !contiguous(&shape, &strides) {
        return Ok(Span {
            bytes: 0..0,
            format: Format::Other("a view with strides (torch's .contiguous() makes it plain)"),
            shape,
        });
    }
    let place = || {
        let range = archive.storages.get(storage.key)?;
        let count = shape
            .iter()
            .try_fold(1_usize, |count, size| count.checked_mul(*size))?;
        let start = usize::try_from(*offset)
            .ok()?
            .checked_mul(storage.number_size())?;
        let end = start.checked_add(count.checked_mul(storage.number_size())?)?;
        (end <= range.len()).then_some(range.start + start..range.start + end)
    };
    Ok(Span {
        bytes: place().ok_or_else(malformed)?,
        format: format(storage.class),
        shape,
    })
}

fn sizes(archive: &Archive, tuple: Id) -> Option<Vec<usize>> {
    /// Tensors of a model have at most four axes.
    const MOST_AXES: usize = 8;
    let items = archive.pickle.tuple(tuple)?;
    if items.len() > MOST_AXES {
        return None;
    }
    let size = |id: &Id| match archive.pickle.get(*id) {
        Value::Whole(size) => usize::try_from(*size).ok(),
        _ => None,
    };
    items.iter().map(size).collect()
}

/// Whether numbers lie in the order of their indices; the stride of an axis of one means nothing.
fn contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1_usize;
    shape.len() == strides.len()
        && shape.iter().zip(strides).rev().all(|(size, stride)| {
            let fits = *size <= 1 || *stride == expected;
            expected = expected.saturating_mul(*size);
            fits
        })
}

fn format(class: &str) -> Format {
    match class {
        "FloatStorage" => Format::F32,
        "HalfStorage" => Format::F16,
        "BFloat16Storage" => Format::BF16,
        // Signed bytes carry no scales in a state dict.
        "CharStorage" => Format::Other("int8"),
        "DoubleStorage" => Format::Other("float64"),
        "LongStorage" => Format::Other("int64"),
        "IntStorage" => Format::Other("int32"),
        "ShortStorage" => Format::Other("int16"),
        "ByteStorage" => Format::Other("uint8"),
        "BoolStorage" => Format::Other("bool"),
        _ => Format::Other("an unknown format"),
    }
}
