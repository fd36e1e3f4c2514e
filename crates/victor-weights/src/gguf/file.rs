//! A mapped GGUF file.

use super::header::Header;
use super::{GgufError, GgufTensor, Metadata, RowOrder};
use crate::WeightsError;
use bytes::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A GGUF file whose head has been read and checked; tensors are read as they are asked for.
#[derive(Clone, Debug)]
pub struct GgufFile {
    path: PathBuf,
    bytes: Bytes,
    header: Arc<Header>,
}

impl GgufFile {
    /// Maps a file and checks its head.
    ///
    /// # Errors
    /// If it cannot be read, is no GGUF file of version 2 or 3, or says something about itself that is
    /// not so: counts, sizes and places of tensors are held against its size.
    #[allow(
        unsafe_code,
        reason = "a memory map is the point: tensors are read one by one"
    )]
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let file = File::open(path).map_err(WeightsError::io(path))?;
        // SAFETY: the map is read-only; a file changed by another process while it is mapped yields
        // wrong numbers, or ends the process if it was cut, as with every engine that maps weights;
        // bytes are only ever read as integers, floats and checked UTF-8.
        let map = unsafe { Mmap::map(&file) }.map_err(WeightsError::io(path))?;
        Self::check(path, Bytes::from_owner(map))
    }

    /// Checks the head of a file that is in memory; `path` is named in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(path: &Path, bytes: impl Into<Bytes>) -> Result<Self, WeightsError> {
        Self::check(path, bytes.into())
    }

    fn check(path: &Path, bytes: Bytes) -> Result<Self, WeightsError> {
        let header = Header::parse(&bytes).map_err(WeightsError::gguf(path))?;
        Ok(Self {
            path: path.into(),
            bytes,
            header: Arc::new(header),
        })
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Which bytes of the file a tensor of it is.
    pub(crate) fn range(&self, tensor: &GgufTensor<'_>) -> Range<usize> {
        let start = tensor.bytes.as_ptr().addr() - self.bytes.as_ptr().addr();
        start..start + tensor.bytes.len()
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// The metadata.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata {
            bytes: &self.bytes,
            slots: &self.header.slots,
        }
    }

    /// What `general.architecture` says: `llama`, `qwen2`, `clip`, …
    ///
    /// # Errors
    /// If it is missing or not a string.
    pub fn architecture(&self) -> Result<&str, GgufError> {
        const KEY: &str = "general.architecture";
        let metadata = self.metadata();
        let found = metadata.text(KEY)?;
        found.ok_or_else(|| metadata.wrong(KEY, "the name of an architecture"))
    }

    /// The names of all tensors as the file has them, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    /// A tensor by its name in the file, its rows taken as they stand.
    pub fn tensor(&self, name: &str) -> Option<GgufTensor<'_>> {
        let (name, info) = self.header.tensors.get_key_value(name)?;
        Some(GgufTensor {
            name,
            shape: &info.shape,
            kind: info.kind,
            bytes: &self.bytes[info.range.clone()],
            rows: RowOrder::Ours,
        })
    }

    /// A tensor that has to be there.
    pub(crate) fn required(&self, name: &str) -> Result<GgufTensor<'_>, GgufError> {
        self.tensor(name)
            .ok_or_else(|| GgufError::NoTensor { name: name.into() })
    }
}
