//! Parameters of every part, counted from a config without allocating any.

use crate::config::{PictureConfig, ProjectorConfig, VlmConfig};

/// A part of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The vision tower, up to the selected layer.
    VisionTower,
    /// The projector.
    Projector,
    /// The visual registers.
    Registers,
    /// The decoder, embedding and head included.
    Decoder,
}

impl Part {
    /// All parts in the order of the computation.
    pub const ALL: [Part; 4] = [
        Part::VisionTower,
        Part::Projector,
        Part::Registers,
        Part::Decoder,
    ];

    /// The module's name, which begins the names of its tensors.
    pub fn name(self) -> &'static str {
        match self {
            Part::VisionTower => "vision_tower",
            Part::Projector => "multi_modal_projector",
            Part::Registers => "visual_registers",
            Part::Decoder => "language_model",
        }
    }
}

/// Parameters of a part.
pub fn part_parameters(config: &VlmConfig, part: Part) -> usize {
    let hidden = config.text_config.hidden_size;
    let of_picture = |count: fn(&PictureConfig, usize) -> usize| {
        config
            .picture
            .as_ref()
            .map_or(0, |picture| count(picture, hidden))
    };
    match part {
        Part::VisionTower => of_picture(vision_tower),
        Part::Projector => of_picture(projector),
        Part::Registers => config.num_registers() * hidden,
        Part::Decoder => decoder(config),
    }
}

/// Parameters in the matrices of linear layers and the embedding table, which may be kept as halves.
pub fn matrix_parameters(config: &VlmConfig) -> usize {
    let text = &config.text_config;
    let hidden = text.hidden_size;
    let picture = config.picture.as_ref().map_or(0, |picture| {
        let vision = &picture.vision_config;
        let (width, wide) = (vision.hidden_size, vision.intermediate_size);
        let projector = match picture.projector {
            ProjectorConfig::Linear { .. } => width * hidden,
            ProjectorConfig::Mlp { .. } => width * hidden + hidden * hidden,
        };
        picture.vision_layers() * (4 * width * width + 2 * width * wide) + projector
    });
    let heads = 2 * (text.num_attention_heads + text.num_key_value_heads);
    let layer = hidden * heads * text.head_dim + 3 * hidden * text.intermediate_size;
    let tables = if text.tie_word_embeddings { 1 } else { 2 };
    picture + text.num_hidden_layers * layer + tables * text.vocab_size * hidden
}

fn linear(input: usize, output: usize, bias: bool) -> usize {
    input * output + if bias { output } else { 0 }
}

/// The projector, and with it LLaVA-NeXT's end of a row.
fn projector(config: &PictureConfig, hidden: usize) -> usize {
    let vision = config.vision_config.hidden_size;
    let newline = if config.image_grid_pinpoints.is_some() {
        hidden
    } else {
        0
    };
    newline
        + match config.projector {
            ProjectorConfig::Linear { bias } => linear(vision, hidden, bias),
            ProjectorConfig::Mlp { bias, .. } => {
                linear(vision, hidden, bias) + linear(hidden, hidden, bias)
            }
        }
}

fn vision_tower(config: &PictureConfig, _hidden: usize) -> usize {
    let vision = &config.vision_config;
    let (width, wide) = (vision.hidden_size, vision.intermediate_size);
    let present = |part: bool, size: usize| if part { size } else { 0 };
    let patch = vision.num_channels * vision.patch_size * vision.patch_size;
    let embeddings = present(vision.family.has_class_token(), width)
        + linear(patch, width, vision.family.has_patch_bias())
        + vision.num_positions() * width;
    let norm = 2 * width;
    let scale = present(vision.family.has_layer_scale(), width);
    let layer = 4 * linear(width, width, true)
        + linear(width, wide, true)
        + linear(wide, width, true)
        + 2 * (norm + scale);
    embeddings + present(vision.family.has_pre_norm(), norm) + config.vision_layers() * layer
}

fn decoder(config: &VlmConfig) -> usize {
    let text = &config.text_config;
    let (width, wide) = (text.hidden_size, text.intermediate_size);
    let queries = text.num_attention_heads * text.head_dim;
    let keys = text.num_key_value_heads * text.head_dim;
    let attention = linear(width, queries, text.qkv_bias)
        + 2 * linear(width, keys, text.qkv_bias)
        + linear(queries, width, text.output_bias);
    let mlp = 2 * linear(width, wide, text.mlp_bias) + linear(wide, width, text.mlp_bias);
    let layer = attention + mlp + 2 * width;
    let head = if text.tie_word_embeddings {
        0
    } else {
        text.vocab_size * width
    };
    text.vocab_size * width + text.num_hidden_layers * layer + width + head
}
