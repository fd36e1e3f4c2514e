//! One file's way from the Hub to its blob: locked, resumed, retried, checked, renamed.

use std::io::{self, Read};
use std::path::PathBuf;

use crate::HubError;
use crate::client::FileInfo;
use crate::fetch::Fetch;
use crate::lock::BlobLock;
use crate::partial::Partial;
use crate::progress::Event;
use crate::workers::Stop;

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 17;

impl Fetch<'_> {
    /// Brings a file's bytes into the cache. What came before a failure stays for the next attempt,
    /// of this process or another.
    pub(crate) fn blob(&self, file: &str, info: &FileInfo, stop: &Stop) -> Result<(), HubError> {
        let blob = self.cache.blob(&info.etag);
        let on_wait = || self.progress.event(Event::Waiting { file });
        let Some(lock) = BlobLock::acquire(&self.cache.lock(&info.etag), stop, on_wait)? else {
            return Err(self.lost(file, info, 0, io::ErrorKind::Interrupted.into()));
        };
        if blob.is_file() {
            return Ok(());
        }
        let mut partial = Partial::open(incomplete(&blob, &lock), file, info)?;
        self.progress.event(Event::Started {
            file,
            size: info.size,
            done: partial.length(),
        });
        self.fill(&mut partial, file, info, stop)?;
        if let Err(error) = partial.verify() {
            // A piece of an earlier run may be the damaged one: once, all is fetched anew.
            if !partial.is_pieced() {
                partial.remove();
                return Err(error);
            }
            partial.restart()?;
            self.fill(&mut partial, file, info, stop)?;
            partial.verify().inspect_err(|_| partial.remove())?;
        }
        partial.finish(&blob)?;
        self.progress.event(Event::Finished { file });
        Ok(())
    }

    /// Appends until the file has its size. Failures count as long as the file does not get longer than
    /// it ever was.
    fn fill(
        &self,
        partial: &mut Partial<'_>,
        file: &str,
        info: &FileInfo,
        stop: &Stop,
    ) -> Result<(), HubError> {
        let mut failures = 0;
        let mut longest = partial.length();
        while partial.length() < info.size {
            let Err(error) = self.piece(partial, file, info, stop) else {
                continue;
            };
            if partial.length() > longest {
                longest = partial.length();
                failures = 0;
            }
            if stop.is_set() {
                return Err(error);
            }
            failures += 1;
            let Some(wait) = self.patience.wait(failures, &error) else {
                return Err(error);
            };
            self.progress.event(Event::Retrying {
                file,
                wait,
                error: &error,
            });
            if stop.pause(wait) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// One request, from where the file ends.
    fn piece(
        &self,
        partial: &mut Partial<'_>,
        file: &str,
        info: &FileInfo,
        stop: &Stop,
    ) -> Result<(), HubError> {
        let about = self.about(file);
        let from = partial.length();
        let Some(mut bytes) = self.client.bytes(&about, file, from, info.size)? else {
            // The range was refused, so the next request begins at the start.
            return partial.restart();
        };
        match bytes.start {
            0 if from > 0 => partial.restart()?,
            0 => {}
            _ => partial.set_pieced(),
        }
        let mut buffer = vec![0; CHUNK];
        while partial.length() < info.size {
            if stop.is_set() {
                let source = io::ErrorKind::Interrupted.into();
                return Err(self.lost(file, info, partial.length(), source));
            }
            let read = match bytes.reader.read(&mut buffer) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            let read = read.map_err(|source| self.lost(file, info, partial.length(), source))?;
            partial.append(&buffer[..read])?;
            self.progress.event(Event::Advanced {
                file,
                done: partial.length(),
            });
        }
        Ok(())
    }

    fn lost(&self, file: &str, info: &FileInfo, received: u64, source: io::Error) -> HubError {
        HubError::Interrupted {
            file: file.to_owned(),
            received,
            size: info.size,
            attempts: self.patience.attempts,
            source,
        }
    }
}

/// The name of the file while it is written. Without a lock it is this process's own, so that nobody
/// else writes into it; then a later process cannot resume it either.
fn incomplete(blob: &std::path::Path, lock: &BlobLock) -> PathBuf {
    let mut name = blob.file_name().unwrap_or_default().to_owned();
    if !lock.is_held() {
        name.push(format!(".{}", std::process::id()));
    }
    name.push(".incomplete");
    blob.with_file_name(name)
}
