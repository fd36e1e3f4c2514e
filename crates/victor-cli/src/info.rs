//! `victor info`: what a checkpoint is made of and what it costs, from its config alone.

use crate::args::ModelArgs;
use crate::fetch::FetchBars;
use crate::output::Output;
use clap::Args;
use indicatif::{DecimalBytes, HumanCount};
use serde::Serialize;
use victor::parts::model::{PictureConfig, PositionMode};
use victor::{Info, VlmConfig, WeightDtype};

/// Tell what a checkpoint is made of and what a picture costs it
///
/// Reads config.json and no weights.
#[derive(Args)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// How rows of pictures and registers are counted.
const ACCOUNTING: &str = "Registers count as image rows in every layer they are in: beside the visual tokens \
    before the drop, alone after it. \"Final\" is the image rows of the last layer, \"mean\" their mean over all layers.";

/// The same as JSON.
#[derive(Serialize)]
struct Facts<'a> {
    model: &'a str,
    config: &'a VlmConfig,
    #[serde(flatten)]
    info: &'a Info,
    accounting: &'static str,
}

pub(crate) fn run(args: &InfoArgs, output: &mut Output) -> anyhow::Result<()> {
    let model = &args.model.model()?;
    let config = &victor::read_config(model, &FetchBars::default())?;
    let info = &Info::new(config);
    if args.json {
        return output.json(&Facts {
            model: &model.model,
            config,
            info,
            accounting: ACCOUNTING,
        });
    }
    output.line(&model.model)?;
    parts(config, output)?;
    output.line("")?;
    sizes(info, args.model.dtype(), output)?;
    output.line("")?;
    costs(info, output)?;
    if config.picture.is_none() {
        return Ok(());
    }
    output.line("")?;
    output.line(ACCOUNTING)
}

fn parts(config: &VlmConfig, output: &mut Output) -> anyhow::Result<()> {
    let text = &config.text_config;
    match &config.picture {
        Some(picture) => vision(picture, output)?,
        None => output.line("  vision     none: text only")?,
    }
    output.line(format_args!(
        "  decoder    {} layers, width {}, {} heads of {} ({} for keys), vocabulary {}, context {}",
        text.num_hidden_layers,
        text.hidden_size,
        text.num_attention_heads,
        text.head_dim,
        text.num_key_value_heads,
        text.vocab_size,
        text.max_position_embeddings
    ))?;
    match &config.visual_token_reduction {
        None if config.picture.is_none() => Ok(()),
        None => output.line("  reduction  none: every layer sees all visual tokens"),
        Some(reduction) => {
            let drop = match config.drop_layer() {
                Some(layer) => format!("visual tokens absent from layer {layer} on"),
                None => "no visual token dropped".into(),
            };
            let positions = match reduction.positions {
                PositionMode::Original => "positions kept",
                PositionMode::Compact => "positions closed up",
            };
            let registers = reduction.num_registers;
            output.line(format_args!(
                "  reduction  {registers} registers a picture, {drop}, {positions}"
            ))
        }
    }
}

fn vision(picture: &PictureConfig, output: &mut Output) -> anyhow::Result<()> {
    let vision = &picture.vision_config;
    output.line(format_args!(
        "  vision     {:?}, {} of {} layers, width {}, {} × {} pixels in patches of {}",
        vision.family,
        picture.vision_layers(),
        vision.num_hidden_layers,
        vision.hidden_size,
        vision.image_size,
        vision.image_size,
        vision.patch_size
    ))?;
    let Some(pinpoints) = &picture.image_grid_pinpoints else {
        return Ok(());
    };
    let sizes = pinpoints
        .iter()
        .map(|[height, width]| format!("{height} × {width}"));
    output.line(format_args!(
        "  tiles      a thumbnail and tiles of one of {} (height × width)",
        sizes.collect::<Vec<_>>().join(", ")
    ))
}

fn sizes(info: &Info, dtype: WeightDtype, output: &mut Output) -> anyhow::Result<()> {
    let row = |name: &str, value: String| format!("  {name:<34}{value:>16}");
    output.line("parameters")?;
    for part in &info.parts {
        output.line(row(part.name, count_of(part.parameters)))?;
    }
    output.line(row("all", count_of(info.parameters)))?;
    let extra = count_of(info.reduction_parameters);
    output.line(row("extra for the reduction", extra))?;
    if matches!(dtype, WeightDtype::Auto | WeightDtype::F32) {
        output.line(row("memory in 32-bit floats", bytes(info.weight_bytes)))?;
    }
    if dtype != WeightDtype::F32 {
        let half = bytes(info.half_weight_bytes);
        output.line(row("memory, matrices in 16-bit floats", half))?;
    }
    Ok(())
}

fn costs(info: &Info, output: &mut Output) -> anyhow::Result<()> {
    let (with, without) = (&info.reduced, &info.unreduced);
    output.line(format_args!(
        "{:<42}{:>12}{:>12}{:>9}",
        prompt(info),
        "as it is",
        "no drop",
        "ratio"
    ))?;
    let mut row = |name: &str, with: f64, without: f64, show: fn(f64) -> String| {
        let ratio = with / without;
        output.line(format_args!(
            "  {name:<40}{:>12}{:>12}{ratio:>9.3}",
            show(with),
            show(without)
        ))
    };
    let whole = |value: f64| count_of(value as usize);
    if info.visual_tokens > 0 {
        row(
            "image rows, final",
            with.final_tokens as f64,
            without.final_tokens as f64,
            whole,
        )?;
        row(
            "image rows, mean",
            with.mean_tokens,
            without.mean_tokens,
            |value| format!("{value:.1}"),
        )?;
    }
    row(
        "prefill, FastV's 4nd²+2n²d+2ndm",
        with.prefill_macs_fastv,
        without.prefill_macs_fastv,
        macs,
    )?;
    row(
        "prefill, keys grouped and gate counted",
        with.prefill_macs_gated,
        without.prefill_macs_gated,
        macs,
    )?;
    row(
        "cache in 32-bit floats",
        with.kv_bytes as f64,
        without.kv_bytes as f64,
        |value| bytes(value as usize),
    )
}

/// The prompt whose costs are shown.
fn prompt(info: &Info) -> String {
    match info.visual_tokens {
        0 => format!("{} text tokens", info.text_tokens),
        tokens => format!(
            "one picture ({tokens} tokens), {} text tokens",
            info.text_tokens
        ),
    }
}

fn count_of(count: usize) -> String {
    HumanCount(count as u64).to_string()
}

fn bytes(count: usize) -> String {
    DecimalBytes(count as u64).to_string()
}

/// Multiply–accumulates in a unit that leaves one to three digits before the point.
fn macs(count: f64) -> String {
    let units = [(1e12, "TMAC"), (1e9, "GMAC"), (1e6, "MMAC"), (1e3, "kMAC")];
    let unit = units.into_iter().find(|(size, _)| count >= *size);
    let (size, name) = unit.unwrap_or((1.0, "MAC"));
    format!("{:.2} {name}", count / size)
}
