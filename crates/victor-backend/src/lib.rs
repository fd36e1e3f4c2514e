//! Which burn backends the engine runs on, how they are named, and the operations it may override.
//!
//! Models are generic over [`VictorBackend`]; [`Device`] names a backend and runs a [`DeviceTask`]
//! on it. `device.rs` is where cargo features decide what is compiled in.

mod autodiff;
mod device;
mod error;
pub mod gradients;
pub mod plain;

use burn::prelude::*;
use burn::tensor::DType;
pub use device::{Device, DeviceTask};
pub use error::DeviceError;

/// What a device does with the matrices of a model that are kept as f16 or bf16.
///
/// Activations are f32 either way, and widening a half is exact, so results are those of the same
/// numbers kept as f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfWeights {
    /// They are multiplied where they lie, widened on the way into registers.
    InPlace,
    /// Every product widens its whole matrix first: memory is saved, time is lost.
    Widened,
    /// They cannot be kept.
    Unsupported,
}

/// A burn backend with the operations Victor may compute faster than plain burn does.
///
/// Every method defaults to its statement in [`plain`], which is also the reference in tests: an
/// override must agree with it.
pub trait VictorBackend: Backend {
    /// How [`dense`](Self::dense) on `device` takes weights of `dtype`, f16 or bf16.
    fn half_weights(device: &Self::Device, dtype: DType) -> HalfWeights {
        if Self::supports_dtype(device, dtype) {
            HalfWeights::Widened
        } else {
            HalfWeights::Unsupported
        }
    }

    /// `x · weightᵀ + bias`.
    ///
    /// # Shapes
    /// - x: `[batch, seq, in]`
    /// - weight: `[out, in]`, as checkpoints store it; of x's number type, or f16 or bf16
    /// - bias: `[out]`
    /// - output: `[batch, seq, out]`
    fn dense(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 2>,
        bias: Option<Tensor<Self, 1>>,
    ) -> Tensor<Self, 3> {
        plain::dense(x, weight, bias)
    }

    /// Scaled dot-product attention with grouped key and value heads; scores are never returned.
    ///
    /// # Shapes
    /// - query: `[batch, heads, seq_q, head_dim]`
    /// - key, value: `[batch, kv_heads, seq_k, head_dim]`, where `kv_heads` divides `heads`
    /// - mask: `[batch, 1, seq_q, seq_k]`, `true` = hidden
    /// - output: `[batch, heads, seq_q, head_dim]`
    ///
    /// `causal` hides keys to the right of a query, aligned at the bottom right.
    fn grouped_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        mask: Option<Tensor<Self, 4, Bool>>,
        causal: bool,
    ) -> Tensor<Self, 4> {
        plain::grouped_attention(query, key, value, mask, causal)
    }

    /// `x / sqrt(mean(x²) + epsilon) · weight` over the last axis.
    ///
    /// # Shapes
    /// - x, output: `[batch, seq, hidden]`
    /// - weight: `[hidden]`
    fn rms_norm(x: Tensor<Self, 3>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 3> {
        plain::rms_norm(x, weight, epsilon)
    }

    /// Rotates the two halves of every head (the Hugging Face layout of RoPE).
    ///
    /// # Shapes
    /// - x, output: `[batch, heads, seq, head_dim]`
    /// - cos, sin: `[batch, 1, seq, head_dim / 2]`
    fn rotate_half(
        x: Tensor<Self, 4>,
        cos: Tensor<Self, 4>,
        sin: Tensor<Self, 4>,
    ) -> Tensor<Self, 4> {
        plain::rotate_half(x, cos, sin)
    }

    /// `silu(gate) · up`, the gated feed-forward of Llama.
    ///
    /// # Shapes
    /// - gate, up, output: `[batch, seq, intermediate]`
    fn swiglu(gate: Tensor<Self, 3>, up: Tensor<Self, 3>) -> Tensor<Self, 3> {
        plain::swiglu(gate, up)
    }

    /// The gradients of [`grouped_attention`](Self::grouped_attention) by query, key and value.
    ///
    /// # Shapes
    /// - inputs: as of the forward pass
    /// - output, gradient: `[batch, heads, seq_q, head_dim]`, what it returned and the gradient by that
    /// - results: as query, key and value
    fn grouped_attention_backward(
        inputs: gradients::AttentionInputs<Self>,
        output: Tensor<Self, 4>,
        gradient: Tensor<Self, 4>,
    ) -> [Tensor<Self, 4>; 3] {
        gradients::grouped_attention(inputs, output, gradient)
    }

    /// The gradients of [`rms_norm`](Self::rms_norm) by x and weight.
    ///
    /// # Shapes
    /// - as of the forward pass; gradient as its output
    fn rms_norm_backward(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 1>,
        epsilon: f64,
        gradient: Tensor<Self, 3>,
    ) -> (Tensor<Self, 3>, Tensor<Self, 1>) {
        gradients::rms_norm(x, weight, epsilon, gradient)
    }

    /// The gradients of [`swiglu`](Self::swiglu) by gate and up.
    ///
    /// # Shapes
    /// - all: `[batch, seq, intermediate]`
    fn swiglu_backward(
        gate: Tensor<Self, 3>,
        up: Tensor<Self, 3>,
        gradient: Tensor<Self, 3>,
    ) -> (Tensor<Self, 3>, Tensor<Self, 3>) {
        gradients::swiglu(gate, up, gradient)
    }
}
