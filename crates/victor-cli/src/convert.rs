//! `victor convert`: writes a checkpoint in another storage.

use clap::{Args, ValueEnum};
use std::path::PathBuf;
use victor::{Device, SaveOptions, Storage};

/// Write a checkpoint as safetensors in another storage
#[derive(Args)]
pub(crate) struct ConvertArgs {
    /// The checkpoint's folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
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
    /// Matrices as 8-bit integers with a scale a row, the rest as 16-bit floats
    Int8,
}

pub(crate) fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    let storage = match args.storage {
        StorageArg::F32 => Storage::F32,
        StorageArg::F16 => Storage::F16,
        StorageArg::Int8 => Storage::Int8,
    };
    let max_shard_bytes = args.max_shard_mib.map(|mib| mib << 20);
    let options = SaveOptions {
        storage,
        max_shard_bytes,
    };
    victor::convert(&args.model, &args.out, &options, Device::best()?)?;
    eprintln!("wrote {}", args.out.display());
    Ok(())
}
