//! A child process and the most memory it had, read from `/proc` while it runs.

use anyhow::{Context, Result};
use std::io::Read;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

/// The most memory a process had, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peak {
    /// Memory that is backed by no file.
    pub(super) anonymous: u64,
    /// All memory, with the pages of mapped files that were there.
    pub(super) resident: u64,
}

/// A process that has ended.
pub(super) struct Run {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) wall: Duration,
    pub(super) peak: Peak,
}

/// Runs a command whose outputs are piped.
pub(super) fn watch(command: &mut Command) -> Result<Run> {
    let clock = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let stdout = child.stdout.take().map(|pipe| thread::spawn(|| text(pipe)));
    let stderr = child.stderr.take().map(|pipe| thread::spawn(|| text(pipe)));
    let path = format!("/proc/{}/status", child.id());
    let mut peak = Peak::default();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // Absent or empty in the moment in which the process ends.
        if let Ok(status) = std::fs::read_to_string(&path) {
            peak = peak.max(&status);
        }
        thread::sleep(Duration::from_millis(2));
    };
    let wall = clock.elapsed();
    let joined = |reader: Option<thread::JoinHandle<String>>| {
        reader
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default()
    };
    Ok(Run {
        status,
        stdout: joined(stdout),
        stderr: joined(stderr),
        wall,
        peak,
    })
}

fn text(mut pipe: impl Read) -> String {
    let mut text = String::new();
    // What could not be read is missed by whoever parses it.
    let _ = pipe.read_to_string(&mut text);
    text
}

impl Peak {
    /// The larger of this and what a `/proc/PID/status` says.
    fn max(self, status: &str) -> Self {
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = value.and_then(|value| value.split_whitespace().next());
            kilobytes
                .and_then(|kilobytes| kilobytes.parse::<u64>().ok())
                .map_or(0, |kilobytes| kilobytes * 1024)
        };
        Self {
            anonymous: self.anonymous.max(field("RssAnon:")),
            resident: self.resident.max(field("VmHWM:")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_number_is_kept() {
        let status = "Name:\tx\nVmHWM:\t    30 kB\nRssAnon:\t    10 kB\n";
        let before = Peak {
            anonymous: 20 * 1024,
            resident: 0,
        };
        let expected = Peak {
            anonymous: 20 * 1024,
            resident: 30 * 1024,
        };
        assert_eq!(before.max(status), expected);
        assert_eq!(expected.max(""), expected);
    }
}
