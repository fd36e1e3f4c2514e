//! A group of files, several at once, into a snapshot.

use std::collections::BTreeSet;

use crate::cache::RepoCache;
use crate::client::{Client, FileInfo};
use crate::progress::{Event, Progress};
use crate::response::About;
use crate::retry::Patience;
use crate::workers;
use crate::{HubError, RepoId, Revision};

/// All that fetching the files of one commit needs.
pub(crate) struct Fetch<'a> {
    pub(crate) client: &'a Client,
    pub(crate) cache: &'a RepoCache,
    pub(crate) repo: &'a RepoId,
    pub(crate) commit: &'a Revision,
    pub(crate) connections: usize,
    pub(crate) patience: Patience,
    pub(crate) progress: &'a dyn Progress,
}

impl Fetch<'_> {
    /// Brings those of the files that the snapshot lacks. All are asked about before the first is
    /// fetched, so that a refusal comes early and the sizes are known.
    pub(crate) fn group(&self, files: &[String]) -> Result<(), HubError> {
        let commit = self.commit.as_str();
        let missing: BTreeSet<&String> = files
            .iter()
            .filter(|file| !self.cache.has(commit, file))
            .collect();
        let missing: Vec<&String> = missing.into_iter().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let infos = workers::run(self.connections, &missing, |file, stop| {
            let ask = || self.client.head(&self.about(file), file);
            self.patience.retry(file, self.progress, stop, ask)
        })?;
        let files: Vec<(&String, FileInfo)> = missing.into_iter().zip(infos).collect();
        let lacks_blob = |info: &FileInfo| !self.cache.blob(&info.etag).is_file();
        let new: Vec<u64> = files
            .iter()
            .filter(|(_, info)| lacks_blob(info))
            .map(|(_, info)| info.size)
            .collect();
        if !new.is_empty() {
            self.progress.event(Event::Planned {
                files: new.len(),
                bytes: new.iter().sum(),
            });
        }
        workers::run(self.connections, &files, |(file, info), stop| {
            if lacks_blob(info) {
                self.blob(file, info, stop)?;
            }
            self.cache.link(commit, file, &info.etag)
        })?;
        Ok(())
    }

    pub(crate) fn about<'a>(&'a self, file: &'a str) -> About<'a> {
        About {
            repo: self.repo,
            revision: self.commit,
            file: Some(file),
        }
    }
}
