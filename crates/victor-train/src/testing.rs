//! A tiny model and backend for tests.

use burn::backend::Autodiff;
use victor_model::{
    Activation, PictureConfig, PositionMode, ProjectorConfig, ReductionConfig, RopeConfig,
    TextConfig, VictorBackend, VisionConfig, VisionFamily, VisionSelect, Vlm, VlmConfig,
};

pub(crate) type Inner = burn_flex::Flex;
pub(crate) type Train = Autodiff<Inner>;

/// The id that marks a picture.
pub(crate) const MARKER: u32 = 31;

/// 4 visual tokens of width 8, a two-layer decoder of width 16 over 32 ids.
pub(crate) fn tiny_config(registers: usize, drop_layer: Option<usize>) -> VlmConfig {
    VlmConfig {
        picture: Some(PictureConfig {
            vision_config: VisionConfig {
                family: VisionFamily::Clip,
                hidden_size: 8,
                intermediate_size: 16,
                num_hidden_layers: 2,
                num_attention_heads: 2,
                image_size: 8,
                patch_size: 4,
                num_channels: 3,
                layer_norm_eps: 1e-5,
                hidden_act: Activation::QuickGelu,
            },
            projector: ProjectorConfig::Mlp {
                activation: Activation::Gelu,
                bias: true,
            },
            vision_feature_layer: -2,
            vision_feature_select_strategy: VisionSelect::Default,
            image_token_index: MARKER,
            image_grid_pinpoints: None,
        }),
        text_config: TextConfig {
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 4,
            vocab_size: 32,
            rms_norm_eps: 1e-5,
            rope: RopeConfig {
                theta: 10000.0,
                scaling: None,
            },
            max_position_embeddings: 64,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            tie_word_embeddings: true,
        },
        visual_token_reduction: drop_layer.map(|drop_layer| ReductionConfig {
            num_registers: registers,
            drop_layer,
            positions: PositionMode::Original,
        }),
    }
}

pub(crate) fn tiny_model<B: VictorBackend>(registers: usize, drop_layer: Option<usize>) -> Vlm<B> {
    Vlm::init(&tiny_config(registers, drop_layer), &B::Device::default())
}
