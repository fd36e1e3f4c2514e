//! Linear, norms and embedding, with weights as checkpoints store them.
//!
//! burn-nn keeps `[in, out]` and calls a norm's weight `gamma`; here a tensor has the name and shape
//! it has in the file, so loading is a copy and a memory map can be used in place.

use crate::VictorBackend;
use burn::module::{Module, Param, ParamId};
use burn::prelude::*;
use burn::tensor::{DType, Distribution, TensorPrimitive};
use victor_backend::plain::as_dtype;

/// `x · weightᵀ + bias`.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `[out, in]`; f32, or f16 or bf16 where the backend takes them
    pub weight: Param<Tensor<B, 2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<B, 1>>>,
}

impl<B: VictorBackend> Linear<B> {
    /// Normally distributed weights of deviation `1 / sqrt(in)`, zero bias.
    pub fn init(input: usize, output: usize, bias: bool, device: &B::Device) -> Self {
        Self {
            weight: normal([output, input], 1.0 / (input as f64).sqrt(), device),
            bias: bias.then(|| constant([output], 0.0, device)),
        }
    }

    /// # Shapes
    /// - x: `[batch, seq, in]`
    /// - output: `[batch, seq, out]`
    pub fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        B::dense(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }
}

/// Layer normalisation over the last axis.
#[derive(Module, Debug)]
pub struct LayerNorm<B: Backend> {
    /// `[hidden]`
    pub weight: Param<Tensor<B, 1>>,
    /// `[hidden]`
    pub bias: Param<Tensor<B, 1>>,
    epsilon: f64,
}

impl<B: VictorBackend> LayerNorm<B> {
    /// Weight one, bias zero.
    pub fn init(hidden: usize, epsilon: f64, device: &B::Device) -> Self {
        Self {
            weight: constant([hidden], 1.0, device),
            bias: constant([hidden], 0.0, device),
            epsilon,
        }
    }

    /// # Shapes
    /// - x, output: `[batch, seq, hidden]`
    pub fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        Tensor::from_primitive(TensorPrimitive::Float(B::layer_norm(
            x.into_primitive().tensor(),
            self.weight.val().into_primitive().tensor(),
            Some(self.bias.val().into_primitive().tensor()),
            self.epsilon,
        )))
    }
}

/// Root-mean-square normalisation over the last axis.
#[derive(Module, Debug)]
pub struct RmsNorm<B: Backend> {
    /// `[hidden]`
    pub weight: Param<Tensor<B, 1>>,
    epsilon: f64,
}

impl<B: VictorBackend> RmsNorm<B> {
    /// Weight one.
    pub fn init(hidden: usize, epsilon: f64, device: &B::Device) -> Self {
        Self {
            weight: constant([hidden], 1.0, device),
            epsilon,
        }
    }

    /// # Shapes
    /// - x, output: `[batch, seq, hidden]`
    pub fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        B::rms_norm(x, self.weight.val(), self.epsilon)
    }
}

/// A table of vectors.
#[derive(Module, Debug)]
pub struct Embedding<B: Backend> {
    /// `[entries, hidden]`; f32, or f16 or bf16 where the backend takes them
    pub weight: Param<Tensor<B, 2>>,
}

impl<B: VictorBackend> Embedding<B> {
    /// Normally distributed entries of deviation 0.02.
    pub fn init(entries: usize, hidden: usize, device: &B::Device) -> Self {
        Self {
            weight: normal([entries, hidden], 0.02, device),
        }
    }

    /// The vectors of `ids`, in f32 whatever the table is kept in.
    ///
    /// # Shapes
    /// - ids: `[rows]`
    /// - output: `[rows, hidden]`
    pub fn forward(&self, ids: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        // Selected first, so that only rows in use are widened.
        as_dtype(self.weight.val().select(0, ids), DType::F32)
    }
}

/// A parameter drawn from a normal distribution when it is first used; loading never draws it.
pub(crate) fn normal<B: Backend, const D: usize>(
    shape: [usize; D],
    deviation: f64,
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    Param::uninitialized(
        ParamId::new(),
        move |device: &B::Device, require_grad| {
            Tensor::random(shape, Distribution::Normal(0.0, deviation), device)
                .set_require_grad(require_grad)
        },
        device.clone(),
        true,
        shape.into(),
    )
}

/// A parameter filled with one value when it is first used.
pub(crate) fn constant<B: Backend, const D: usize>(
    shape: [usize; D],
    value: f64,
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    Param::uninitialized(
        ParamId::new(),
        move |device: &B::Device, require_grad| {
            Tensor::full(shape, value, device).set_require_grad(require_grad)
        },
        device.clone(),
        true,
        shape.into(),
    )
}
