//! What a model is made of, in Hugging Face's field names and with every default filled in.

use crate::tiles::TileGrid;
use serde::{Deserialize, Serialize};

/// A decoder, what turns pictures into its visual tokens, and how those are reduced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VlmConfig {
    /// The picture side; `None` for a decoder alone, which reads text only.
    pub picture: Option<PictureConfig>,
    /// The decoder.
    pub text_config: TextConfig,
    /// How visual tokens are reduced; `None` keeps all in every layer.
    pub visual_token_reduction: Option<ReductionConfig>,
}

impl VlmConfig {
    /// The most visual tokens one picture has; 0 for a model without a picture side.
    pub fn visual_tokens(&self) -> usize {
        self.picture
            .as_ref()
            .map_or(0, PictureConfig::visual_tokens)
    }

    /// Registers appended to each image.
    pub fn num_registers(&self) -> usize {
        self.visual_token_reduction
            .as_ref()
            .map_or(0, |reduction| reduction.num_registers)
    }

    /// The first layer without visual tokens, if any layer is.
    pub fn drop_layer(&self) -> Option<usize> {
        let reduction = self.visual_token_reduction.as_ref()?;
        (reduction.drop_layer < self.text_config.num_hidden_layers).then_some(reduction.drop_layer)
    }
}

/// The picture side: vision tower, projector, and which of the tower's numbers become visual tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PictureConfig {
    /// The vision tower.
    pub vision_config: VisionConfig,
    /// The projector.
    pub projector: ProjectorConfig,
    /// Which hidden state of the tower is projected, counted with the embeddings first; negative
    /// values count from the end (`-2` of 24 layers: the output of the 23rd).
    pub vision_feature_layer: i64,
    /// Which of its rows are projected.
    pub vision_feature_select_strategy: VisionSelect,
    /// The id that marks an image in the prompt.
    pub image_token_index: u32,
    /// LLaVA-NeXT's grid resolutions as `[height, width]` in pixels; `None` shows the tower a picture
    /// once.
    pub image_grid_pinpoints: Option<Vec<[usize; 2]>>,
}

impl PictureConfig {
    /// How many layers of the vision tower are computed: those up to the selected hidden state.
    pub fn vision_layers(&self) -> usize {
        let states = self.vision_config.num_hidden_layers as i64 + 1;
        let layer = self.vision_feature_layer;
        let index = if layer < 0 { states + layer } else { layer };
        index.clamp(0, states - 1) as usize
    }

    /// The most visual tokens one picture of the tower's own size, or of LLaVA-NeXT's, has.
    pub fn visual_tokens(&self) -> usize {
        let side = self.vision_config.image_size;
        let view = self.visual_tokens_of(side, side);
        let Some(pinpoints) = &self.image_grid_pinpoints else {
            return view;
        };
        let patches = side / self.vision_config.patch_size;
        let tiles = pinpoints.iter().map(|[height, width]| {
            TileGrid::whole(height.div_ceil(side), width.div_ceil(side)).visual_tokens(patches)
        });
        tiles.max().unwrap_or(view + 1)
    }

    /// Visual tokens of one view of `height × width` pixels.
    pub fn visual_tokens_of(&self, height: usize, width: usize) -> usize {
        let patch = self.vision_config.patch_size;
        let class = usize::from(self.vision_config.family.has_class_token());
        let rows = (height / patch) * (width / patch) + class;
        match self.vision_feature_select_strategy {
            VisionSelect::Default => rows.saturating_sub(1),
            VisionSelect::Full => rows,
        }
    }
}

/// Victor: registers appended to each image, visual tokens absent from `drop_layer` onward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReductionConfig {
    /// Registers per image, `M`.
    pub num_registers: usize,
    /// Visual tokens are absent from this layer onward, 0-based; `num_hidden_layers` never drops.
    pub drop_layer: usize,
    /// Positions in layers `drop_layer` and later.
    #[serde(default)]
    pub positions: PositionMode,
}

/// Positions of tokens after the drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PositionMode {
    /// A token keeps the position it had before the drop, in every layer.
    #[default]
    Original,
    /// Layers from `drop_layer` on number the surviving tokens without gaps.
    Compact,
}

/// Which rows of the selected hidden state are projected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VisionSelect {
    /// All but the first, which is the class token. transformers cuts the first row of a tower without
    /// a class token too, and so it is done here.
    Default,
    /// All: the class token, where there is one, and the patches.
    Full,
}

/// The family decides which parts a vision transformer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VisionFamily {
    /// CLIP: no patch bias, a norm before the first layer.
    Clip,
    /// DINOv2: patch bias, layer scale.
    Dinov2,
    /// SigLIP: patch bias, no class token.
    Siglip,
}

impl VisionFamily {
    /// Whether a class token stands before the patches.
    pub fn has_class_token(self) -> bool {
        self != VisionFamily::Siglip
    }

    pub(crate) fn has_patch_bias(self) -> bool {
        self != VisionFamily::Clip
    }

    pub(crate) fn has_pre_norm(self) -> bool {
        self == VisionFamily::Clip
    }

    pub(crate) fn has_layer_scale(self) -> bool {
        self == VisionFamily::Dinov2
    }
}

/// Activation functions of feed-forwards and projectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · Φ(x)` by the error function.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`, CLIP's.
    QuickGelu,
}

/// A pre-LN vision transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VisionConfig {
    /// Which parts it has.
    pub family: VisionFamily,
    /// Width.
    pub hidden_size: usize,
    /// Width of the feed-forward.
    pub intermediate_size: usize,
    /// Layers of the checkpoint; those after the selected one are not built.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Side of the square picture, pixels.
    pub image_size: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Colour channels.
    pub num_channels: usize,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Activation of the feed-forward.
    pub hidden_act: Activation,
}

impl VisionConfig {
    /// Patches of one picture.
    pub fn num_patches(&self) -> usize {
        let side = self.image_size / self.patch_size;
        side * side
    }

    /// Rows of the position table: the patches, and the class token where there is one.
    pub fn num_positions(&self) -> usize {
        self.num_patches() + usize::from(self.family.has_class_token())
    }
}

/// How visual features become decoder inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ProjectorConfig {
    /// One linear layer.
    Linear {
        /// Whether it adds a bias.
        bias: bool,
    },
    /// Linear, activation, linear (`mlp2x_gelu`).
    Mlp {
        /// The activation between the two.
        activation: Activation,
        /// Whether both add a bias.
        bias: bool,
    },
}

/// A Llama-family decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextConfig {
    /// Width.
    pub hidden_size: usize,
    /// Width of the gated feed-forward.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head; not always `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Rows of the embedding; may outnumber the tokenizer's entries.
    pub vocab_size: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// Whether q, k and v add a bias (Qwen2).
    pub qkv_bias: bool,
    /// Whether the attention's output projection adds a bias.
    pub output_bias: bool,
    /// Whether the feed-forward adds biases.
    pub mlp_bias: bool,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// How frequencies are stretched, if they are.
    pub scaling: Option<RopeScaling>,
}

/// Stretched rotary frequencies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "rope_type")]
pub enum RopeScaling {
    /// All frequencies divided by the factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths over `original / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths under `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length before stretching.
        original_max_position_embeddings: f64,
    },
    /// Each frequency divided by its own factor, as GGUF files give them.
    Factors {
        /// The divisors, one for each pair of a head's elements.
        factors: Vec<f64>,
    },
}
