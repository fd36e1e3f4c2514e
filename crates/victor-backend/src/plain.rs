//! Every operation of [`VictorBackend`](crate::VictorBackend) stated in plain burn.

use burn::prelude::*;
use burn::tensor::DType;
use burn::tensor::activation::silu;
use burn::tensor::ops::AttentionModuleOptions;

/// See [`VictorBackend::dense`](crate::VictorBackend::dense).
pub fn dense<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 3> {
    let [batch, seq, input] = x.dims();
    let [output, _] = weight.dims();
    let weight = as_dtype(weight, x.dtype());
    // One matrix product over all rows: a batched product would pack the weight once a sample.
    let y = x.reshape([batch * seq, input]).matmul(weight.transpose());
    let y = match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    };
    y.reshape([batch, seq, output])
}

/// The same numbers as another type; itself if it is of that type.
pub fn as_dtype<B: Backend, const D: usize>(x: Tensor<B, D>, dtype: DType) -> Tensor<B, D> {
    if x.dtype() == dtype {
        return x;
    }
    x.cast(dtype)
}

/// See [`VictorBackend::grouped_attention`](crate::VictorBackend::grouped_attention).
///
/// # Panics
/// If the number of key heads does not divide the number of query heads.
pub fn grouped_attention<B: Backend>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    mask: Option<Tensor<B, 4, Bool>>,
    causal: bool,
) -> Tensor<B, 4> {
    let [batch, heads, seq_q, head_dim] = query.dims();
    let [_, kv_heads, seq_k, _] = key.dims();
    assert_eq!(
        heads % kv_heads,
        0,
        "{kv_heads} key heads do not divide {heads} query heads"
    );
    let groups = heads / kv_heads;
    if groups > 1 && seq_q == 1 {
        // One query row a head: the heads of a group are rows over the same keys, nothing is copied.
        let query = query.reshape([batch, kv_heads, groups, head_dim]);
        let mask = mask.map(|mask| mask.expand([batch, kv_heads, groups, seq_k]));
        let output = fused(query, key, value, mask, false);
        return output.reshape([batch, heads, 1, head_dim]);
    }
    let all = [batch, heads, seq_q, seq_k];
    let mut mask = mask.map(|mask| mask.expand(all));
    // Behind a cache the mask says what is to the right: CubeCL's flash kernels align causality at the
    // top left. A single row has nothing to its right.
    let behind_cache = seq_k > seq_q;
    if causal && behind_cache && seq_q > 1 {
        let right = right_of(seq_q, seq_k, &query.device()).expand(all);
        mask = Some(match mask {
            Some(mask) => mask.bool_or(right),
            None => right,
        });
    }
    fused(
        query,
        repeat_heads(key, groups),
        repeat_heads(value, groups),
        mask,
        causal && !behind_cache,
    )
}

/// Which keys are to the right of a query when the last query stands at the last key, `true` = it is.
///
/// # Shapes
/// - output: `[1, 1, seq_q, seq_k]`
pub(crate) fn right_of<B: Backend>(
    seq_q: usize,
    seq_k: usize,
    device: &B::Device,
) -> Tensor<B, 4, Bool> {
    let offset = seq_k as i64 - seq_q as i64;
    Tensor::<B, 2, Bool>::tril_mask([seq_q, seq_k], offset, device).reshape([1, 1, seq_q, seq_k])
}

/// Repeats every key or value head for the query heads of its group.
///
/// # Shapes
/// - x: `[batch, kv_heads, seq, head_dim]`
/// - output: `[batch, kv_heads · groups, seq, head_dim]`
pub fn repeat_heads<B: Backend>(x: Tensor<B, 4>, groups: usize) -> Tensor<B, 4> {
    if groups == 1 {
        return x;
    }
    let [batch, kv_heads, seq, head_dim] = x.dims();
    x.unsqueeze_dim::<5>(2)
        .expand([batch, kv_heads, groups, seq, head_dim])
        .reshape([batch, kv_heads * groups, seq, head_dim])
}

fn fused<B: Backend>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    mask: Option<Tensor<B, 4, Bool>>,
    causal: bool,
) -> Tensor<B, 4> {
    let options = AttentionModuleOptions {
        is_causal: causal,
        ..Default::default()
    };
    burn::tensor::module::attention(query, key, value, mask, None, options)
}

/// See [`VictorBackend::rms_norm`](crate::VictorBackend::rms_norm).
pub fn rms_norm<B: Backend>(x: Tensor<B, 3>, weight: Tensor<B, 1>, epsilon: f64) -> Tensor<B, 3> {
    let variance = x.clone().square().mean_dim(2);
    // Divided, not multiplied by `recip`: ndarray's is an estimate of 14 bits.
    x / (variance + epsilon).sqrt() * weight.unsqueeze()
}

/// See [`VictorBackend::rotate_half`](crate::VictorBackend::rotate_half).
pub fn rotate_half<B: Backend>(
    x: Tensor<B, 4>,
    cos: Tensor<B, 4>,
    sin: Tensor<B, 4>,
) -> Tensor<B, 4> {
    let half = x.dims()[3] / 2;
    let first = x.clone().narrow(3, 0, half);
    let second = x.narrow(3, half, half);
    let rotated_first = first.clone() * cos.clone() - second.clone() * sin.clone();
    let rotated_second = second * cos + first * sin;
    Tensor::cat(vec![rotated_first, rotated_second], 3)
}

/// See [`VictorBackend::swiglu`](crate::VictorBackend::swiglu).
pub fn swiglu<B: Backend>(gate: Tensor<B, 3>, up: Tensor<B, 3>) -> Tensor<B, 3> {
    silu(gate) * up
}
