//! `victor ask`: answers a question about a picture.

use crate::answer::Question;
use crate::args::{AnswerArgs, DeviceArgs, ModelArgs};
use crate::output::Output;
use clap::Args;
use std::path::PathBuf;

/// Answer a question about a picture
#[derive(Args)]
pub(crate) struct AskArgs {
    /// Picture file (PNG, JPEG, WebP, GIF, BMP or TIFF)
    image: PathBuf,
    /// The question
    question: String,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    answer: AnswerArgs,
}

pub(crate) fn run(args: &AskArgs, output: &mut Output) -> anyhow::Result<()> {
    let question = Question {
        images: std::slice::from_ref(&args.image),
        text: &args.question,
        batch_size: 1,
    };
    question.answer(&args.answer, &args.model, &args.device, output)
}
