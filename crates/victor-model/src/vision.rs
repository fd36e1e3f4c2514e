//! The vision tower: a pre-LN vision transformer that stops at the selected layer.
//!
//! Source: transformers `modeling_clip.py`, `modeling_dinov2.py` and `modeling_siglip.py`. The final
//! norm and pooling head of those models are left out: LLaVA never uses them.

use crate::VictorBackend;
use crate::config::{Activation, VisionConfig};
use crate::interpolate;
use crate::layers::{LayerNorm, Linear, constant, normal};
use burn::module::{Module, Param};
use burn::prelude::*;
use burn::tensor::activation::{gelu, gelu_approximate, sigmoid};

/// Pixels to features.
#[derive(Module, Debug)]
pub struct VisionTower<B: Backend> {
    embeddings: PatchEmbeddings<B>,
    pre_layrnorm: Option<LayerNorm<B>>,
    encoder: Encoder<B>,
}

impl<B: VictorBackend> VisionTower<B> {
    /// Builds the first `num_layers` layers of the tower `config` describes.
    pub fn init(config: &VisionConfig, num_layers: usize, device: &B::Device) -> Self {
        let norm = || LayerNorm::init(config.hidden_size, config.layer_norm_eps, device);
        Self {
            embeddings: PatchEmbeddings::init(config, device),
            pre_layrnorm: config.family.has_pre_norm().then(norm),
            encoder: Encoder {
                layers: (0..num_layers)
                    .map(|_| EncoderLayer::init(config, device))
                    .collect(),
            },
        }
    }

    /// The hidden state after the last layer that was built, class token first where there is one.
    ///
    /// # Shapes
    /// - pixel_values: `[images, channels, height, width]`, normalised; another size than the config's
    ///   resamples the position table
    /// - output: `[images, patches, hidden]`, one row more with a class token
    pub fn forward(&self, pixel_values: Tensor<B, 4>) -> Tensor<B, 3> {
        let mut hidden = self.embeddings.forward(pixel_values);
        if let Some(norm) = &self.pre_layrnorm {
            hidden = norm.forward(hidden);
        }
        for layer in &self.encoder.layers {
            hidden = layer.forward(hidden);
        }
        hidden
    }
}

#[derive(Module, Debug)]
struct PatchEmbeddings<B: Backend> {
    class_embedding: Option<Param<Tensor<B, 1>>>,
    patch_embedding: PatchProjection<B>,
    position_embedding: PositionTable<B>,
}

#[derive(Module, Debug)]
struct PatchProjection<B: Backend> {
    /// `[hidden, channels, patch, patch]`
    weight: Param<Tensor<B, 4>>,
    bias: Option<Param<Tensor<B, 1>>>,
}

#[derive(Module, Debug)]
struct PositionTable<B: Backend> {
    /// `[patches, hidden]`, one row more with a class token
    weight: Param<Tensor<B, 2>>,
}

impl<B: VictorBackend> PatchEmbeddings<B> {
    fn init(config: &VisionConfig, device: &B::Device) -> Self {
        let VisionConfig {
            hidden_size,
            num_channels,
            patch_size,
            ..
        } = *config;
        let family = config.family;
        Self {
            class_embedding: family
                .has_class_token()
                .then(|| normal([hidden_size], 0.02, device)),
            patch_embedding: PatchProjection {
                weight: normal(
                    [hidden_size, num_channels, patch_size, patch_size],
                    0.02,
                    device,
                ),
                bias: family
                    .has_patch_bias()
                    .then(|| constant([hidden_size], 0.0, device)),
            },
            position_embedding: PositionTable {
                weight: normal([config.num_positions(), hidden_size], 0.02, device),
            },
        }
    }

    fn forward(&self, pixel_values: Tensor<B, 4>) -> Tensor<B, 3> {
        let weight = self.patch_embedding.weight.val();
        let [hidden, channels, patch, _] = weight.dims();
        let [images, _, height, width] = pixel_values.dims();
        let (rows, columns) = (height / patch, width / patch);
        // A convolution whose stride is its kernel is one matrix product over the patches' pixels.
        let patches = pixel_values
            .narrow(2, 0, rows * patch)
            .narrow(3, 0, columns * patch)
            .reshape([images, channels, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([images, rows * columns, channels * patch * patch]);
        let bias = self.patch_embedding.bias.as_ref().map(Param::val);
        let weight = weight.reshape([hidden, channels * patch * patch]);
        let patches = B::dense(patches, weight, bias);
        let tokens = match &self.class_embedding {
            Some(class) => {
                let class = class.val().reshape([1, 1, hidden]);
                Tensor::cat(vec![class.expand([images, 1, hidden]), patches], 1)
            }
            None => patches,
        };
        let table = self.position_embedding.weight.val();
        let before = usize::from(self.class_embedding.is_some());
        tokens + interpolate::positions(table, before, rows, columns).unsqueeze::<3>()
    }
}

#[derive(Module, Debug)]
struct Encoder<B: Backend> {
    layers: Vec<EncoderLayer<B>>,
}

#[derive(Module, Debug)]
struct EncoderLayer<B: Backend> {
    layer_norm1: LayerNorm<B>,
    self_attn: VisionAttention<B>,
    layer_scale1: Option<LayerScale<B>>,
    layer_norm2: LayerNorm<B>,
    mlp: VisionMlp<B>,
    layer_scale2: Option<LayerScale<B>>,
}

impl<B: VictorBackend> EncoderLayer<B> {
    fn init(config: &VisionConfig, device: &B::Device) -> Self {
        let norm = || LayerNorm::init(config.hidden_size, config.layer_norm_eps, device);
        let scale = || {
            config.family.has_layer_scale().then(|| LayerScale {
                lambda1: constant([config.hidden_size], 1.0, device),
            })
        };
        Self {
            layer_norm1: norm(),
            self_attn: VisionAttention::init(config, device),
            layer_scale1: scale(),
            layer_norm2: norm(),
            mlp: VisionMlp::init(config, device),
            layer_scale2: scale(),
        }
    }

    fn forward(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let attended = self
            .self_attn
            .forward(self.layer_norm1.forward(hidden.clone()));
        let hidden = hidden + scaled(&self.layer_scale1, attended);
        let transformed = self.mlp.forward(self.layer_norm2.forward(hidden.clone()));
        hidden + scaled(&self.layer_scale2, transformed)
    }
}

#[derive(Module, Debug)]
struct LayerScale<B: Backend> {
    lambda1: Param<Tensor<B, 1>>,
}

fn scaled<B: VictorBackend>(scale: &Option<LayerScale<B>>, x: Tensor<B, 3>) -> Tensor<B, 3> {
    match scale {
        Some(scale) => x * scale.lambda1.val().unsqueeze(),
        None => x,
    }
}

#[derive(Module, Debug)]
struct VisionAttention<B: Backend> {
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    out_proj: Linear<B>,
    num_heads: usize,
}

impl<B: VictorBackend> VisionAttention<B> {
    fn init(config: &VisionConfig, device: &B::Device) -> Self {
        let linear = || Linear::init(config.hidden_size, config.hidden_size, true, device);
        Self {
            q_proj: linear(),
            k_proj: linear(),
            v_proj: linear(),
            out_proj: linear(),
            num_heads: config.num_attention_heads,
        }
    }

    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [images, seq, hidden] = x.dims();
        let head_dim = hidden / self.num_heads;
        let heads = |x: Tensor<B, 3>| -> Tensor<B, 4> {
            x.reshape([images, seq, self.num_heads, head_dim])
                .swap_dims(1, 2)
        };
        let query = heads(self.q_proj.forward(x.clone()));
        let key = heads(self.k_proj.forward(x.clone()));
        let value = heads(self.v_proj.forward(x));
        let output = B::grouped_attention(query, key, value, None, false);
        self.out_proj
            .forward(output.swap_dims(1, 2).reshape([images, seq, hidden]))
    }
}

#[derive(Module, Debug)]
struct VisionMlp<B: Backend> {
    fc1: Linear<B>,
    fc2: Linear<B>,
    #[module(skip)]
    activation: Activation,
}

impl<B: VictorBackend> VisionMlp<B> {
    fn init(config: &VisionConfig, device: &B::Device) -> Self {
        Self {
            fc1: Linear::init(config.hidden_size, config.intermediate_size, true, device),
            fc2: Linear::init(config.intermediate_size, config.hidden_size, true, device),
            activation: config.hidden_act,
        }
    }

    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.fc2
            .forward(activate(self.activation, self.fc1.forward(x)))
    }
}

/// Applies an activation elementwise.
pub(crate) fn activate<B: Backend>(activation: Activation, x: Tensor<B, 3>) -> Tensor<B, 3> {
    match activation {
        Activation::Gelu => gelu(x),
        Activation::GeluTanh => gelu_approximate(x),
        Activation::QuickGelu => x.clone() * sigmoid(x * 1.702),
    }
}
