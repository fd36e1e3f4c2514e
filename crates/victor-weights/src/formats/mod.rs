//! Weight files: where each tensor lies in the bytes of a file.
//!
//! Every format is read into the same table of [`Span`]s over a memory map, so that nothing above
//! knows which one it was. Nothing here trusts a file: a span lies in the bytes it was read from.

pub mod pytorch;
pub mod safetensors;

use crate::WeightsError;
use crate::gguf::{self, GgufFile, GgufTensor, RowOrder, TensorKind};
use bytes::Bytes;
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A tensor's place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its shape.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub format: Format,
    /// Which bytes of the file it is.
    pub bytes: Range<usize>,
}

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a 32-bit float.
    BF16,
    /// 8-bit integers with one float scale a row, in the tensor `NAME_scale`.
    I8,
    /// One of GGUF's, and the order of its rows.
    Ggml(TensorKind, RowOrder),
    /// Anything else, by the file's word for it; found, but not read.
    Other(&'static str),
}

/// A file of tensors, memory-mapped.
#[derive(Clone, Debug)]
pub(crate) struct MappedFile {
    pub(crate) path: PathBuf,
    /// The whole file, mapped for as long as a tensor uses it.
    pub(crate) map: Bytes,
    /// By the names the file gives them.
    pub(crate) tensors: BTreeMap<String, Span>,
}

impl MappedFile {
    /// Maps a file of the format its name ends in: `.safetensors`, or PyTorch's for any other.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub(crate) fn open(path: &Path) -> Result<Self, WeightsError> {
        let map = map(path)?;
        let tensors = if path.extension().is_some_and(|end| end == "safetensors") {
            safetensors::spans(&map).map_err(|source| WeightsError::Header {
                path: path.into(),
                source,
            })?
        } else {
            pytorch::spans(&map).map_err(|source| WeightsError::Pytorch {
                path: path.into(),
                source,
            })?
        };
        Ok(Self {
            path: path.into(),
            map: Bytes::from_owner(map),
            tensors,
        })
    }
}

impl MappedFile {
    /// The tensors of a GGUF file, by our names.
    ///
    /// # Errors
    /// If one has a format that is not read.
    pub(crate) fn of_gguf(file: &GgufFile) -> Result<Self, WeightsError> {
        let span = |tensor: &GgufTensor| Span {
            shape: tensor.shape.into(),
            format: match (tensor.kind, tensor.rows) {
                (TensorKind::F32, RowOrder::Ours) => Format::F32,
                (TensorKind::F16, RowOrder::Ours) => Format::F16,
                (TensorKind::Bf16, RowOrder::Ours) => Format::BF16,
                (kind, rows) => Format::Ggml(kind, rows),
            },
            bytes: file.range(tensor),
        };
        let tensors = gguf::tensors(file)?;
        Ok(Self {
            path: file.path().into(),
            tensors: tensors
                .iter()
                .map(|(name, tensor)| (name.clone(), span(tensor)))
                .collect(),
            map: file.bytes(),
        })
    }
}

/// Maps a file for reading.
#[allow(
    unsafe_code,
    reason = "a memory map is the point: tensors are read one by one"
)]
pub(crate) fn map(path: &Path) -> Result<Mmap, WeightsError> {
    let file = File::open(path).map_err(WeightsError::io(path))?;
    // SAFETY: the map is read-only; a file changed by another process while it is mapped yields
    // wrong numbers, or ends the process if it was cut, as with every engine that maps weights;
    // bytes are only ever read as integers and floats.
    unsafe { Mmap::map(&file) }.map_err(WeightsError::io(path))
}
