//! `victor convert`: writes a model of any layout in ours.

use crate::args::SourceArgs;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use victor::{AddRegisters, RegisterInit, SaveOptions, Storage};

/// Write a model of any layout that is read as a folder of safetensors
#[derive(Args)]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    model: SourceArgs,
    /// Folder to write; replaced when the new one is whole
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How numbers are stored
    #[arg(long, value_enum, default_value_t = StorageArg::F16)]
    storage: StorageArg,
    /// The most mebibytes of a file; one file without it
    #[arg(long, value_name = "N")]
    max_shard_mib: Option<usize>,
    /// Give it so many registers, in place of those it has; training teaches them
    #[arg(long, value_name = "M", requires = "drop_layer")]
    registers: Option<usize>,
    /// Layer from which on visual tokens are absent
    #[arg(long, value_name = "K", requires = "registers")]
    drop_layer: Option<usize>,
    /// What the registers hold before training
    #[arg(long, value_enum, default_value_t = InitArg::Learned, requires = "registers")]
    init: InitArg,
    /// Seed of learned registers
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Pictures whose pooled visual tokens are the registers; with --init pooled
    #[arg(long, value_name = "FILE", num_args = 1.., required_if_eq("init", "pooled"))]
    pictures: Vec<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum InitArg {
    /// Small random numbers
    Learned,
    /// The pooled visual tokens of --pictures, in the mean
    Pooled,
    /// Zeros
    Zeros,
    /// The embedding of the word "Image"
    ImageToken,
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
    let registers = args.add_registers()?;
    let (_, files) = args.model.files()?;
    victor::convert(files, &args.out, &options, registers.as_ref(), &progress)?;
    bar.finish_and_clear();
    eprintln!("wrote {}", args.out.display());
    Ok(())
}

impl ConvertArgs {
    fn add_registers(&self) -> anyhow::Result<Option<AddRegisters>> {
        let (Some(num_registers), Some(drop_layer)) = (self.registers, self.drop_layer) else {
            return Ok(None);
        };
        let init = match self.init {
            InitArg::Learned => RegisterInit::Learned { seed: self.seed },
            InitArg::Zeros => RegisterInit::Zeros,
            InitArg::ImageToken => RegisterInit::ImageToken,
            InitArg::Pooled => {
                let pictures = self.pictures.iter().map(|path| victor::decode_image(path));
                RegisterInit::Pooled {
                    pictures: pictures.collect::<Result<_, _>>()?,
                }
            }
        };
        Ok(Some(AddRegisters {
            num_registers,
            drop_layer,
            init,
        }))
    }
}

fn bytes_bar() -> ProgressBar {
    let style = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}
