//! `victor train`: runs a training recipe.

use crate::args::DeviceArgs;
use crate::output::Output;
use anyhow::Context;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use toml::{Table, Value};
use victor_train::{Progress, TrainConfig, TrainReport};

/// Train by a recipe
///
/// A recipe is a TOML file; what it leaves out comes from its preset, or has a default. The trained
/// model is written to `model/` in the recipe's `output`, beside the loss curve and the checkpoint
/// that `--resume` goes on from.
#[derive(Args)]
pub(crate) struct TrainArgs {
    /// The recipe
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What the recipe starts from, in place of the preset it names
    #[arg(long)]
    preset: Option<Preset>,
    /// A setting in place of the recipe's, as TOML: `max_steps=100`; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, Value)>,
    /// Go on from the last checkpoint in the recipe's `output`, if there is one
    #[arg(long)]
    resume: bool,
    /// Leave out unusable records instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// The paper's two stages.
#[derive(Clone, Copy, ValueEnum)]
enum Preset {
    /// Alignment: projector and registers
    Stage1,
    /// Instruction tuning: the decoder too
    Stage2,
}

/// Reads `key=value`; a value that is not TOML is a string, so that paths need no quotes.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("expected a setting and its value, as in max_steps=100")?;
    let (key, value) = (key.trim(), value.trim());
    let parsed = toml::from_str::<Table>(&format!("value = {value}"))
        .ok()
        .and_then(|mut table| table.remove("value"));
    Ok((key.into(), parsed.unwrap_or_else(|| value.into())))
}

pub(crate) fn run(args: &TrainArgs, output: &mut Output) -> anyhow::Result<()> {
    let config = recipe(args)?;
    let report = victor_train::train(&config, args.device.choose()?, Progress::Bars)?;
    show(&report, output)
}

fn recipe(args: &TrainArgs) -> anyhow::Result<TrainConfig> {
    // Also when the file is merged below: only here does an error show the line at fault.
    let mut config = TrainConfig::from_file(&args.config)?;
    if let Some(preset) = args.preset {
        let mut table = Table::try_from(TrainConfig::preset(preset.name())?)?;
        table.extend(table_of(&args.config)?);
        table.remove("preset");
        config = table.try_into()?;
    }
    if !args.set.is_empty() {
        let mut table = Table::try_from(config)?;
        table.extend(args.set.iter().cloned());
        config = table
            .try_into()
            .context("--set: not a setting of recipes")?;
    }
    config.resume |= args.resume;
    config.skip_bad |= args.skip_bad;
    Ok(config)
}

fn table_of(path: &Path) -> anyhow::Result<Table> {
    let text = std::fs::read_to_string(path);
    Ok(toml::from_str(&text.with_context(|| {
        format!("{}: cannot be read", path.display())
    })?)?)
}

impl Preset {
    fn name(self) -> &'static str {
        match self {
            Preset::Stage1 => "stage1",
            Preset::Stage2 => "stage2",
        }
    }
}

fn show(report: &TrainReport, output: &mut Output) -> anyhow::Result<()> {
    output.line(report.model.display())?;
    let TrainReport {
        steps,
        samples,
        skipped,
        seconds,
        samples_per_second,
        loss,
        ..
    } = report;
    eprintln!(
        "{steps} steps; {samples} samples in {seconds:.1} s ({samples_per_second:.1} a second), \
         {skipped} records left out; loss {loss:.4}"
    );
    if let Some(loss) = report.validation_loss {
        eprintln!("validation loss {loss:.4}");
    }
    Ok(())
}
