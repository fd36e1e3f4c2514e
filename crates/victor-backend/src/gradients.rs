//! The gradient of every operation of [`VictorBackend`](crate::VictorBackend), stated in plain burn.
//!
//! Only `Autodiff` calls them. They keep what went in and came out of an operation and recompute the
//! rest, so that no score or probability matrix outlives its layer.

use crate::plain::{repeat_heads, right_of};
use burn::prelude::*;
use burn::tensor::activation::{sigmoid, softmax};

/// What went into [`VictorBackend::grouped_attention`](crate::VictorBackend::grouped_attention).
#[derive(Clone, Debug)]
pub struct AttentionInputs<B: Backend> {
    /// `[batch, heads, seq_q, head_dim]`
    pub query: Tensor<B, 4>,
    /// `[batch, kv_heads, seq_k, head_dim]`
    pub key: Tensor<B, 4>,
    /// `[batch, kv_heads, seq_k, head_dim]`
    pub value: Tensor<B, 4>,
    /// `[batch, 1, seq_q, seq_k]`, `true` = hidden
    pub mask: Option<Tensor<B, 4, Bool>>,
    /// Whether keys to the right of a query are hidden, aligned at the bottom right.
    pub causal: bool,
}

/// See [`VictorBackend::grouped_attention_backward`](crate::VictorBackend::grouped_attention_backward).
pub fn grouped_attention<B: Backend>(
    inputs: AttentionInputs<B>,
    output: Tensor<B, 4>,
    gradient: Tensor<B, 4>,
) -> [Tensor<B, 4>; 3] {
    let AttentionInputs {
        query,
        key,
        value,
        mask,
        causal,
    } = inputs;
    let [batch, heads, seq_q, head_dim] = query.dims();
    let [_, kv_heads, seq_k, _] = key.dims();
    let groups = heads / kv_heads;
    let (key, value) = (repeat_heads(key, groups), repeat_heads(value, groups));
    let scale = 1.0 / (head_dim as f64).sqrt();

    let mut scores = query.clone().matmul(key.clone().swap_dims(2, 3)) * scale;
    let all = [batch, heads, seq_q, seq_k];
    if let Some(mask) = mask {
        scores = scores.mask_fill(mask.expand(all), f32::NEG_INFINITY);
    }
    if causal {
        let right = right_of(seq_q, seq_k, &scores.device()).expand(all);
        scores = scores.mask_fill(right, f32::NEG_INFINITY);
    }
    let probabilities = softmax(scores, 3);

    let by_value = probabilities
        .clone()
        .swap_dims(2, 3)
        .matmul(gradient.clone());
    let by_probabilities = gradient.clone().matmul(value.swap_dims(2, 3));
    let row = (gradient * output).sum_dim(3);
    let by_scores = probabilities * (by_probabilities - row) * scale;
    let by_query = by_scores.clone().matmul(key);
    let by_key = by_scores.swap_dims(2, 3).matmul(query);
    let grouped = |x: Tensor<B, 4>| {
        if groups == 1 {
            return x;
        }
        x.reshape([batch, kv_heads, groups, seq_k * head_dim])
            .sum_dim(2)
            .reshape([batch, kv_heads, seq_k, head_dim])
    };
    [by_query, grouped(by_key), grouped(by_value)]
}

/// See [`VictorBackend::rms_norm_backward`](crate::VictorBackend::rms_norm_backward).
pub fn rms_norm<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 1>,
    epsilon: f64,
    gradient: Tensor<B, 3>,
) -> (Tensor<B, 3>, Tensor<B, 1>) {
    // Divided, not multiplied by `recip`: ndarray's is an estimate of 14 bits.
    let scale = (x.clone().square().mean_dim(2) + epsilon).sqrt();
    let normed = x / scale.clone();
    let by_weight = (gradient.clone() * normed.clone())
        .sum_dim(0)
        .sum_dim(1)
        .flatten(0, 2);
    let weighted = gradient * weight.unsqueeze();
    let along = (weighted.clone() * normed.clone()).mean_dim(2);
    ((weighted - normed * along) / scale, by_weight)
}

/// See [`VictorBackend::swiglu_backward`](crate::VictorBackend::swiglu_backward).
pub fn swiglu<B: Backend>(
    gate: Tensor<B, 3>,
    up: Tensor<B, 3>,
    gradient: Tensor<B, 3>,
) -> (Tensor<B, 3>, Tensor<B, 3>) {
    let open = sigmoid(gate.clone());
    let silu = gate.clone() * open.clone();
    // d silu = σ(g) (1 + g (1 − σ(g))) = σ(g) + silu (1 − σ(g))
    let slope = open.clone() + silu.clone() * (open.neg() + 1.0);
    (gradient.clone() * up * slope, gradient * silu)
}
