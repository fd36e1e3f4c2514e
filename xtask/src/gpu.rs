//! `cargo xtask gpu`: packs what a machine with a GPU has to run into one folder.
//!
//! The machine needs a driver and nothing else: no toolkit, no Rust, no network.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Options of `cargo xtask gpu`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder that is packed.
    #[arg(long, default_value = "target/gpu")]
    out: PathBuf,
    /// Features of the binaries.
    #[arg(long, default_value = "cuda,vulkan")]
    features: String,
    /// Run at once, on a machine that has the GPU.
    #[arg(long)]
    run: bool,
}

const TESTS: [&str; 3] = ["golden", "properties", "backends"];

/// What runs there: every test on both GPU backends against flex.
const SCRIPT: &str = r#"#!/usr/bin/env bash
# Runs the packed tests on CUDA and Vulkan against flex. Usage: ./run.sh [devices]
set -u
cd "$(dirname "$0")"
export VICTOR_TEST_DEVICES="${1:-flex,cuda,vulkan}" VICTOR_GOLDEN="$PWD/golden"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || true
failed=0
for test in golden properties backends; do
    echo "=== $test on $VICTOR_TEST_DEVICES"
    ./"$test" --nocapture || failed=1
done
exit $failed
"#;

impl Args {
    pub(crate) fn run(&self) -> Result<()> {
        fs::create_dir_all(&self.out).with_context(|| self.out.display().to_string())?;
        for (name, binary) in build(&self.features)? {
            let to = self.out.join(name);
            fs::copy(&binary, &to).with_context(|| binary.display().to_string())?;
            let status = Command::new("strip").arg(&to).status().context("strip")?;
            if !status.success() {
                bail!("strip {} failed", to.display());
            }
        }
        copy_tree(Path::new("tests/golden"), &self.out.join("golden"))?;
        let script = self.out.join("run.sh");
        fs::write(&script, SCRIPT).with_context(|| script.display().to_string())?;
        if self.run {
            let status = Command::new("bash").arg(&script).status()?;
            if !status.success() {
                bail!("the packed tests failed");
            }
        } else {
            eprintln!(
                "packed: carry {} to the machine and run run.sh there",
                self.out.display()
            );
        }
        Ok(())
    }
}

/// Builds the tests and names their executables.
fn build(features: &str) -> Result<Vec<(String, PathBuf)>> {
    let mut command = Command::new("cargo");
    command.args([
        "test",
        "--release",
        "--no-run",
        "--message-format=json",
        "--features",
        features,
    ]);
    for test in TESTS {
        command.args(["--test", test]);
    }
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo test")?;
    if !output.status.success() {
        bail!("the tests do not build with --features {features}");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let executables = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let path = message.get("executable")?.as_str()?;
        Some((
            message["target"]["name"].as_str()?.to_string(),
            PathBuf::from(path),
        ))
    });
    Ok(executables.collect())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| target.display().to_string())?;
        }
    }
    Ok(())
}
