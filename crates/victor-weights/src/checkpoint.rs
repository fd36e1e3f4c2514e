//! The tensors of a model by our names, in whatever files they lie.

use crate::WeightsError;
use crate::formats::{Format, MappedFile};
use crate::gguf::GgufTensor;
use crate::lora::Delta;
use crate::names::canonical;
use bytes::Bytes;
use half::{bf16, f16};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The tensors of a checkpoint; nothing is read until it is asked for.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    files: Vec<MappedFile>,
    entries: BTreeMap<String, Entry>,
    pub(crate) deltas: BTreeMap<String, Delta>,
}

#[derive(Clone, Debug)]
struct Entry {
    file: usize,
    /// The name in the file.
    name: String,
}

/// A tensor in a file.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// The file it is in.
    pub path: &'a Path,
    /// Its name in the file.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its number format.
    pub format: Format,
    map: &'a Bytes,
    range: &'a Range<usize>,
}

impl Checkpoint {
    /// Maps the weights of a folder: `model.safetensors` or `pytorch_model.bin`, or the shards either's
    /// index names. Safetensors are preferred.
    ///
    /// # Errors
    /// If there is neither, a shard is missing, or a file is damaged.
    pub fn open(dir: &Path) -> Result<Self, WeightsError> {
        let mut checkpoint = Self::empty(dir);
        for path in weight_files(dir)? {
            checkpoint.add_file(&path, |name| Some(canonical(name)))?;
        }
        Ok(checkpoint)
    }

    /// A checkpoint without tensors; `dir` is named in errors.
    pub(crate) fn empty(dir: &Path) -> Self {
        Self {
            dir: dir.into(),
            files: Vec::new(),
            entries: BTreeMap::new(),
            deltas: BTreeMap::new(),
        }
    }

    /// Adds a file's tensors under the names `rename` gives them, in place of those of the same name;
    /// without a name a tensor is left out.
    pub(crate) fn add_file(
        &mut self,
        path: &Path,
        rename: impl Fn(&str) -> Option<String>,
    ) -> Result<(), WeightsError> {
        self.add(MappedFile::open(path)?, rename);
        Ok(())
    }

    pub(crate) fn add(&mut self, file: MappedFile, rename: impl Fn(&str) -> Option<String>) {
        for name in file.tensors.keys() {
            if let Some(ours) = rename(name) {
                let entry = Entry {
                    file: self.files.len(),
                    name: name.clone(),
                };
                self.entries.insert(ours, entry);
            }
        }
        self.files.push(file);
    }

    /// The folder it was opened from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Our names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// A tensor by our name, as it lies in its file.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let entry = self.entries.get(name)?;
        let file = &self.files[entry.file];
        let span = file.tensors.get(&entry.name)?;
        Some(TensorView {
            path: &file.path,
            name: &entry.name,
            shape: &span.shape,
            format: span.format,
            map: &file.map,
            range: &span.bytes,
        })
    }

    /// Whether a tensor's numbers are those of its file, with no change added to them.
    pub(crate) fn is_plain(&self, name: &str) -> bool {
        !self.deltas.contains_key(name)
    }

    /// A tensor by our name in float32: dequantised where it is stored as int8 rows, and with its
    /// low-rank change added.
    ///
    /// # Errors
    /// If it is stored in a format that is not read.
    pub fn read_f32(&self, name: &str) -> Result<Option<Vec<f32>>, WeightsError> {
        let Some(view) = self.get(name) else {
            return Ok(None);
        };
        let mut values = match view.format {
            Format::I8 => self.read_int8(name, view)?,
            _ => view.to_f32()?,
        };
        if let Some(delta) = self.deltas.get(name) {
            delta.add_to(&mut values, view)?;
        }
        Ok(Some(values))
    }

    fn read_int8(&self, name: &str, view: TensorView<'_>) -> Result<Vec<f32>, WeightsError> {
        let scales = self
            .get(&format!("{name}_scale"))
            .ok_or_else(|| view.format_error())?;
        let bytes = view.bytes();
        // Leading axes of one do not count: a row is the last axis.
        let width = view.shape.last().copied().unwrap_or(1).max(1);
        let rows = bytes.len() / width;
        let scales = scales.to_f32()?;
        if scales.len() != rows {
            return Err(WeightsError::Shape {
                path: view.path.into(),
                name: format!("{}_scale", view.name),
                found: vec![scales.len()],
                expected: vec![rows],
            });
        }
        let row = |(row, scale): (&[u8], f32)| -> Vec<f32> {
            row.iter()
                .map(|value| f32::from(*value as i8) * scale)
                .collect()
        };
        Ok(bytes
            .chunks_exact(width)
            .zip(scales)
            .flat_map(row)
            .collect())
    }
}

impl TensorView<'_> {
    /// The bytes it is stored in.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }

    /// Its bytes where they lie in the file's map, which lives as long as they do.
    pub fn shared(&self) -> Bytes {
        self.map.slice(self.range.clone())
    }

    /// Whether it has this shape, axes of one aside: some files keep leading ones (`cls_token` is
    /// `[1, 1, hidden]`).
    pub(crate) fn check_shape(&self, expected: &[usize]) -> Result<(), WeightsError> {
        let squeezed = |shape: &[usize]| -> Vec<usize> {
            shape.iter().copied().filter(|size| *size != 1).collect()
        };
        if squeezed(self.shape) == squeezed(expected) {
            return Ok(());
        }
        Err(WeightsError::Shape {
            path: self.path.into(),
            name: self.name.into(),
            found: self.shape.into(),
            expected: expected.into(),
        })
    }

    pub(crate) fn to_f32(self) -> Result<Vec<f32>, WeightsError> {
        let bytes = self.bytes();
        let two = |pair: &[u8]| [pair[0], pair[1]];
        Ok(match self.format {
            Format::F32 => bytes
                .chunks_exact(4)
                .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
                .collect(),
            Format::F16 => bytes
                .chunks_exact(2)
                .map(|pair| f16::from_le_bytes(two(pair)).to_f32())
                .collect(),
            Format::BF16 => bytes
                .chunks_exact(2)
                .map(|pair| bf16::from_le_bytes(two(pair)).to_f32())
                .collect(),
            Format::Ggml(kind, rows) => {
                let tensor = GgufTensor {
                    name: self.name,
                    shape: self.shape,
                    kind,
                    bytes,
                    rows,
                };
                return tensor.to_f32().map_err(WeightsError::gguf(self.path));
            }
            Format::I8 | Format::Other(_) => return Err(self.format_error()),
        })
    }

    fn format_error(&self) -> WeightsError {
        let found = match self.format {
            Format::Other(word) => word.into(),
            format => format!("{format:?}"),
        };
        WeightsError::Dtype {
            path: self.path.into(),
            name: self.name.into(),
            found,
        }
    }
}

/// The weight files of a folder.
pub(crate) fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    for name in ["model.safetensors", "pytorch_model.bin"] {
        let single = dir.join(name);
        if single.is_file() {
            return Ok(vec![single]);
        }
        let index = dir.join(format!("{name}.index.json"));
        if index.is_file() {
            return shards(dir, index);
        }
    }
    Err(WeightsError::NoCheckpoint { path: dir.into() })
}

fn shards(dir: &Path, index: PathBuf) -> Result<Vec<PathBuf>, WeightsError> {
    let text = std::fs::read_to_string(&index).map_err(WeightsError::io(&index))?;
    let json: Value = serde_json::from_str(&text).map_err(|source| WeightsError::Json {
        path: index.clone(),
        source,
    })?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| WeightsError::Config {
        path: index.clone(),
        field: "weight_map".into(),
        found: "missing".into(),
        expected: "an object of tensor and file names".into(),
    })?;
    let shards: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    let mut paths = Vec::new();
    for shard in shards {
        // A shard stands beside its index; a name with folders in it is not followed.
        let plain = Path::new(shard)
            .file_name()
            .is_some_and(|name| name == shard);
        let path = dir.join(shard);
        if !plain || !path.is_file() {
            return Err(WeightsError::MissingShard {
                index,
                shard: shard.into(),
            });
        }
        paths.push(path);
    }
    Ok(paths)
}
