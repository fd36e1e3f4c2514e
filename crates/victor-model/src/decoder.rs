//! A Llama-family decoder: Llama, Vicuna, Mistral and Qwen2 by config.
//!
//! Source: transformers `modeling_llama.py` and `modeling_qwen2.py`. The rows to compute, their
//! positions and the mask are inputs, so any range of layers can run on any subset of the tokens.

use crate::VictorBackend;
use crate::cache::KvCache;
use crate::config::TextConfig;
use crate::layers::{Embedding, Linear, RmsNorm};
use crate::rope::Rotary;
use burn::module::Module;
use burn::prelude::*;
use std::ops::Range;

/// Embedding, layers, final norm and head.
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    embed_tokens: Embedding<B>,
    layers: Vec<DecoderLayer<B>>,
    norm: RmsNorm<B>,
    /// `None` when the head is the embedding.
    lm_head: Option<Linear<B>>,
}

/// The rows a range of layers computes.
#[derive(Clone, Debug)]
pub(crate) struct Rows<B: Backend> {
    pub(crate) rotary: Rotary<B>,
    /// `[batch, 1, rows, cached + rows]`, `true` = hidden.
    pub(crate) mask: Option<Tensor<B, 4, Bool>>,
}

impl<B: VictorBackend> Decoder<B> {
    /// A decoder with random weights.
    pub fn init(config: &TextConfig, device: &B::Device) -> Self {
        let TextConfig {
            hidden_size,
            vocab_size,
            num_hidden_layers,
            ..
        } = *config;
        Self {
            embed_tokens: Embedding::init(vocab_size, hidden_size, device),
            layers: (0..num_hidden_layers)
                .map(|_| DecoderLayer::init(config, device))
                .collect(),
            norm: RmsNorm::init(hidden_size, config.rms_norm_eps, device),
            lm_head: (!config.tie_word_embeddings)
                .then(|| Linear::init(hidden_size, vocab_size, false, device)),
        }
    }

    /// The layers in order.
    pub fn layers(&self) -> &[DecoderLayer<B>] {
        &self.layers
    }

    /// Embeddings of token ids.
    ///
    /// # Shapes
    /// - ids: `[rows]`
    /// - output: `[rows, hidden]`
    pub fn embed(&self, ids: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        self.embed_tokens.forward(ids)
    }

    /// Runs a range of layers.
    ///
    /// # Shapes
    /// - hidden, output: `[batch, rows, hidden]`
    pub(crate) fn run(
        &self,
        mut hidden: Tensor<B, 3>,
        layers: Range<usize>,
        rows: &Rows<B>,
        mut cache: Option<&mut KvCache<B>>,
    ) -> Tensor<B, 3> {
        for index in layers {
            hidden = self.layers[index].forward(hidden, index, rows, cache.as_deref_mut());
        }
        hidden
    }

    /// The final norm and the head.
    ///
    /// # Shapes
    /// - hidden: `[batch, rows, hidden]`
    /// - output: `[batch, rows, vocab]`
    pub fn logits(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let hidden = self.norm.forward(hidden);
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => B::dense(hidden, self.embed_tokens.weight.val(), None),
        }
    }
}

/// Attention and feed-forward, each behind a norm and around a residual.
#[derive(Module, Debug)]
pub struct DecoderLayer<B: Backend> {
    input_layernorm: RmsNorm<B>,
    self_attn: SelfAttention<B>,
    post_attention_layernorm: RmsNorm<B>,
    mlp: SwiGluMlp<B>,
}

impl<B: VictorBackend> DecoderLayer<B> {
    fn init(config: &TextConfig, device: &B::Device) -> Self {
        let norm = || RmsNorm::init(config.hidden_size, config.rms_norm_eps, device);
        Self {
            input_layernorm: norm(),
            self_attn: SelfAttention::init(config, device),
            post_attention_layernorm: norm(),
            mlp: SwiGluMlp::init(config, device),
        }
    }

    fn forward(
        &self,
        hidden: Tensor<B, 3>,
        index: usize,
        rows: &Rows<B>,
        cache: Option<&mut KvCache<B>>,
    ) -> Tensor<B, 3> {
        let normed = self.input_layernorm.forward(hidden.clone());
        let hidden = hidden + self.self_attn.forward(normed, index, rows, cache);
        let normed = self.post_attention_layernorm.forward(hidden.clone());
        hidden + self.mlp.forward(normed)
    }
}

/// Grouped-query attention with rotary positions.
#[derive(Module, Debug)]
pub struct SelfAttention<B: Backend> {
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    o_proj: Linear<B>,
    head_dim: usize,
}

impl<B: VictorBackend> SelfAttention<B> {
    fn init(config: &TextConfig, device: &B::Device) -> Self {
        let TextConfig {
            hidden_size,
            head_dim,
            qkv_bias,
            output_bias,
            ..
        } = *config;
        let queries = config.num_attention_heads * head_dim;
        let keys = config.num_key_value_heads * head_dim;
        Self {
            q_proj: Linear::init(hidden_size, queries, qkv_bias, device),
            k_proj: Linear::init(hidden_size, keys, qkv_bias, device),
            v_proj: Linear::init(hidden_size, keys, qkv_bias, device),
            o_proj: Linear::init(queries, hidden_size, output_bias, device),
            head_dim,
        }
    }

    fn forward(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        rows: &Rows<B>,
        cache: Option<&mut KvCache<B>>,
    ) -> Tensor<B, 3> {
        let Rotary { cos, sin } = rows.rotary.clone();
        let query = self.heads(self.q_proj.forward(x.clone()));
        let query = B::rotate_half(query, cos.clone(), sin.clone());
        let key = B::rotate_half(self.heads(self.k_proj.forward(x.clone())), cos, sin);
        let value = self.heads(self.v_proj.forward(x));
        let (key, value) = match cache {
            Some(cache) => cache.append(layer, key, value),
            None => (key, value),
        };
        let output = B::grouped_attention(query, key, value, rows.mask.clone(), true);
        let [batch, heads, seq, head_dim] = output.dims();
        self.o_proj.forward(
            output
                .swap_dims(1, 2)
                .reshape([batch, seq, heads * head_dim]),
        )
    }

    /// `[batch, seq, heads · head_dim]` to `[batch, heads, seq, head_dim]`.
    fn heads(&self, x: Tensor<B, 3>) -> Tensor<B, 4> {
        let [batch, seq, width] = x.dims();
        x.reshape([batch, seq, width / self.head_dim, self.head_dim])
            .swap_dims(1, 2)
    }
}

/// The gated feed-forward: `down(silu(gate(x)) · up(x))`.
#[derive(Module, Debug)]
pub struct SwiGluMlp<B: Backend> {
    gate_proj: Linear<B>,
    up_proj: Linear<B>,
    down_proj: Linear<B>,
}

impl<B: VictorBackend> SwiGluMlp<B> {
    fn init(config: &TextConfig, device: &B::Device) -> Self {
        let TextConfig {
            hidden_size,
            intermediate_size,
            mlp_bias,
            ..
        } = *config;
        Self {
            gate_proj: Linear::init(hidden_size, intermediate_size, mlp_bias, device),
            up_proj: Linear::init(hidden_size, intermediate_size, mlp_bias, device),
            down_proj: Linear::init(intermediate_size, hidden_size, mlp_bias, device),
        }
    }

    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.down_proj.forward(B::swiglu(
            self.gate_proj.forward(x.clone()),
            self.up_proj.forward(x),
        ))
    }
}
