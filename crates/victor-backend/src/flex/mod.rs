//! Kernels of ours on burn-flex's tensors, forward and backward.
//!
//! burn-flex runs elementwise operations on one thread, a pass and an allocation each. Here an
//! operation is one pass over rows on all threads, and attention keeps a block of scores in cache.
//! Numbers other than f32 take the plain path.

mod attention;
mod dense;
#[cfg(test)]
mod gradient_tests;
mod rows;
mod simd;
mod widen;

use crate::gradients::{self, AttentionInputs};
use crate::{HalfWeights, VictorBackend, plain};
use attention::Attention;
use burn::prelude::*;
use burn::tensor::{DType, TensorPrimitive};
use burn_flex::{Flex, FlexDevice, FlexTensor};
use half::{bf16, f16};

impl VictorBackend for Flex {
    fn half_weights(_: &FlexDevice, _: DType) -> HalfWeights {
        HalfWeights::InPlace
    }

    fn dense(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 2>,
        bias: Option<Tensor<Self, 1>>,
    ) -> Tensor<Self, 3> {
        let [batch, seq, input] = x.dims();
        let [output, _] = weight.dims();
        let sizes = [batch * seq, input, output];
        if !all_f32([&x]) || !bias.as_ref().is_none_or(|bias| all_f32([bias])) {
            return plain::dense(x, weight, bias);
        }
        let stored = weight.dtype();
        if !matches!(stored, DType::F32 | DType::F16 | DType::BF16) {
            return plain::dense(x, weight, bias);
        }
        let (x, bias) = (values(x), bias.map(values));
        let bias = bias.as_deref();
        let weight = weight.into_primitive().tensor().to_contiguous();
        let y = match stored {
            DType::F16 => dense::dense(&x, weight.storage::<f16>(), bias, sizes),
            DType::BF16 => dense::dense(&x, weight.storage::<bf16>(), bias, sizes),
            _ => dense::dense(&x, weight.storage::<f32>(), bias, sizes),
        };
        tensor(y, [batch, seq, output])
    }

    fn grouped_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        mask: Option<Tensor<Self, 4, Bool>>,
        causal: bool,
    ) -> Tensor<Self, 4> {
        // One query row a head is bound by reading the keys; burn's kernel does that well.
        if query.dims()[2] == 1 || !all_f32([&query, &key, &value]) {
            return plain::grouped_attention(query, key, value, mask, causal);
        }
        let shape = query.dims();
        let [query, key, value] = [query, key, value].map(Strided::new);
        let mask = mask.map(|mask| mask.into_primitive());
        let attention = Attention {
            query: query.heads(),
            key: key.heads(),
            value: value.heads(),
            mask: mask.as_ref().map(FlexTensor::to_contiguous),
            causal,
        };
        head_major(attention.forward(), shape)
    }

    fn grouped_attention_backward(
        inputs: AttentionInputs<Self>,
        output: Tensor<Self, 4>,
        gradient: Tensor<Self, 4>,
    ) -> [Tensor<Self, 4>; 3] {
        let AttentionInputs {
            query,
            key,
            value,
            mask,
            causal,
        } = &inputs;
        if !all_f32([query, key, value]) || !all_f32([query, &output, &gradient]) {
            return gradients::grouped_attention(inputs, output, gradient);
        }
        let shapes = [query.dims(), key.dims(), value.dims()];
        let [query, key, value] = [query, key, value].map(|x| Strided::new(x.clone()));
        let [output, gradient] = [output, gradient].map(Strided::new);
        let attention = Attention {
            query: query.heads(),
            key: key.heads(),
            value: value.heads(),
            mask: mask
                .clone()
                .map(|mask| mask.into_primitive().to_contiguous()),
            causal: *causal,
        };
        let [by_query, by_key, by_value] = attention.backward(&output.heads(), &gradient.heads());
        let [query, key, value] = shapes;
        [
            head_major(by_query, query),
            head_major(by_key, key),
            head_major(by_value, value),
        ]
    }

    fn rms_norm(x: Tensor<Self, 3>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 3> {
        if !all_f32([&x]) || !all_f32([&weight]) {
            return plain::rms_norm(x, weight, epsilon);
        }
        let shape = x.dims();
        let output = rows::rms_norm(&values(x), &values(weight), epsilon as f32);
        tensor(output, shape)
    }

    fn rms_norm_backward(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 1>,
        epsilon: f64,
        gradient: Tensor<Self, 3>,
    ) -> (Tensor<Self, 3>, Tensor<Self, 1>) {
        if !all_f32([&x, &gradient]) || !all_f32([&weight]) {
            return gradients::rms_norm(x, weight, epsilon, gradient);
        }
        let (shape, width) = (x.dims(), weight.dims());
        let (by_x, by_weight) = rows::rms_norm_backward(
            &values(x),
            &values(weight),
            epsilon as f32,
            &values(gradient),
        );
        (tensor(by_x, shape), tensor(by_weight, width))
    }

    fn rotate_half(
        x: Tensor<Self, 4>,
        cos: Tensor<Self, 4>,
        sin: Tensor<Self, 4>,
    ) -> Tensor<Self, 4> {
        if !all_f32([&x, &cos, &sin]) {
            return plain::rotate_half(x, cos, sin);
        }
        let [batch, heads, seq, head_dim] = x.dims();
        // In the order projections leave heads in memory, so that nothing is copied before or after.
        let x = values(x.swap_dims(1, 2));
        let output = rows::rotate_half(&x, [heads, head_dim], &values(cos), &values(sin));
        tensor(output, [batch, seq, heads, head_dim]).swap_dims(1, 2)
    }

    fn swiglu(gate: Tensor<Self, 3>, up: Tensor<Self, 3>) -> Tensor<Self, 3> {
        if !all_f32([&gate, &up]) {
            return plain::swiglu(gate, up);
        }
        let shape = gate.dims();
        tensor(rows::swiglu(&values(gate), &values(up)), shape)
    }

    fn swiglu_backward(
        gate: Tensor<Self, 3>,
        up: Tensor<Self, 3>,
        gradient: Tensor<Self, 3>,
    ) -> (Tensor<Self, 3>, Tensor<Self, 3>) {
        if !all_f32([&gate, &up, &gradient]) {
            return gradients::swiglu(gate, up, gradient);
        }
        let shape = gate.dims();
        let (by_gate, by_up) = rows::swiglu_backward(&values(gate), &values(up), &values(gradient));
        (tensor(by_gate, shape), tensor(by_up, shape))
    }
}

fn all_f32<const D: usize, const N: usize>(tensors: [&Tensor<Flex, D>; N]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

/// A tensor's numbers in their order, copied only if they lie otherwise in memory.
struct Values(FlexTensor);

fn values<const D: usize>(tensor: Tensor<Flex, D>) -> Values {
    Values(tensor.into_primitive().tensor().to_contiguous())
}

impl std::ops::Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.storage()
    }
}

/// A new tensor of these numbers.
fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<Flex, D> {
    Tensor::from_primitive(TensorPrimitive::Float(FlexTensor::from_data(
        TensorData::new(values, shape),
    )))
}

/// A tensor `[batch, heads, seq, head_dim]` of numbers that lie as `[batch, seq, heads, head_dim]`.
fn head_major(values: Vec<f32>, [batch, heads, seq, head_dim]: [usize; 4]) -> Tensor<Flex, 4> {
    tensor(values, [batch, seq, heads, head_dim]).swap_dims(1, 2)
}

/// A tensor `[batch, heads, seq, head_dim]` as it lies in memory.
struct Strided(FlexTensor);

impl Strided {
    fn new(tensor: Tensor<Flex, 4>) -> Self {
        let tensor = tensor.into_primitive().tensor();
        let is_plain = tensor.layout().strides().iter().all(|stride| *stride >= 0);
        Self(if is_plain {
            tensor
        } else {
            tensor.to_contiguous()
        })
    }

    fn heads(&self) -> attention::Heads<'_> {
        let layout = self.0.layout();
        let shape = layout.shape();
        let size = |axis: usize| shape[axis];
        let stride = |axis: usize| layout.strides()[axis] as usize;
        attention::Heads {
            numbers: &self.0.storage::<f32>()[layout.start_offset()..],
            shape: [0, 1, 2, 3].map(size),
            strides: [0, 1, 2, 3].map(stride),
        }
    }
}
