//! A frozen tower's features on disk: one packed file of f16 records and a journal of those done.
//!
//! `features.bin` holds records of one size; `journal.jsonl` names the picture of each, and is
//! written after the record's bytes are safe. A picture whose size or time changed is encoded anew.

use crate::TrainError;
use crate::error::file_error;
use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Features of pictures, `[visual_tokens, vision_hidden]` each.
#[derive(Debug)]
pub struct FeatureCache {
    directory: PathBuf,
    /// Numbers in a record.
    length: usize,
    records: File,
    journal: File,
    slots: HashMap<PathBuf, Entry>,
    next_slot: u64,
}

/// Which picture a record is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    path: PathBuf,
    slot: u64,
    stamp: Stamp,
}

/// What tells a changed file from an unchanged one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    /// Since 1970.
    nanoseconds: u128,
}

impl FeatureCache {
    /// Opens or begins the cache under `root` of the tower and processor that `fingerprint` stands
    /// for, with `length` numbers a picture.
    ///
    /// # Errors
    /// If its files cannot be read or written.
    pub fn open(root: &Path, fingerprint: u64, length: usize) -> Result<Self, TrainError> {
        let directory = root.join(format!("{fingerprint:016x}-{length}"));
        fs::create_dir_all(&directory).map_err(file_error(&directory, "make the feature cache"))?;
        let open = |name: &str| {
            let path = directory.join(name);
            let options = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path);
            options.map_err(file_error(&path, "open the feature cache"))
        };
        let (records, mut journal) = (open("features.bin")?, open("journal.jsonl")?);
        let mut text = String::new();
        journal.read_to_string(&mut text).map_err(file_error(
            &directory,
            "read the journal of the feature cache",
        ))?;

        // What was being written when a run was killed ends the journal without a line break.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut slots = HashMap::new();
        let mut next_slot = 0;
        for line in text[..whole].lines() {
            let json = |source| TrainError::Json {
                path: directory.join("journal.jsonl"),
                source,
            };
            let entry: Entry = serde_json::from_str(line).map_err(json)?;
            next_slot = next_slot.max(entry.slot + 1);
            slots.insert(entry.path.clone(), entry);
        }
        let cut = journal
            .set_len(whole as u64)
            .and_then(|()| journal.seek(SeekFrom::End(0)));
        cut.map_err(file_error(
            &directory,
            "write the journal of the feature cache",
        ))?;
        Ok(Self {
            directory,
            length,
            records,
            journal,
            slots,
            next_slot,
        })
    }

    /// Whether the cache holds this picture as it is now.
    ///
    /// # Errors
    /// If the picture is not there.
    pub fn has(&self, picture: &Path) -> Result<bool, TrainError> {
        let stamp = stamp(picture)?;
        Ok(self
            .slots
            .get(picture)
            .is_some_and(|entry| entry.stamp == stamp))
    }

    /// Stores the features of some pictures, `length` numbers each, and marks them done.
    ///
    /// # Errors
    /// If the files cannot be written, or a picture is gone.
    ///
    /// # Panics
    /// If there are not `length` numbers for each picture.
    pub fn insert(&mut self, pictures: &[&Path], features: &[f32]) -> Result<(), TrainError> {
        assert_eq!(
            features.len(),
            pictures.len() * self.length,
            "numbers of features"
        );
        let mut lines = Vec::new();
        for (picture, features) in pictures.iter().zip(features.chunks_exact(self.length)) {
            let slot = match self.slots.get(*picture) {
                // Until the journal has the new stamp, the old one keeps the record from being used.
                Some(entry) => entry.slot,
                None => {
                    self.next_slot += 1;
                    self.next_slot - 1
                }
            };
            let mut halves = vec![f16::ZERO; self.length];
            halves.convert_from_f32_slice(features);
            let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
            let write = self
                .records
                .seek(SeekFrom::Start(slot * self.record_bytes()))
                .and_then(|_| self.records.write_all(&bytes));
            write.map_err(file_error(&self.directory, "write features"))?;
            let entry = Entry {
                path: picture.to_path_buf(),
                slot,
                stamp: stamp(picture)?,
            };
            let json = |source| TrainError::Json {
                path: self.directory.clone(),
                source,
            };
            serde_json::to_writer(&mut lines, &entry).map_err(json)?;
            lines.push(b'\n');
            self.slots.insert(entry.path.clone(), entry);
        }
        let written = self
            .records
            .sync_data()
            .and_then(|()| self.journal.write_all(&lines));
        written.map_err(file_error(&self.directory, "write features"))
    }

    /// Appends a picture's features to `into`.
    ///
    /// # Errors
    /// If the picture is not in the cache or cannot be read.
    pub fn read(&mut self, picture: &Path, into: &mut Vec<f32>) -> Result<(), TrainError> {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let fail = |source| file_error(picture, "read the picture's features")(source);
        let slot = self.slots.get(picture).ok_or_else(|| fail(missing()))?.slot;
        let mut bytes = vec![0; self.record_bytes() as usize];
        self.records
            .seek(SeekFrom::Start(slot * self.record_bytes()))
            .and_then(|_| self.records.read_exact(&mut bytes))
            .map_err(fail)?;
        let halves: Vec<f16> = bytes
            .chunks_exact(2)
            .map(|pair| f16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        let start = into.len();
        into.resize(start + self.length, 0.0);
        halves.convert_to_f32_slice(&mut into[start..]);
        Ok(())
    }

    /// How many pictures it holds.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn record_bytes(&self) -> u64 {
        self.length as u64 * 2
    }
}

fn stamp(picture: &Path) -> Result<Stamp, TrainError> {
    let read = || {
        let metadata = fs::metadata(picture)?;
        let modified = metadata.modified()?;
        Ok(Stamp {
            bytes: metadata.len(),
            nanoseconds: modified
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_nanos()),
        })
    };
    read().map_err(file_error(picture, "look at the picture"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().expect("a directory");
        let paths: Vec<PathBuf> = (0..3)
            .map(|i| dir.path().join(format!("{i}.png")))
            .collect();
        for path in &paths {
            fs::write(path, b"pixels").expect("written");
        }
        (dir, paths)
    }

    #[test]
    fn a_cache_that_was_cut_short_goes_on_and_forgets_nothing() {
        let (dir, paths) = fixture();
        let mut cache = FeatureCache::open(dir.path(), 7, 2).expect("opened");
        cache
            .insert(&[&paths[0], &paths[1]], &[1.0, 2.0, 3.0, 4.0])
            .expect("stored");
        let journal = cache.directory.join("journal.jsonl");
        drop(cache);
        let mut text = fs::read_to_string(&journal).expect("a journal");
        text.truncate(text.len() - 9);
        fs::write(&journal, text).expect("written");

        let mut cache = FeatureCache::open(dir.path(), 7, 2).expect("opened");
        assert!(cache.has(&paths[0]).expect("there") && !cache.has(&paths[1]).expect("there"));
        cache
            .insert(&[&paths[1], &paths[2]], &[5.0, 6.0, 7.0, 8.0])
            .expect("stored");
        drop(cache);
        let mut cache = FeatureCache::open(dir.path(), 7, 2).expect("opened");
        let mut features = Vec::new();
        for path in &paths {
            cache.read(path, &mut features).expect("held");
        }
        assert_eq!(features, [1.0, 2.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(cache.len(), 3);
    }

    #[test]
    fn a_changed_picture_is_encoded_anew_in_its_place() {
        let (dir, paths) = fixture();
        let mut cache = FeatureCache::open(dir.path(), 7, 1).expect("opened");
        cache.insert(&[&paths[0]], &[1.0]).expect("stored");
        fs::write(&paths[0], b"other pixels").expect("written");
        assert!(!cache.has(&paths[0]).expect("there"));
        cache.insert(&[&paths[0]], &[2.0]).expect("stored");
        assert!(cache.has(&paths[0]).expect("there"));
        assert_eq!(cache.next_slot, 1);
    }

    #[test]
    fn another_tower_has_another_cache() {
        let (dir, paths) = fixture();
        let mut cache = FeatureCache::open(dir.path(), 7, 1).expect("opened");
        cache.insert(&[&paths[0]], &[1.0]).expect("stored");
        let other = FeatureCache::open(dir.path(), 8, 1).expect("opened");
        assert!(other.is_empty());
    }
}
