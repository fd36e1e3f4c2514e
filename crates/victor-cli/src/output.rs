//! Standard output: results and nothing else; a reader that has gone ends the command quietly.

use serde::Serialize;
use std::fmt;
use std::io::{self, StdoutLock, Write};

/// Writes results.
pub(crate) struct Output {
    stdout: StdoutLock<'static>,
}

/// Nobody reads standard output any more, as after `| head`.
#[derive(Debug)]
pub(crate) struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output was closed")
    }
}

impl std::error::Error for ReaderGone {}

impl Output {
    pub(crate) fn new() -> Self {
        Self {
            stdout: io::stdout().lock(),
        }
    }

    /// Writes a piece of a line so that it is seen at once.
    pub(crate) fn piece(&mut self, text: &str) -> anyhow::Result<()> {
        let written = self.stdout.write_all(text.as_bytes());
        told(written.and_then(|()| self.stdout.flush()))
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl fmt::Display) -> anyhow::Result<()> {
        let written = writeln!(self.stdout, "{line}");
        told(written.and_then(|()| self.stdout.flush()))
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string(value)?)
    }
}

fn told(written: io::Result<()>) -> anyhow::Result<()> {
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => ReaderGone.into(),
        _ => anyhow::Error::new(error).context("standard output cannot be written"),
    })
}
