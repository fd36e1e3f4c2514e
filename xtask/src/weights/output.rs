//! Files that are complete or absent: each is written beside its place and then renamed into it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// Writes a file, making its folder first.
pub(super) fn bytes(path: &Path, contents: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let unfinished = unfinished(path);
    fs::write(&unfinished, contents)
        .with_context(|| format!("writing {}", unfinished.display()))?;
    fs::rename(&unfinished, path).with_context(|| format!("naming {}", path.display()))
}

/// Writes a value as indented JSON.
pub(super) fn json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    bytes(path, text.as_bytes())
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unfinished_is_left() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("config.json");
        json(&path, &serde_json::json!({ "a": 1 }))?;
        assert_eq!(fs::read_to_string(&path)?, "{\n  \"a\": 1\n}\n");
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }
}
