//! `cargo xtask fuzz`: hostile files for everything that reads one, through cargo-fuzz.
//!
//! cargo-fuzz asks for a nightly compiler; with `RUSTC_BOOTSTRAP` and without the address sanitizer the
//! stable one does. What the sanitizer would find, wrong `unsafe`, is two memory maps here.

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Where the targets are.
const FOLDER: &str = "fuzz";
/// Longest time one input may take, seconds.
const INPUT_SECONDS: u32 = 10;
/// Most memory a target may take, MiB. Each holds itself to less, in proportion to its input.
const MEMORY: u32 = 2048;

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each target runs.
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Install cargo-fuzz if it is not there.
    #[arg(long)]
    install: bool,
    /// The targets to run; all of them if none is named.
    targets: Vec<String>,
}

impl Args {
    pub(crate) fn run(&self) -> Result<()> {
        find_cargo_fuzz(self.install)?;
        let known = targets()?;
        if let Some(unknown) = self.targets.iter().find(|target| !known.contains(target)) {
            bail!("no target {unknown}; there are {}", known.join(", "));
        }
        let chosen = if self.targets.is_empty() {
            &known
        } else {
            &self.targets
        };
        let mut findings = Vec::new();
        for target in chosen {
            let clock = Instant::now();
            eprintln!("--- {target}");
            if self.fuzz(target)? {
                eprintln!("--- {target}: nothing found in {:.0?}", clock.elapsed());
            } else {
                findings.push(target.as_str());
            }
        }
        ensure!(
            findings.is_empty(),
            "found something: {}; the inputs are in {FOLDER}/artifacts, and \
             `RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none TARGET INPUT` runs one",
            findings.join(", ")
        );
        Ok(())
    }

    /// Runs one target; whether it came through.
    fn fuzz(&self, target: &str) -> Result<bool> {
        let corpus = format!("{FOLDER}/corpus/{target}");
        fs::create_dir_all(&corpus).with_context(|| format!("creating {corpus}"))?;
        let mut command = Command::new("cargo");
        command
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["fuzz", "run", "--sanitizer", "none", target])
            // What is found goes to the first folder; the seeds are only read.
            .args([&corpus, &format!("{FOLDER}/seeds/{target}")])
            .arg("--")
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY}"))
            .args(["-malloc_limit_mb=512", "-print_final_stats=1"]);
        let dictionary = format!("{FOLDER}/dictionaries/{target}.dict");
        if Path::new(&dictionary).is_file() {
            command.arg(format!("-dict={dictionary}"));
        }
        let status = command.status().context("starting cargo fuzz")?;
        Ok(status.success())
    }
}

/// The targets, by their files.
fn targets() -> Result<Vec<String>> {
    let folder = Path::new(FOLDER).join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        if let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn find_cargo_fuzz(install: bool) -> Result<()> {
    const INSTALL: [&str; 3] = ["install", "cargo-fuzz", "--locked"];
    let found = Command::new("cargo")
        .args(["fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("starting cargo")?;
    if found.success() {
        return Ok(());
    }
    let line = format!("cargo {}", INSTALL.join(" "));
    ensure!(
        install,
        "cargo-fuzz is not installed: `{line}`, or give --install"
    );
    let status = Command::new("cargo").args(INSTALL).status()?;
    ensure!(status.success(), "`{line}` failed");
    Ok(())
}
