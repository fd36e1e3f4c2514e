//! From a revision to a folder with the files that are wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::cache::RepoCache;
use crate::fetch::Fetch;
use crate::file_name::is_plain;
use crate::hub::{Hub, Snapshot};
use crate::listing::{Listing, remembered};
use crate::progress::Progress;
use crate::response::About;
use crate::retry::Patience;
use crate::wanted::{Wanted, Weights};
use crate::workers::Stop;
use crate::{HubError, RepoId, Revision};

/// What is missing where nothing is known of a commit's files.
const ALL: &str = "every file";

/// `*.index.json` of a sharded checkpoint, as far as it is needed here.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Hub {
    /// The folder of a revision with at least the wanted files in it; what is missing is fetched.
    ///
    /// A commit whose wanted files are all in the cache needs no network. For a branch or tag the Hub is
    /// asked where it stands; if it cannot tell and the cache has the wanted files of the commit where
    /// it last stood, that snapshot is returned with [`Snapshot::outdated`] set. Offline only the cache
    /// is looked at.
    ///
    /// A process that ends in the middle, however it ends, leaves what it has for the next call.
    ///
    /// # Errors
    /// Every [`HubError`] but those of parsing. Files that came whole before an error stay in the cache.
    pub fn snapshot(
        &self,
        repo: &RepoId,
        revision: &Revision,
        wanted: &Wanted,
        progress: &dyn Progress,
    ) -> Result<Snapshot, HubError> {
        let cache = RepoCache::new(&self.cache, repo);
        let cached = Cached::find(&cache, repo, revision, wanted)?;
        if self.offline {
            return cached.into_snapshot(&self.cache, repo, revision);
        }
        if revision.is_commit() && cached.missing.is_empty() {
            return cached.into_snapshot(&self.cache, repo, revision);
        }
        let about = About {
            repo,
            revision,
            file: None,
        };
        // With something to fall back on, nobody is kept waiting.
        let patience = Patience {
            attempts: if cached.missing.is_empty() {
                1
            } else {
                self.patience.attempts
            },
            ..self.patience
        };
        let ask = || self.client.listing(&about);
        let listed = patience.retry(&repo.to_string(), progress, &Stop::default(), ask);
        let listing = match listed {
            Ok(listing) => listing,
            Err(error) if error.leaves_cache_valid() && cached.missing.is_empty() => {
                let mut snapshot = cached.into_snapshot(&self.cache, repo, revision)?;
                snapshot.outdated = Some(error);
                return Ok(snapshot);
            }
            Err(error) => return Err(error),
        };
        self.fetch(&cache, &about, wanted, &listing, progress)
    }

    fn fetch(
        &self,
        cache: &RepoCache,
        about: &About<'_>,
        wanted: &Wanted,
        listing: &Listing,
        progress: &dyn Progress,
    ) -> Result<Snapshot, HubError> {
        let first = wanted.first(&listing.names);
        if let Some(file) = first.iter().find(|file| !listing.names.contains(*file)) {
            return Err(HubError::FileNotFound {
                repo: about.repo.clone(),
                revision: about.revision.clone(),
                file: file.clone(),
            });
        }
        let commit = Revision::check(&listing.commit).map_err(|problem| HubError::InvalidId {
            id: listing.commit.clone(),
            problem,
        })?;
        let weights = wanted.weights(&listing.names);
        if *wanted == Wanted::Model && weights == Weights::Files(Vec::new()) {
            let gguf = listing.names.iter().filter(|name| name.ends_with(".gguf"));
            return Err(HubError::NoWeights {
                repo: about.repo.clone(),
                gguf: gguf.cloned().collect(),
            });
        }
        let noted = listing
            .remember(cache)
            .and_then(|()| cache.set_commit(about.revision, &listing.commit));
        let fetch = Fetch {
            client: &self.client,
            cache,
            repo: about.repo,
            commit: &commit,
            connections: self.connections,
            patience: self.patience,
            progress,
        };
        let folder = cache.snapshot(&listing.commit);
        fetch.group(&first)?;
        let weights = weights.names(&folder, about.repo)?;
        if let Some(file) = weights.iter().find(|file| !listing.names.contains(*file)) {
            return Err(HubError::FileNotFound {
                repo: about.repo.clone(),
                revision: about.revision.clone(),
                file: file.clone(),
            });
        }
        let nothing_to_write = weights.iter().all(|file| cache.has(&listing.commit, file));
        fetch.group(&weights)?;
        // A cache that cannot be written serves as long as nothing is missing in it.
        noted.or_else(|error| if nothing_to_write { Ok(()) } else { Err(error) })?;
        Ok(Snapshot {
            folder,
            commit: listing.commit.clone(),
            outdated: None,
        })
    }
}

impl Weights {
    /// The files themselves; an index is read from the snapshot's folder.
    fn names(self, folder: &Path, repo: &RepoId) -> Result<Vec<String>, HubError> {
        let (index, mut files) = match self {
            Self::Files(files) => return Ok(files),
            Self::Indexed(index, files) => (index, files),
        };
        let path = folder.join(index);
        let json = std::fs::read(&path).map_err(|source| HubError::Read {
            path: path.clone(),
            source,
        })?;
        let index: Index = serde_json::from_slice(&json)
            .map_err(|source| HubError::DamagedIndex { path, source })?;
        let shards: BTreeSet<String> = index.weight_map.into_values().collect();
        if let Some(file) = shards.iter().find(|name| !is_plain(name)) {
            return Err(HubError::UnsafeFileName {
                repo: repo.clone(),
                file: file.clone(),
            });
        }
        files.extend(shards);
        Ok(files)
    }
}

/// What the cache has of a revision.
struct Cached {
    snapshot: Option<Snapshot>,
    missing: Vec<String>,
}

impl Cached {
    /// Looks for the commit, its list of files if that is remembered, and the wanted files.
    fn find(
        cache: &RepoCache,
        repo: &RepoId,
        revision: &Revision,
        wanted: &Wanted,
    ) -> Result<Self, HubError> {
        let commit = cache.commit(revision);
        let known =
            |commit: &String| cache.snapshot(commit).is_dir() || cache.tree(commit).is_file();
        let Some(commit) = commit.filter(known) else {
            let missing = match wanted {
                Wanted::Files(files) => files.clone(),
                Wanted::Model | Wanted::Configs => vec![ALL.to_owned()],
            };
            return Ok(Self {
                snapshot: None,
                missing,
            });
        };
        let folder = cache.snapshot(&commit);
        let listed = remembered(cache, &commit);
        let names = listed.clone().unwrap_or_else(|| cache.names(&commit));
        let absent = |files: Vec<String>| -> Vec<String> {
            let absent = files.into_iter().filter(|file| !cache.has(&commit, file));
            absent.collect()
        };
        let mut missing = absent(wanted.first(&names));
        match wanted.weights(&names) {
            // The shards' names are in a file that is itself missing, and named.
            Weights::Indexed(index, parts) if missing.contains(&index) => {
                missing.extend(absent(parts));
            }
            weights => missing.extend(absent(weights.names(&folder, repo)?)),
        }
        if listed.is_none() {
            missing.extend(wanted.essential(&names));
        }
        if missing.is_empty() && !folder.is_dir() {
            missing.push(ALL.to_owned());
        }
        Ok(Self {
            snapshot: Some(Snapshot {
                folder,
                commit,
                outdated: None,
            }),
            missing,
        })
    }

    fn into_snapshot(
        self,
        cache: &Path,
        repo: &RepoId,
        revision: &Revision,
    ) -> Result<Snapshot, HubError> {
        match self.snapshot {
            Some(snapshot) if self.missing.is_empty() => Ok(snapshot),
            _ => Err(HubError::NotCached {
                repo: repo.clone(),
                revision: revision.clone(),
                cache: cache.to_owned(),
                files: self.missing,
            }),
        }
    }
}
