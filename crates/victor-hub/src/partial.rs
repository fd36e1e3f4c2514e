//! A blob on its way: bytes are appended, and what is there survives the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::HubError;
use crate::cache::create_parent;
use crate::client::FileInfo;
use crate::file_name::is_sha256;

/// An `.incomplete` file, its length, and the hash of its bytes so far.
pub(crate) struct Partial<'a> {
    name: &'a str,
    info: &'a FileInfo,
    path: PathBuf,
    file: File,
    length: u64,
    /// None where the ETag is no SHA-256; then only the size is checked.
    hash: Option<Sha256>,
    pieced: bool,
}

impl<'a> Partial<'a> {
    /// Opens what an earlier run left, or begins.
    pub(crate) fn open(path: PathBuf, name: &'a str, info: &'a FileInfo) -> Result<Self, HubError> {
        create_parent(&path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let opened = options.open(&path).and_then(|mut file| {
            let length = file.metadata()?.len();
            let mut hash = is_sha256(&info.etag).then(Sha256::new);
            if let Some(hash) = hash.as_mut().filter(|_| length <= info.size) {
                hash_all(hash, &mut (&file).take(length))?;
            }
            file.seek(SeekFrom::Start(length))?;
            Ok((file, length, hash))
        });
        let (file, length, hash) = opened.map_err(|source| HubError::Write {
            path: path.clone(),
            source,
        })?;
        let mut partial = Self {
            name,
            info,
            path,
            file,
            length,
            hash,
            pieced: length > 0,
        };
        if length > info.size {
            partial.restart()?;
        }
        Ok(partial)
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Whether the bytes came in more than one piece.
    pub(crate) fn is_pieced(&self) -> bool {
        self.pieced
    }

    /// Notes that bytes of another answer follow.
    pub(crate) fn set_pieced(&mut self) {
        self.pieced = true;
    }

    /// Drops all bytes.
    pub(crate) fn restart(&mut self) -> Result<(), HubError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|source| self.write_error(source))?;
        self.length = 0;
        self.pieced = false;
        self.hash = self.hash.as_ref().map(|_| Sha256::new());
        Ok(())
    }

    /// Adds the next bytes.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        let length = self.length + bytes.len() as u64;
        if length > self.info.size {
            self.remove();
            return Err(HubError::WrongSize {
                file: self.name.to_owned(),
                expected: self.info.size,
                found: length,
            });
        }
        self.file
            .write_all(bytes)
            .map_err(|source| self.write_error(source))?;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        self.length = length;
        Ok(())
    }

    /// Compares the whole file's hash with the one the Hub told.
    pub(crate) fn verify(&self) -> Result<(), HubError> {
        let Some(hash) = &self.hash else {
            return Ok(());
        };
        let found: String = hash
            .clone()
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        if found == self.info.etag {
            return Ok(());
        }
        Err(HubError::WrongHash {
            file: self.name.to_owned(),
            expected: self.info.etag.clone(),
            found,
        })
    }

    /// Makes the whole file the blob.
    pub(crate) fn finish(self, blob: &Path) -> Result<(), HubError> {
        self.file
            .sync_data()
            .map_err(|source| self.write_error(source))?;
        fs::rename(&self.path, blob).map_err(|source| HubError::Write {
            path: blob.to_owned(),
            source,
        })
    }

    /// Removes what cannot become the file. What cannot be removed is found out by the next run.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }

    fn write_error(&self, source: io::Error) -> HubError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HubError::DiskFull {
                file: self.name.to_owned(),
                path: self.path.clone(),
                kept: self.length,
                size: self.info.size,
                source,
            },
            _ => HubError::Write {
                path: self.path.clone(),
                source,
            },
        }
    }
}

fn hash_all(hash: &mut Sha256, from: &mut impl Read) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 17];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of `hello world`.
    const HASH: &str = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";

    fn info(size: u64) -> FileInfo {
        FileInfo {
            etag: HASH.to_owned(),
            size,
        }
    }

    #[test]
    fn two_runs_make_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blobs/x.incomplete");
        let info = info(11);
        let mut first = Partial::open(path.clone(), "x", &info).unwrap();
        first.append(b"hello ").unwrap();
        drop(first);
        let mut second = Partial::open(path, "x", &info).unwrap();
        assert_eq!((second.length(), second.is_pieced()), (6, true));
        second.append(b"world").unwrap();
        second.verify().unwrap();
        let blob = folder.path().join("blobs/x");
        second.finish(&blob).unwrap();
        assert_eq!(fs::read(blob).unwrap(), b"hello world");
    }

    #[test]
    fn damage_is_found_and_a_restart_heals() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.incomplete");
        fs::write(&path, b"Hello ").unwrap();
        let info = info(11);
        let mut partial = Partial::open(path.clone(), "x", &info).unwrap();
        partial.append(b"world").unwrap();
        assert!(matches!(partial.verify(), Err(HubError::WrongHash { .. })));
        partial.restart().unwrap();
        partial.append(b"hello world").unwrap();
        partial.verify().unwrap();
        assert!(matches!(
            partial.append(b"!"),
            Err(HubError::WrongSize { .. })
        ));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_too_long_is_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.incomplete");
        fs::write(&path, [0; 12]).unwrap();
        let info = info(11);
        assert_eq!(Partial::open(path, "x", &info).unwrap().length(), 0);
    }
}
