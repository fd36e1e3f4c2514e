//! Chores of the workspace, run as `cargo xtask COMMAND`; nothing here is part of the engine.

mod data;
mod packages;
mod weights;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "Chores of the Victor workspace")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build a data set from public packages.
    #[command(subcommand)]
    Data(data::Data),
    /// Convert published weights into the checkpoints that training starts from.
    Weights(weights::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Data(data) => data.run(),
        Command::Weights(args) => args.run(),
    }
}
