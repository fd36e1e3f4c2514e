//! One writer a blob, over threads and processes. The lock files are those Python locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use crate::HubError;
use crate::cache::create_parent;
use crate::workers::Stop;

/// How often it is looked whether another process is done.
const POLL: Duration = Duration::from_millis(50);

/// A lock that ends with this value, or with the process.
#[derive(Debug)]
pub(crate) struct BlobLock {
    file: Option<File>,
}

impl BlobLock {
    /// Waits for the lock; `None` if the work was stopped meanwhile. `on_wait` is called once if there
    /// is another holder.
    pub(crate) fn acquire(
        path: &Path,
        stop: &Stop,
        on_wait: impl FnOnce(),
    ) -> Result<Option<Self>, HubError> {
        create_parent(path)?;
        let error = |source| HubError::Write {
            path: path.to_owned(),
            source,
        };
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(error)?;
        let mut on_wait = Some(on_wait);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self { file: Some(file) })),
                Err(TryLockError::WouldBlock) => {}
                // Some network file systems have no locks: then writers keep apart by their names.
                Err(TryLockError::Error(_)) => return Ok(Some(Self { file: None })),
            }
            if let Some(on_wait) = on_wait.take() {
                on_wait();
            }
            if stop.pause(POLL) {
                return Ok(None);
            }
        }
    }

    /// Whether others are really kept out.
    pub(crate) fn is_held(&self) -> bool {
        self.file.is_some()
    }
}
