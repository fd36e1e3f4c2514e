//! Chores of the workspace, run as `cargo xtask COMMAND`; nothing here is part of the engine.

mod ci;
mod data;
mod fuzz;
mod golden;
mod gpu;
mod memory;
mod packages;
mod tidy;
mod tokenizers;
mod weights;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Chores of the Victor workspace")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything a change must pass.
    Ci(ci::Args),
    /// Build a data set from public packages.
    #[command(subcommand)]
    Data(data::Data),
    /// Feed made-up and damaged files to everything that reads one.
    Fuzz(fuzz::Args),
    /// Make unseen reference cases with transformers and compare `victor trace` with them.
    Golden(golden::Args),
    /// Pack what a machine with a GPU has to run.
    Gpu(gpu::Args),
    /// Measure the memory that half-precision weights take on flex.
    Memory(memory::Args),
    /// Check what no lint looks at: file sizes and openings.
    Tidy,
    /// Fetch real vocabularies and compare texts' ids with llama.cpp's.
    Tokenizers(tokenizers::Args),
    /// Convert published weights into the checkpoints that training starts from.
    Weights(weights::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Ci(args) => args.run(),
        Command::Data(data) => data.run(),
        Command::Fuzz(args) => args.run(),
        Command::Golden(args) => args.run(),
        Command::Gpu(args) => args.run(),
        Command::Memory(args) => args.run(),
        Command::Tidy => tidy::run(),
        Command::Tokenizers(args) => args.run(),
        Command::Weights(args) => args.run(),
    }
}
