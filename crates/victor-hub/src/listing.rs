//! The files of a commit, as the Hub lists them and as the cache remembers them.
//!
//! The memory is `trees/COMMIT.json` in the format of `huggingface_hub` 1.x. It tells a whole snapshot
//! from one whose download was cut, without the network.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::cache::{RepoCache, write_beside};
use crate::file_name::is_plain;
use crate::id::is_commit;
use crate::{AnswerProblem, HubError, RepoId};

/// The format of `trees/*.json`.
const TREE_VERSION: u32 = 1;

/// From this number of files on the Hub may leave some out of its answer.
const MANY: usize = 50_000;

/// The Hub's answer about a revision.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) commit: String,
    pub(crate) names: BTreeSet<String>,
    tree: Option<Tree>,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Tree {
    format_version: u32,
    files: BTreeMap<String, TreeEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TreeEntry {
    size: u64,
    blob_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xet_hash: Option<String>,
}

impl Listing {
    /// Reads the answer of `/api/models/REPO/revision/REVISION?blobs=true`. One name that leads out of
    /// the snapshot condemns the whole repository.
    pub(crate) fn parse(json: &[u8], repo: &RepoId, url: &str) -> Result<Self, HubError> {
        let unexpected = |problem| HubError::UnexpectedAnswer {
            url: url.to_owned(),
            problem,
        };
        let answer: Answer = serde_json::from_slice(json)
            .map_err(|source| unexpected(AnswerProblem::Listing(source)))?;
        if !is_commit(&answer.sha) {
            return Err(unexpected(AnswerProblem::Commit));
        }
        if let Some(unsafe_one) = answer.siblings.iter().find(|one| !is_plain(&one.rfilename)) {
            return Err(HubError::UnsafeFileName {
                repo: repo.clone(),
                file: unsafe_one.rfilename.clone(),
            });
        }
        Ok(Self {
            commit: answer.sha,
            names: answer
                .siblings
                .iter()
                .map(|one| one.rfilename.clone())
                .collect(),
            tree: tree(answer.siblings),
        })
    }

    /// Remembers the files of this commit, if the Hub told all that the format needs.
    pub(crate) fn remember(&self, cache: &RepoCache) -> Result<(), HubError> {
        let path = cache.tree(&self.commit);
        match &self.tree {
            Some(tree) if !path.exists() => match serde_json::to_vec_pretty(tree) {
                Ok(json) => write_beside(&path, &json),
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// The names of a commit's files, if they are remembered.
pub(crate) fn remembered(cache: &RepoCache, commit: &str) -> Option<BTreeSet<String>> {
    let json = std::fs::read(cache.tree(commit)).ok()?;
    let tree: Tree = serde_json::from_slice(&json).ok()?;
    let names: BTreeSet<String> = tree.files.into_keys().collect();
    (tree.format_version == TREE_VERSION && names.iter().all(|name| is_plain(name)))
        .then_some(names)
}

fn tree(siblings: Vec<Sibling>) -> Option<Tree> {
    if siblings.len() >= MANY {
        return None;
    }
    let entry = |one: Sibling| {
        let (lfs_sha256, lfs_size) = one.lfs.map(|lfs| (lfs.sha256, lfs.size)).unzip();
        let entry = TreeEntry {
            size: one.size?,
            blob_id: one.blob_id?,
            lfs_sha256,
            lfs_size,
            xet_hash: None,
        };
        Some((one.rfilename, entry))
    };
    Some(Tree {
        format_version: TREE_VERSION,
        files: siblings.into_iter().map(entry).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn parse(json: &str) -> Result<Listing, HubError> {
        Listing::parse(json.as_bytes(), &RepoId::parse("a/b").unwrap(), "http://x")
    }

    #[test]
    fn what_the_hub_lists_is_remembered() {
        let json = format!(
            r#"{{"sha": "{COMMIT}", "private": false, "siblings": [
                {{"rfilename": "config.json", "size": 5, "blobId": "ab"}},
                {{"rfilename": "model.safetensors", "size": 7, "blobId": "cd",
                  "lfs": {{"sha256": "ef", "size": 7, "pointerSize": 130}}}}]}}"#
        );
        let listing = parse(&json).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(folder.path(), &RepoId::parse("a/b").unwrap());
        assert_eq!(remembered(&cache, COMMIT), None);
        listing.remember(&cache).unwrap();
        assert_eq!(remembered(&cache, COMMIT), Some(listing.names));
        let written = std::fs::read_to_string(cache.tree(COMMIT)).unwrap();
        let written: serde_json::Value = serde_json::from_str(&written).unwrap();
        let expected = serde_json::json!({"format_version": 1, "files": {
            "config.json": {"size": 5, "blob_id": "ab"},
            "model.safetensors": {"size": 7, "blob_id": "cd", "lfs_sha256": "ef", "lfs_size": 7},
        }});
        assert_eq!(written, expected);
    }

    #[test]
    fn a_listing_without_sizes_serves_and_is_not_remembered() {
        let json =
            format!(r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "config.json"}}]}}"#);
        let listing = parse(&json).unwrap();
        assert!(listing.names.contains("config.json"));
        assert!(listing.tree.is_none());
    }

    #[test]
    fn hostile_answers_are_refused() {
        for name in ["../../x", "/etc/passwd", "a/../../b", "a\\\\b"] {
            let json = format!(
                r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "config.json"}}, {{"rfilename": "{name}"}}]}}"#
            );
            assert!(
                matches!(parse(&json), Err(HubError::UnsafeFileName { .. })),
                "{name}"
            );
        }
        for json in ["<html>", "{}", r#"{"sha": "../x", "siblings": []}"#] {
            assert!(
                matches!(parse(json), Err(HubError::UnexpectedAnswer { .. })),
                "{json}"
            );
        }
    }
}
