//! The containers PyTorch has used: a zip archive, and before 1.6 a stream of pickles.

use super::PytorchError;
use super::pickle::{self, Value};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;
use zip::{CompressionMethod, ZipArchive};

/// A state dict's pickle, and where its storages lie.
pub(super) struct Archive {
    pub(super) pickle: pickle::Heap,
    pub(super) root: pickle::Id,
    /// Bytes of the file, by the storages' keys.
    pub(super) storages: BTreeMap<String, Range<usize>>,
}

/// What a stream of pickles begins with, and the number its first pickle holds.
const STREAM: [u8; 15] = [
    0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e,
];

pub(super) fn read(bytes: &[u8]) -> Result<Archive, PytorchError> {
    if bytes.starts_with(b"PK") {
        zipped(bytes)
    } else if bytes.starts_with(&STREAM) {
        stream(bytes)
    } else {
        Err(PytorchError::NotPytorch)
    }
}

fn zipped(bytes: &[u8]) -> Result<Archive, PytorchError> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(PytorchError::Archive)?;
    let mut storages = BTreeMap::new();
    let mut program = None;
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index).map_err(PytorchError::Archive)?;
        let name = entry.name().map_err(PytorchError::Archive)?.into_owned();
        let start = entry.data_start().ok_or(PytorchError::NotPytorch)?;
        let range = range(start, entry.size(), bytes.len());
        let Some((_, file)) = name.split_once('/') else {
            continue;
        };
        let wanted = file == "data.pkl" || file == "byteorder" || file.starts_with("data/");
        if !wanted {
            continue;
        }
        if entry.compression() != CompressionMethod::Stored {
            return Err(PytorchError::Compressed { entry: name });
        }
        let range = range.ok_or_else(|| PytorchError::OutOfFile {
            tensor: name.clone(),
        })?;
        match file.strip_prefix("data/") {
            Some(key) => {
                storages.insert(key.into(), range);
            }
            None if file == "data.pkl" => program = Some(range),
            None if bytes[range.clone()].starts_with(b"big") => {
                return Err(PytorchError::BigEndian);
            }
            None => {}
        }
    }
    let program = program.ok_or(PytorchError::NoPickle)?;
    let (pickle, root, _) = pickle::read(&bytes[program])?;
    Ok(Archive {
        pickle,
        root,
        storages,
    })
}

/// Magic number, protocol and system as pickles, the state dict, the keys of its storages, then each
/// storage: its length in numbers and the numbers.
fn stream(bytes: &[u8]) -> Result<Archive, PytorchError> {
    let mut at = STREAM.len();
    let mut next = |bytes: &[u8]| {
        let (heap, root, length) = pickle::read(bytes.get(at..).unwrap_or_default())?;
        at += length;
        Ok::<_, PytorchError>((heap, root, at))
    };
    next(bytes)?;
    next(bytes)?;
    let (pickle, root, _) = next(bytes)?;
    let (keys, list, mut at) = next(bytes)?;
    let expected = "the list of storages";
    let Value::List(list) = keys.get(list) else {
        return Err(PytorchError::Value { at, expected });
    };
    let sizes: BTreeMap<&str, usize> = pickle
        .storages()
        .map(|storage| (storage.key, storage.number_size()))
        .collect();
    let mut storages = BTreeMap::new();
    for key in list {
        let key = keys.name(*key);
        let key = key.ok_or(PytorchError::Value { at, expected })?;
        let count = bytes
            .get(at..at + 8)
            .and_then(|eight| eight.try_into().ok());
        let count = u64::from_le_bytes(count.ok_or(PytorchError::CutOff { at })?);
        let size = sizes.get(key).copied().unwrap_or(1) as u64;
        let range = count
            .checked_mul(size)
            .and_then(|length| range(at as u64 + 8, length, bytes.len()))
            .ok_or(PytorchError::CutOff { at })?;
        at = range.end;
        storages.insert(key.into(), range);
    }
    Ok(Archive {
        pickle,
        root,
        storages,
    })
}

/// `length` bytes from `start`, if the file has them.
fn range(start: u64, length: u64, file: usize) -> Option<Range<usize>> {
    let end = start.checked_add(length)?;
    (end <= file as u64).then_some(start as usize..end as usize)
}
