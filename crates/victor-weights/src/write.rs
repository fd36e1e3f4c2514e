//! Writes tensors into safetensors files, one at a time.

use crate::WeightsError;
use half::{bf16, f16};
use safetensors::{Dtype, View};
use serde_json::{Map, json};
use std::borrow::Cow;
use std::cell::RefCell;
use std::fs;
use std::path::Path;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats.
    F16,
    /// The upper halves of 32-bit floats.
    BF16,
    /// Matrices as 8-bit integers with one float scale a row (`NAME_scale`), the rest as 16-bit
    /// floats.
    Int8,
}

/// A tensor to be written: its name and shape now, its numbers when their turn comes.
pub(crate) struct Outgoing<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) read: Box<dyn Fn() -> Result<Vec<f32>, WeightsError> + 'a>,
}

/// Told of bytes written so far and bytes in all.
pub(crate) type Progress<'a> = &'a dyn Fn(u64, u64);

/// Writes `tensors` to `dir` as `model.safetensors`, or as shards of at most `max_bytes` with an index.
pub(crate) fn write_tensors(
    tensors: &[Outgoing],
    storage: Storage,
    max_bytes: Option<usize>,
    dir: &Path,
    progress: Progress,
) -> Result<(), WeightsError> {
    let state = RefCell::new(State {
        done: 0,
        error: None,
    });
    let encoded: Vec<Encoded> = tensors
        .iter()
        .flat_map(|tensor| encodings(tensor, storage, &state))
        .collect();
    let total: usize = encoded.iter().map(Encoded::bytes).sum();
    let shards = split(&encoded, max_bytes.unwrap_or(usize::MAX));
    let mut weight_map = Map::new();
    for (index, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_string(),
            count => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        let path = dir.join(&name);
        let shard = shard.iter().map(|tensor| {
            weight_map.insert(tensor.name.clone(), json!(name));
            let reported = Reported {
                tensor,
                total: total as u64,
                progress,
            };
            (tensor.name.clone(), reported)
        });
        let written = safetensors::serialize_to_file(shard, None, &path);
        if let Some(error) = state.borrow_mut().error.take() {
            return Err(error);
        }
        written.map_err(|source| match source {
            safetensors::SafeTensorError::IoError(source) => WeightsError::Write {
                path: path.clone(),
                bytes: total as u64,
                source,
            },
            source => WeightsError::Header {
                path: path.clone(),
                source,
            },
        })?;
    }
    if shards.len() == 1 {
        return Ok(());
    }
    let path = dir.join("model.safetensors.index.json");
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    fs::write(&path, format!("{index:#}\n")).map_err(WeightsError::io(&path))
}

/// What writing has come to; the crate that writes asks for bytes and takes no error.
struct State {
    done: u64,
    error: Option<WeightsError>,
}

/// A tensor of a file in its stored form.
struct Encoded<'a> {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    tensor: &'a Outgoing<'a>,
    /// `None` where a number is beyond the type.
    encode: fn(&[f32], usize) -> Option<Vec<u8>>,
    state: &'a RefCell<State>,
}

fn encodings<'a>(
    tensor: &'a Outgoing<'a>,
    storage: Storage,
    state: &'a RefCell<State>,
) -> Vec<Encoded<'a>> {
    let encoded = |name: String, shape, dtype, encode| Encoded {
        name,
        shape,
        dtype,
        tensor,
        encode,
        state,
    };
    let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
    match storage {
        Storage::F32 => vec![encoded(name, shape, Dtype::F32, single)],
        Storage::BF16 => vec![encoded(name, shape, Dtype::BF16, brain)],
        Storage::Int8 if shape.len() == 2 && name != "visual_registers" => {
            let scales = vec![shape[0], 1];
            vec![
                encoded(name.clone(), shape, Dtype::I8, int8_rows),
                encoded(format!("{name}_scale"), scales, Dtype::F32, int8_scales),
            ]
        }
        Storage::F16 | Storage::Int8 => vec![encoded(name, shape, Dtype::F16, half)],
    }
}

impl Encoded<'_> {
    fn bytes(&self) -> usize {
        let numbers: usize = self.shape.iter().product();
        numbers * self.dtype.bitsize() / 8
    }

    /// The stored bytes; zeros once something failed, so that the writer comes to its end.
    fn data(&self) -> Vec<u8> {
        let bytes = self.bytes();
        if self.state.borrow().error.is_some() {
            return vec![0; bytes];
        }
        let width = self.tensor.shape.last().copied().unwrap_or(1).max(1);
        let encoded = (self.tensor.read)().and_then(|values| {
            (self.encode)(&values, width).ok_or_else(|| WeightsError::StorageOverflow {
                name: self.name.clone(),
                storage: match self.dtype {
                    Dtype::I8 => "int8 (they are not finite)",
                    Dtype::BF16 => "bf16",
                    _ => "f16",
                },
            })
        });
        encoded.unwrap_or_else(|error| {
            self.state.borrow_mut().error = Some(error);
            vec![0; bytes]
        })
    }
}

/// A tensor whose writing is told of.
struct Reported<'a> {
    tensor: &'a Encoded<'a>,
    total: u64,
    progress: Progress<'a>,
}

impl View for Reported<'_> {
    fn dtype(&self) -> Dtype {
        self.tensor.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let data = self.tensor.data();
        let mut state = self.tensor.state.borrow_mut();
        state.done += data.len() as u64;
        (self.progress)(state.done, self.total);
        data.into()
    }

    fn data_len(&self) -> usize {
        self.tensor.bytes()
    }
}

fn split<'a, 'b>(tensors: &'b [Encoded<'a>], max_bytes: usize) -> Vec<Vec<&'b Encoded<'a>>> {
    let mut shards: Vec<Vec<&Encoded>> = Vec::new();
    let mut size = 0;
    for tensor in tensors {
        if shards.is_empty() || size + tensor.bytes() > max_bytes {
            shards.push(Vec::new());
            size = 0;
        }
        size += tensor.bytes();
        if let Some(last) = shards.last_mut() {
            last.push(tensor);
        }
    }
    shards
}

fn single(values: &[f32], _width: usize) -> Option<Vec<u8>> {
    Some(bytemuck::cast_slice(values).to_vec())
}

fn half(values: &[f32], _width: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2 * values.len());
    for value in values {
        let half = f16::from_f32(*value);
        if half.is_infinite() && value.is_finite() {
            return None;
        }
        bytes.extend(half.to_le_bytes());
    }
    Some(bytes)
}

fn brain(values: &[f32], _width: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2 * values.len());
    for value in values {
        let half = bf16::from_f32(*value);
        if half.is_infinite() && value.is_finite() {
            return None;
        }
        bytes.extend(half.to_le_bytes());
    }
    Some(bytes)
}

/// Every row rounded to `[-127, 127]` times its own scale.
fn int8_rows(values: &[f32], width: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(values.len());
    for row in values.chunks_exact(width) {
        let scale = row_scale(row)?;
        bytes.extend(row.iter().map(|value| (value / scale).round() as i8 as u8));
    }
    Some(bytes)
}

fn int8_scales(values: &[f32], width: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4 * values.len() / width);
    for row in values.chunks_exact(width) {
        bytes.extend(row_scale(row)?.to_le_bytes());
    }
    Some(bytes)
}

/// The largest number over 127; `None` if one is not finite.
fn row_scale(row: &[f32]) -> Option<f32> {
    let mut largest = 0.0_f32;
    for value in row {
        if !value.is_finite() {
            return None;
        }
        largest = largest.max(value.abs());
    }
    Some(if largest > 0.0 { largest / 127.0 } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_own_scale() {
        let values = [1.27, -0.635, 0.0, 0.0, 254.0, 127.0];
        let rows = int8_rows(&values, 2).expect("finite");
        assert_eq!(
            rows.iter().map(|byte| *byte as i8).collect::<Vec<_>>(),
            [127, -64, 0, 0, 127, 64]
        );
        let scales = int8_scales(&values, 2).expect("finite");
        let scales: &[f32] = bytemuck::cast_slice(&scales);
        assert!((scales[0] - 0.01).abs() < 1e-7 && scales[1] == 1.0 && scales[2] == 2.0);
    }

    #[test]
    fn numbers_beyond_a_type_are_found() {
        assert!(half(&[65504.0, f32::INFINITY], 2).is_some());
        assert!(half(&[65536.0], 1).is_none());
        assert!(brain(&[65536.0], 1).is_some());
        assert!(brain(&[f32::MAX], 1).is_none());
        assert!(int8_rows(&[1.0, f32::NAN], 2).is_none());
        assert!(int8_scales(&[f32::INFINITY], 1).is_none());
    }
}
