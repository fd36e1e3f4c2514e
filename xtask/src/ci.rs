//! `cargo xtask ci`: everything a change must pass, step by step.

use anyhow::{Result, bail};
use std::process::Command;
use std::time::Instant;

/// Options of `cargo xtask ci`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the steps whose name holds this.
    only: Option<String>,
}

/// One step: a name, environment and command line.
struct Step {
    name: &'static str,
    environment: &'static [(&'static str, &'static str)],
    command: &'static str,
}

const fn step(name: &'static str, command: &'static str) -> Step {
    Step {
        name,
        environment: &[],
        command,
    }
}

/// The GPU backends' cases need every shader compiled anew, so they are a few tests and not all.
const STEPS: [Step; 12] = [
    step("format", "cargo fmt --all --check"),
    step("tidy", "cargo xtask tidy"),
    step(
        "test",
        "cargo test --release --workspace --features ndarray",
    ),
    step("tokenizers", "cargo xtask tokenizers"),
    step("smollm2", "cargo xtask weights smollm2"),
    Step {
        name: "gguf",
        environment: &[("VICTOR_SMOLLM2", "data/smollm2.gguf")],
        command: "cargo test --release --workspace --features ndarray --test smollm2 -- --ignored",
    },
    Step {
        name: "caption",
        environment: &[],
        command: "cargo run --release --example caption",
    },
    step("memory", "cargo xtask memory"),
    step("fuzz", "cargo xtask fuzz --install --seconds 60"),
    Step {
        name: "vulkan",
        environment: &[("VICTOR_TEST_DEVICES", "vulkan,flex")],
        command: "cargo test --release --features vulkan --test golden --test properties --test backends",
    },
    step(
        "lint",
        "cargo clippy --workspace --all-targets --features ndarray,vulkan -- --deny warnings",
    ),
    Step {
        name: "docs",
        environment: &[("RUSTDOCFLAGS", "--deny warnings")],
        command: "cargo doc --workspace --no-deps --features ndarray,vulkan",
    },
];

impl Args {
    pub(crate) fn run(&self) -> Result<()> {
        let wanted = |step: &&Step| {
            self.only
                .as_deref()
                .is_none_or(|only| step.name.contains(only))
        };
        for step in STEPS.iter().filter(wanted) {
            eprintln!("\n=== {}: {}", step.name, step.command);
            let clock = Instant::now();
            let mut words = step.command.split(' ');
            let program = words.next().unwrap_or_default();
            let status = Command::new(program)
                .args(words)
                .envs(step.environment.iter().copied())
                .status()?;
            if !status.success() {
                bail!("{} failed: {}", step.name, step.command);
            }
            eprintln!("=== {} took {:.0?}", step.name, clock.elapsed());
        }
        Ok(())
    }
}
