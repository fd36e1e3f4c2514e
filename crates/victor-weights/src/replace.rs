//! A folder written beside the place it will have, and renamed when it is whole.

use crate::WeightsError;
use crate::save::COMPANIONS;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder in the making.
#[derive(Debug)]
pub(crate) struct Replacement {
    partial: PathBuf,
    out: PathBuf,
}

impl Replacement {
    /// Begins what will stand at `out`.
    ///
    /// # Errors
    /// If something other than a checkpoint stands there, or the folder cannot be made.
    pub(crate) fn of(out: &Path) -> Result<Self, WeightsError> {
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        if name.is_empty() || !replaceable(out) {
            return Err(WeightsError::NotReplaceable { path: out.into() });
        }
        let partial = out.with_file_name(format!(".{name}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(WeightsError::io(&partial))?;
        }
        fs::create_dir_all(&partial).map_err(WeightsError::io(&partial))?;
        Ok(Self {
            partial,
            out: out.into(),
        })
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        &self.partial
    }

    /// Puts the folder in its place.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub(crate) fn finish(self) -> Result<(), WeightsError> {
        let (partial, out) = (&self.partial, &self.out);
        let old: PathBuf = partial.with_extension("old");
        if out.exists() {
            if old.exists() {
                fs::remove_dir_all(&old).map_err(WeightsError::io(&old))?;
            }
            fs::rename(out, &old).map_err(WeightsError::io(out))?;
        }
        fs::rename(partial, out).map_err(WeightsError::io(out))?;
        if old.exists() {
            fs::remove_dir_all(&old).map_err(WeightsError::io(&old))?;
        }
        Ok(())
    }
}

impl Drop for Replacement {
    /// What was not finished is of no use: a disk that is full should not stay so.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.partial);
    }
}

/// Whether nothing but a checkpoint of ours is lost when `out` is replaced.
fn replaceable(out: &Path) -> bool {
    if !out.exists() {
        return true;
    }
    let ours = |name: &str| {
        let weights = name.starts_with("model") && name.contains(".safetensors");
        name == "config.json" || weights || COMPANIONS.contains(&name)
    };
    fs::read_dir(out).is_ok_and(|mut entries| {
        entries.all(|entry| {
            entry.is_ok_and(|entry| {
                let file = entry.file_type().is_ok_and(|kind| kind.is_file());
                file && entry.file_name().to_str().is_some_and(ours)
            })
        })
    })
}
