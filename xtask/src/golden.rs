//! `cargo xtask golden`: unseen reference cases from transformers, compared with `victor trace`.

use anyhow::{Result, bail};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Options of `cargo xtask golden`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A Python with the packages of `xtask/python/requirements.txt`.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Where cases are made.
    #[arg(long, default_value = "data")]
    out: PathBuf,
    /// Decides sizes, weights, pictures and prompts.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Where `victor trace` runs.
    #[arg(long, default_value = "flex")]
    device: String,
}

impl Args {
    pub(crate) fn run(&self) -> Result<()> {
        let cases = self.out.join(format!("golden-{}", self.seed));
        if !cases.is_dir() {
            let partial = cases.with_extension("partial");
            let mut make = self.script("make");
            make.arg("--out")
                .arg(&partial)
                .args(["--seed", &self.seed.to_string()]);
            finish(make.args(["--like", "tests/golden"]))?;
            fs::rename(&partial, &cases)?;
        }
        finish(Command::new("cargo").args(["build", "--release", "-p", "victor-cli"]))?;
        let mut run = self.script("run");
        run.args([
            "--victor",
            "target/release/victor",
            "--device",
            &self.device,
        ]);
        finish(run.arg("--cases").arg(&cases))
    }

    fn script(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["xtask/python/golden.py", verb]);
        command
    }
}

fn finish(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if !status.success() {
        bail!("{command:?} failed");
    }
    Ok(())
}
