//! A folder of safetensors files, memory-mapped and looked up by our tensor names.

use crate::WeightsError;
use crate::names::canonical;
use bytes::Bytes;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensors};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The tensors of a checkpoint; nothing is read until it is asked for.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    files: Vec<MappedFile>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct MappedFile {
    path: PathBuf,
    /// The whole file, mapped for as long as a tensor uses it.
    map: Bytes,
    /// Where tensor bytes begin.
    data_start: usize,
    metadata: Metadata,
}

#[derive(Debug)]
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
    pub dtype: Dtype,
    bytes: &'a [u8],
    map: &'a Bytes,
}

impl Checkpoint {
    /// Maps `model.safetensors`, or the shards its index names.
    ///
    /// # Errors
    /// If there is neither, a shard is missing, or a header is damaged.
    pub fn open(dir: &Path) -> Result<Self, WeightsError> {
        let mut checkpoint = Self {
            dir: dir.into(),
            files: Vec::new(),
            entries: BTreeMap::new(),
        };
        for path in shard_paths(dir)? {
            checkpoint.add(&path)?;
        }
        Ok(checkpoint)
    }

    fn add(&mut self, path: &Path) -> Result<(), WeightsError> {
        let file = MappedFile::open(path)?;
        for name in file.metadata.tensors().keys() {
            let entry = Entry {
                file: self.files.len(),
                name: name.clone(),
            };
            self.entries.insert(canonical(name), entry);
        }
        self.files.push(file);
        Ok(())
    }

    /// The folder it was opened from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Our names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// A tensor by our name.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let entry = self.entries.get(name)?;
        let file = &self.files[entry.file];
        let info = file.metadata.info(&entry.name)?;
        let (start, end) = info.data_offsets;
        Some(TensorView {
            path: &file.path,
            name: &entry.name,
            shape: &info.shape,
            dtype: info.dtype,
            bytes: &file.map[file.data_start + start..file.data_start + end],
            map: &file.map,
        })
    }

    /// A tensor by our name in float32, and dequantised where it is stored as int8 rows.
    ///
    /// # Errors
    /// If it is stored in a format that is not read.
    pub fn read_f32(&self, name: &str) -> Result<Option<Vec<f32>>, WeightsError> {
        let Some(view) = self.get(name) else {
            return Ok(None);
        };
        if view.dtype != Dtype::I8 {
            return view.to_f32().map(Some);
        }
        let scales = self
            .get(&format!("{name}_scale"))
            .ok_or_else(|| view.dtype_error())?;
        // Leading axes of one do not count: a row is the last axis.
        let width = view.shape.last().copied().unwrap_or(1).max(1);
        let rows = view.bytes.len() / width;
        let scales = scales.to_f32()?;
        if scales.len() != rows {
            return Err(WeightsError::Shape {
                path: view.path.into(),
                name: format!("{}_scale", view.name),
                found: vec![scales.len()],
                expected: vec![rows],
            });
        }
        let values = view.bytes.chunks_exact(width).zip(scales);
        Ok(Some(
            values
                .flat_map(|(row, scale)| {
                    row.iter().map(move |value| f32::from(*value as i8) * scale)
                })
                .collect(),
        ))
    }
}

impl MappedFile {
    #[allow(
        unsafe_code,
        reason = "a memory map is the point: tensors are read one by one"
    )]
    fn open(path: &Path) -> Result<Self, WeightsError> {
        let file = File::open(path).map_err(WeightsError::io(path))?;
        // SAFETY: the map is read-only; a file changed by another process while it is mapped
        // yields wrong numbers, or ends the process if it was cut, as with every engine that maps
        // weights; bytes are only ever read as integers and floats.
        let map = unsafe { Mmap::map(&file) }.map_err(WeightsError::io(path))?;
        let (header, metadata) =
            SafeTensors::read_metadata(&map).map_err(|source| WeightsError::Header {
                path: path.into(),
                source,
            })?;
        Ok(Self {
            path: path.into(),
            map: Bytes::from_owner(map),
            data_start: header + size_of::<u64>(),
            metadata,
        })
    }
}

impl TensorView<'_> {
    /// Its bytes where they lie in the file's map, which lives as long as they do.
    pub fn shared(&self) -> Bytes {
        self.map.slice_ref(self.bytes)
    }

    fn to_f32(self) -> Result<Vec<f32>, WeightsError> {
        let bytes = self.bytes;
        let two = |pair: &[u8]| [pair[0], pair[1]];
        Ok(match self.dtype {
            Dtype::F32 => bytes
                .chunks_exact(4)
                .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
                .collect(),
            Dtype::F16 => bytes
                .chunks_exact(2)
                .map(|pair| f16::from_le_bytes(two(pair)).to_f32())
                .collect(),
            Dtype::BF16 => bytes
                .chunks_exact(2)
                .map(|pair| bf16::from_le_bytes(two(pair)).to_f32())
                .collect(),
            _ => return Err(self.dtype_error()),
        })
    }

    fn dtype_error(&self) -> WeightsError {
        WeightsError::Dtype {
            path: self.path.into(),
            name: self.name.into(),
            found: format!("{:?}", self.dtype),
        }
    }
}

fn shard_paths(dir: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let single = dir.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = dir.join("model.safetensors.index.json");
    if !index.is_file() {
        return Err(WeightsError::NoCheckpoint { path: dir.into() });
    }
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
