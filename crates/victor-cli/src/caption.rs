//! `victor caption`: says what pictures show.

use crate::answer::Question;
use crate::args::{AnswerArgs, DeviceArgs, ModelArgs};
use crate::output::Output;
use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Say what pictures show
///
/// The caption of one picture is written as it comes; those of many as `path: caption`, in order.
#[derive(Args)]
pub(crate) struct CaptionArgs {
    /// Picture files (PNG, JPEG, WebP, GIF, BMP or TIFF)
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The instruction
    #[arg(long, value_name = "TEXT", default_value = victor::CAPTION_PROMPT)]
    prompt: String,
    /// Pictures answered together
    #[arg(long, value_name = "N", default_value = "8")]
    batch_size: NonZeroUsize,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    answer: AnswerArgs,
}

pub(crate) fn run(args: &CaptionArgs, output: &mut Output) -> anyhow::Result<()> {
    let question = Question {
        images: &args.images,
        text: &args.prompt,
        batch_size: args.batch_size.get(),
    };
    question.answer(&args.answer, &args.model, &args.device, output)
}
