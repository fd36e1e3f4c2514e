//! `victor trace`: every stage of one request as a safetensors file, to compare with other engines.

use crate::args::{DeviceArgs, ModelArgs, check_out};
use crate::pictures;
use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use victor::Request;

/// Write every stage of one request as a safetensors file
///
/// Tensors: pixel_values, input_ids, vision_features (not of LLaVA-NeXT's tiles), projected,
/// inputs_embeds, logits_prefill, first_logits, generated_ids. Decoding is greedy and does not end at a stop token.
#[derive(Args)]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Picture file; may be given several times, in the order of the markers
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,
    /// The prompt as it is, past the chat template, with one `<image>` for each picture
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// So many new tokens
    #[arg(long, value_name = "N", default_value = "16")]
    max_new_tokens: NonZeroUsize,
    #[command(flatten)]
    device: DeviceArgs,
    /// Where the trace goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: &TraceArgs) -> anyhow::Result<()> {
    check_out(&args.out)?;
    let pictures = pictures::decode(&args.images)?;
    let model = args.model.open(&args.device)?;
    let request = Request::raw(args.prompt.clone(), pictures);
    let trace = model.trace(&request, args.max_new_tokens.get())?;
    trace.write(&args.out)?;
    eprintln!("{}: {} tensors", args.out.display(), trace.tensors.len());
    Ok(())
}
