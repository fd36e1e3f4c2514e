//! `victor train`: runs a training recipe.

use crate::args::DeviceArgs;
use crate::output::Output;
use clap::Args;
use std::path::PathBuf;

/// Train by a recipe
#[derive(Args)]
pub(crate) struct TrainArgs {
    /// The recipe: TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &TrainArgs, _output: &mut Output) -> anyhow::Result<()> {
    anyhow::bail!(
        "{}: training on {} is not there yet",
        args.config.display(),
        args.device.choose()?
    )
}
