//! `cargo xtask memory`: the memory that `victor caption` takes on flex for weights stored as halves.
//!
//! A checkpoint of random f16 weights is written, captioned once by a process of its own whose memory
//! is read from `/proc` while it runs, and deleted.

mod checkpoint;
mod process;

use anyhow::{Context, Result, bail, ensure};
use checkpoint::Shape;
use indicatif::DecimalBytes;
use process::Peak;
use serde::Serialize;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Options of `cargo xtask memory`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// LLaVA-1.5-7B's shape, 14 GB, and not the one of half a gigabyte.
    #[arg(long)]
    full: bool,
    /// Where the checkpoint is written, in a folder of its own that is deleted.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// The binary [default: built in release]
    #[arg(long)]
    victor: Option<PathBuf>,
    /// The result as one JSON object on standard output.
    #[arg(long)]
    json: bool,
    /// What the matrices are kept in.
    #[arg(long, default_value = "auto")]
    dtype: String,
    /// New tokens.
    #[arg(long, default_value_t = 2)]
    tokens: usize,
}

/// What one run took; sizes in bytes, times in seconds.
#[derive(Serialize)]
struct Measured {
    shape: &'static str,
    dtype: String,
    file_bytes: u64,
    parameters: u64,
    prompt_tokens: u64,
    new_tokens: u64,
    peak_anonymous_bytes: u64,
    peak_resident_bytes: u64,
    limit_anonymous_bytes: u64,
    load_s: f64,
    /// Of loading, picture and prompt together: what a user waits for the first token.
    first_token_s: f64,
    decode_s_per_token: f64,
    wall_s: f64,
}

impl Args {
    pub(crate) fn run(&self) -> Result<()> {
        ensure!(
            cfg!(target_os = "linux"),
            "memory is read from Linux's /proc"
        );
        let victor = match &self.victor {
            Some(path) => path.clone(),
            None => build()?,
        };
        let shape = if self.full {
            &checkpoint::FULL
        } else {
            &checkpoint::SMALL
        };
        let dir = self.dir.join(format!("memory-{}", std::process::id()));
        let measured = self.measure(shape, &dir, &victor);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        let measured = measured?;
        if self.json {
            writeln!(std::io::stdout(), "{}", serde_json::to_string(&measured)?)?;
        } else {
            show(&measured)?;
        }
        let (found, limit) = (
            measured.peak_anonymous_bytes,
            measured.limit_anonymous_bytes,
        );
        ensure!(
            found <= limit,
            "{} of anonymous memory, at most {}",
            DecimalBytes(found),
            DecimalBytes(limit)
        );
        Ok(())
    }

    fn measure(&self, shape: &Shape, dir: &Path, victor: &Path) -> Result<Measured> {
        eprintln!("writing {} ...", dir.display());
        let written = checkpoint::write(shape, dir)?;
        eprintln!("captioning ...");
        let mut command = Command::new(victor);
        command
            .args(["caption", "--device", "flex", "--json", "--timings"])
            .args(["--max-new-tokens", &self.tokens.to_string()])
            .args(["--dtype", &self.dtype])
            .arg("--model")
            .arg(dir)
            .arg(dir.join("picture.png"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let run = process::watch(&mut command)?;
        if !run.status.success() {
            bail!("{command:?} failed: {}", run.stderr);
        }
        let answer: Value = serde_json::from_str(&run.stdout).context("the answer")?;
        let number = |value: &Value| value.as_f64().context("a number in the answer");
        let timings = &answer["timings"];
        let mut first_token_s = loading(&run.stderr)?;
        let load_s = first_token_s;
        for part in ["preprocess_s", "vision_s", "prefill_s"] {
            first_token_s += number(&timings[part])?;
        }
        let prompt_tokens = number(&answer["prompt_tokens"])? as u64;
        let Peak {
            anonymous,
            resident,
        } = run.peak;
        Ok(Measured {
            shape: shape.name,
            dtype: self.dtype.clone(),
            file_bytes: written.bytes,
            parameters: written.parameters,
            prompt_tokens,
            new_tokens: number(&answer["new_tokens"])? as u64,
            peak_anonymous_bytes: anonymous,
            peak_resident_bytes: resident,
            limit_anonymous_bytes: shape.limit(prompt_tokens),
            load_s,
            first_token_s,
            decode_s_per_token: number(&timings["decode_s"])?
                / number(&timings["decode_steps"])?.max(1.0),
            wall_s: run.wall.as_secs_f64(),
        })
    }
}

fn build() -> Result<PathBuf> {
    // The features of the tests, so that CI builds nothing twice.
    let status = Command::new("cargo")
        .args(["build", "--release", "--workspace", "--features", "ndarray"])
        .args(["--bin", "victor"])
        .status()?;
    ensure!(status.success(), "victor does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Ok(PathBuf::from(target).join("release/victor"))
}

/// The seconds in `loaded on flex in 0.123 s: …`.
fn loading(stderr: &str) -> Result<f64> {
    let line = stderr
        .lines()
        .find_map(|line| line.strip_prefix("loaded on "));
    let seconds = line
        .and_then(|line| line.split_once(" in "))
        .and_then(|(_, rest)| rest.split_once(" s"))
        .and_then(|(seconds, _)| seconds.parse().ok());
    seconds.with_context(|| format!("no time of loading in: {stderr}"))
}

fn show(measured: &Measured) -> Result<()> {
    let bytes = |bytes: u64| DecimalBytes(bytes).to_string();
    let seconds = |seconds: f64| format!("{seconds:.2} s");
    let rows = [
        ("shape", measured.shape.to_owned()),
        ("matrices kept as", measured.dtype.clone()),
        ("files", bytes(measured.file_bytes)),
        ("prompt", format!("{} tokens", measured.prompt_tokens)),
        ("peak anonymous", bytes(measured.peak_anonymous_bytes)),
        ("limit of it", bytes(measured.limit_anonymous_bytes)),
        ("peak resident", bytes(measured.peak_resident_bytes)),
        ("loading", seconds(measured.load_s)),
        ("until the first token", seconds(measured.first_token_s)),
        ("a further token", seconds(measured.decode_s_per_token)),
        ("the process", seconds(measured.wall_s)),
    ];
    let mut output = std::io::stdout().lock();
    for (name, value) in rows {
        writeln!(output, "{name:<24}{value:>16}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_loading_is_found() {
        let text = "warning: in 3 s\nloaded on flex in 1.250 s: 14 GB as stored\npreprocess 0.1 s";
        assert_eq!(loading(text).expect("a time"), 1.25);
        assert!(loading("loaded on flex").is_err());
    }
}
