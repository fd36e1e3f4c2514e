//! Where things lie in the cache; the layout of `huggingface_hub`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::is_commit;
use crate::{HubError, RepoId, Revision};

/// One repository's part of the cache.
#[derive(Debug)]
pub(crate) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(crate) fn new(cache: &Path, repo: &RepoId) -> Self {
        let name = format!("models--{}--{}", repo.owner(), repo.name());
        Self {
            folder: cache.join(&name),
            locks: cache.join(".locks").join(name),
        }
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    pub(crate) fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    pub(crate) fn tree(&self, commit: &str) -> PathBuf {
        self.folder.join("trees").join(format!("{commit}.json"))
    }

    /// Whether a snapshot has a file; a link to a blob that is gone does not count.
    pub(crate) fn has(&self, commit: &str, file: &str) -> bool {
        self.snapshot(commit).join(file).is_file()
    }

    /// The commit a revision stood at when it was last asked for.
    pub(crate) fn commit(&self, revision: &Revision) -> Option<String> {
        if revision.is_commit() {
            return Some(revision.to_string());
        }
        let text = fs::read_to_string(self.reference(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Notes the commit a revision stands at.
    pub(crate) fn set_commit(&self, revision: &Revision, commit: &str) -> Result<(), HubError> {
        if revision.is_commit() || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        write_beside(&self.reference(revision), commit.as_bytes())
    }

    fn reference(&self, revision: &Revision) -> PathBuf {
        self.folder.join("refs").join(revision.as_str())
    }

    /// The names of the files right in a snapshot's folder.
    pub(crate) fn names(&self, commit: &str) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(self.snapshot(commit)) else {
            return BTreeSet::new();
        };
        entries
            .flatten()
            .filter(|entry| entry.path().is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Puts a blob into a snapshot under its name.
    pub(crate) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let pointer = self.snapshot(commit).join(file);
        if pointer.is_file() {
            return Ok(());
        }
        create_parent(&pointer)?;
        // Out of the file's own folders, the commit's and `snapshots`.
        let up = "../".repeat(1 + file.split('/').count());
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        let beside = name_beside(&pointer);
        symlink(&target, &beside)
            // Where a file system has no symbolic links, a second name or a copy serves.
            .or_else(|_| fs::hard_link(self.blob(etag), &beside))
            .or_else(|_| fs::copy(self.blob(etag), &beside).map(|_| ()))
            .and_then(|()| fs::rename(&beside, &pointer))
            .map_err(|source| HubError::Write {
                path: pointer,
                source,
            })
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

/// Writes a file beside its place and renames it there, so that nobody reads half of it.
pub(crate) fn write_beside(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    create_parent(path)?;
    let beside = name_beside(path);
    fs::write(&beside, bytes)
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|source| HubError::Write {
            path: path.to_owned(),
            source,
        })
}

pub(crate) fn create_parent(path: &Path) -> Result<(), HubError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    fs::create_dir_all(parent).map_err(|source| HubError::Write {
        path: parent.to_owned(),
        source,
    })
}

/// A name in the same folder that no other thread or process uses.
fn name_beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{count}.tmp", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cache() -> (tempfile::TempDir, RepoCache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(folder.path(), &RepoId::parse("a/b").unwrap());
        (folder, cache)
    }

    #[test]
    fn links_are_relative_at_every_depth() {
        let (folder, cache) = cache();
        write_beside(&cache.blob("e1"), b"x").unwrap();
        for file in ["config.json", "sub/config.json", "a/b/c.json"] {
            cache.link(COMMIT, file, "e1").unwrap();
            cache.link(COMMIT, file, "e1").unwrap();
            assert!(cache.has(COMMIT, file), "{file}");
        }
        let moved = tempfile::tempdir().unwrap();
        let to = moved.path().join("cache");
        fs::rename(folder.path(), &to).unwrap();
        let cache = RepoCache::new(&to, &RepoId::parse("a/b").unwrap());
        assert!(cache.has(COMMIT, "a/b/c.json"));
        assert_eq!(
            cache.names(COMMIT).into_iter().collect::<Vec<_>>(),
            ["config.json"]
        );
        fs::create_dir(folder.path()).unwrap();
    }

    #[test]
    fn a_link_to_nothing_is_no_file() {
        let (_folder, cache) = cache();
        cache.link(COMMIT, "config.json", "e1").unwrap();
        assert!(!cache.has(COMMIT, "config.json"));
        write_beside(&cache.blob("e1"), b"x").unwrap();
        assert!(cache.has(COMMIT, "config.json"));
    }

    #[test]
    fn references_hold_commits_only() {
        let (_folder, cache) = cache();
        let pull = Revision::parse("refs/pr/1").unwrap();
        assert_eq!(cache.commit(&pull), None);
        cache.set_commit(&pull, COMMIT).unwrap();
        assert_eq!(cache.commit(&pull).as_deref(), Some(COMMIT));
        let main = Revision::default();
        write_beside(&cache.reference(&main), b"../../elsewhere").unwrap();
        assert_eq!(cache.commit(&main), None);
    }
}
