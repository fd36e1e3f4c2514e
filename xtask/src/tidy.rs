//! `cargo xtask tidy`: what no lint looks at.

use anyhow::{Context, Result, bail};
use std::fs;
use std::process::Command;

/// Lines of a source file outside its tests.
const MAX_LINES: usize = 400;
/// Bytes of a tracked file.
const MAX_BYTES: u64 = 16 << 20;
/// Bytes of the default weights together.
const MAX_WEIGHTS: u64 = 40 << 20;

/// Checks the tracked files and names every one that is out of bounds.
pub(crate) fn run() -> Result<()> {
    let listing = Command::new("git")
        .arg("ls-files")
        .output()
        .context("git ls-files")?;
    let listing = String::from_utf8(listing.stdout).context("file names")?;
    let mut problems = Vec::new();
    let mut weights = 0;
    for path in listing.lines() {
        let Ok(metadata) = fs::metadata(path) else {
            continue;
        };
        if metadata.len() > MAX_BYTES {
            problems.push(format!(
                "{path}: {} bytes, at most {MAX_BYTES}",
                metadata.len()
            ));
        }
        if path.starts_with("weights/") {
            weights += metadata.len();
        }
        if path.ends_with(".rs") {
            let text = fs::read_to_string(path).with_context(|| path.to_string())?;
            problems.extend(source_problems(path, &text));
        }
    }
    if weights > MAX_WEIGHTS {
        problems.push(format!("weights/: {weights} bytes, at most {MAX_WEIGHTS}"));
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

fn source_problems(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !text.starts_with("//!") {
        problems.push(format!(
            "{path}: opens without a //! line saying what it is"
        ));
    }
    if !path.ends_with("victor-backend/src/device.rs") && !path.starts_with("xtask/") {
        let gated = text
            .lines()
            .any(|line| line.starts_with("#[cfg") && line.contains("feature ="));
        if gated {
            problems.push(format!(
                "{path}: only victor-backend/src/device.rs looks at features"
            ));
        }
    }
    let code = text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .count();
    if code > MAX_LINES && !path.contains("tests/") {
        problems.push(format!(
            "{path}: {code} lines outside tests, at most {MAX_LINES}"
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_count_as_lines() {
        let long = "//! A file.\n#[cfg(test)]\n".to_string() + &"line\n".repeat(MAX_LINES);
        assert!(source_problems("src/a.rs", &long).is_empty());
        let long = "//! A file.\n".to_string() + &"line\n".repeat(MAX_LINES);
        assert_eq!(source_problems("src/a.rs", &long).len(), 1);
        assert_eq!(source_problems("src/a.rs", "fn main() {}").len(), 1);
    }
}
