//! `victor convert`: writes a model of any layout in ours.

use crate::args::ModelArgs;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use victor::{SaveOptions, Storage};

/// Write a model of any layout that is read as a folder of safetensors
#[derive(Args)]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Folder to write; replaced when the new one is whole
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How numbers are stored
    #[arg(long, value_enum, default_value_t = StorageArg::F16)]
    storage: StorageArg,
    /// The most mebibytes of a file; one file without it
    #[arg(long, value_name = "N")]
    max_shard_mib: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum StorageArg {
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
    /// The upper halves of 32-bit floats
    Bf16,
    /// Matrices as 8-bit integers with a scale a row, the rest as 16-bit floats
    Int8,
}

pub(crate) fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    let storage = match args.storage {
        StorageArg::F32 => Storage::F32,
        StorageArg::F16 => Storage::F16,
        StorageArg::Bf16 => Storage::BF16,
        StorageArg::Int8 => Storage::Int8,
    };
    let max_shard_bytes = args.max_shard_mib.map(|mib| mib << 20);
    let options = SaveOptions {
        storage,
        max_shard_bytes,
    };
    let bar = bytes_bar();
    let progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let model = args.model.model()?;
    victor::convert(&model, &args.out, &options, &progress)?;
    bar.finish_and_clear();
    eprintln!("wrote {}", args.out.display());
    Ok(())
}

fn bytes_bar() -> ProgressBar {
    let style = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}
