//! What is told while a snapshot is fetched. Drawing it is the caller's.

use std::time::Duration;

use crate::HubError;

/// Listens to a download. Called from several threads at once.
///
/// Any `Fn(Event<'_>) + Sync` is one.
pub trait Progress: Sync {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}

impl<F: Fn(Event<'_>) + Sync> Progress for F {
    fn event(&self, event: Event<'_>) {
        self(event);
    }
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event<'_>) {}
}

/// A step of a download. Sizes are bytes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// So much more is to be fetched. Comes once for the small files and once for the weights, or not
    /// at all when the cache has them.
    Planned {
        /// Number of files.
        files: usize,
        /// Their sizes together, with what lies here from an earlier run.
        bytes: u64,
    },
    /// Another process is fetching this file; it is waited for.
    Waiting {
        /// The file.
        file: &'a str,
    },
    /// A file begins, or goes on from where an earlier run ended.
    Started {
        /// The file.
        file: &'a str,
        /// Bytes of the whole file.
        size: u64,
        /// Bytes that are already here.
        done: u64,
    },
    /// A file has grown; it may also have shrunk to nothing, when the Hub sends it from the start.
    Advanced {
        /// The file.
        file: &'a str,
        /// Bytes that are here now.
        done: u64,
    },
    /// A request failed and is made again after a wait.
    Retrying {
        /// The file, or the repository while its files are listed.
        file: &'a str,
        /// How long it is waited.
        wait: Duration,
        /// Why.
        error: &'a HubError,
    },
    /// A file is here and checked.
    Finished {
        /// The file.
        file: &'a str,
    },
    /// The Hub could not be asked, and the last snapshot is used as it is.
    Outdated {
        /// Why.
        error: &'a HubError,
    },
}
