//! Differentiable backends: each operation is one node that keeps its inputs and calls the backend's
//! own gradient, where plain burn would keep every intermediate result.

use crate::gradients::AttentionInputs;
use crate::{HalfWeights, VictorBackend};
use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::prelude::*;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, TensorPrimitive};

impl<B: VictorBackend, C: CheckpointStrategy> VictorBackend for Autodiff<B, C> {
    /// Never: an optimiser's steps are smaller than the spacing of halves.
    fn half_weights(_: &Self::Device, _: DType) -> HalfWeights {
        HalfWeights::Unsupported
    }

    fn dense(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 2>,
        bias: Option<Tensor<Self, 1>>,
    ) -> Tensor<Self, 3> {
        let (x, weight) = (node(x), node(weight));
        let (x_inner, weight_inner) = (inner(&x), inner(&weight));
        let Some(bias) = bias else {
            let output = B::dense(x_inner.clone(), weight_inner.clone(), None);
            return record::<B, C, _, 2, 3>(Dense, [&x, &weight], output, |tracked| DenseState {
                // Each is needed for the gradient by the other.
                x: tracked[1].then_some(x_inner),
                weight: tracked[0].then_some(weight_inner),
            });
        };
        let bias = node(bias);
        let output = B::dense(x_inner.clone(), weight_inner.clone(), Some(inner(&bias)));
        let parents = [&x, &weight, &bias];
        record::<B, C, _, 3, 3>(Dense, parents, output, |tracked| DenseState {
            x: tracked[1].then_some(x_inner),
            weight: tracked[0].then_some(weight_inner),
        })
    }

    fn grouped_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        mask: Option<Tensor<Self, 4, Bool>>,
        causal: bool,
    ) -> Tensor<Self, 4> {
        let parents = [node(query), node(key), node(value)];
        let [query, key, value] = [0, 1, 2].map(|i| inner::<B, 4>(&parents[i]));
        let mask = mask.map(|mask| Tensor::from_primitive(mask.into_primitive()));
        let inputs = AttentionInputs {
            query: query.clone(),
            key: key.clone(),
            value: value.clone(),
            mask: mask.clone(),
            causal,
        };
        let output = B::grouped_attention(query, key, value, mask, causal);
        let state = (inputs, output.clone());
        let parents = parents.each_ref();
        record::<B, C, _, 3, 4>(Attention, parents, output, |_| state)
    }

    fn rms_norm(x: Tensor<Self, 3>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 3> {
        let (x, weight) = (node(x), node(weight));
        let (x_inner, weight_inner) = (inner(&x), inner(&weight));
        let output = B::rms_norm(x_inner.clone(), weight_inner.clone(), epsilon);
        let state = (x_inner, weight_inner, epsilon);
        record::<B, C, _, 2, 3>(RmsNorm, [&x, &weight], output, |_| state)
    }

    fn rotate_half(
        x: Tensor<Self, 4>,
        cos: Tensor<Self, 4>,
        sin: Tensor<Self, 4>,
    ) -> Tensor<Self, 4> {
        // Positions are constants: no gradient goes to their cosines and sines.
        let (x, cos, sin) = (
            node(x),
            inner::<B, 4>(&node(cos)),
            inner::<B, 4>(&node(sin)),
        );
        let output = B::rotate_half(inner(&x), cos.clone(), sin.clone());
        record::<B, C, _, 1, 4>(RotateHalf, [&x], output, |_| (cos, sin))
    }

    fn swiglu(gate: Tensor<Self, 3>, up: Tensor<Self, 3>) -> Tensor<Self, 3> {
        let (gate, up) = (node(gate), node(up));
        let (gate_inner, up_inner) = (inner::<B, 3>(&gate), inner::<B, 3>(&up));
        let output = B::swiglu(gate_inner.clone(), up_inner.clone());
        record::<B, C, _, 2, 3>(SwiGlu, [&gate, &up], output, |_| (gate_inner, up_inner))
    }
}

/// A tensor with its place in the graph.
type Node<B> = FloatTensor<Autodiff<B>>;

fn node<B: Backend, C: CheckpointStrategy, const D: usize>(
    x: Tensor<Autodiff<B, C>, D>,
) -> Node<B> {
    x.into_primitive().tensor()
}

fn inner<B: Backend, const D: usize>(x: &Node<B>) -> Tensor<B, D> {
    float(x.primitive.clone())
}

fn float<B: Backend, const D: usize>(x: B::FloatTensorPrimitive) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

/// Adds a node to the graph; `state` is told which parents are tracked.
fn record<B, C, Op, const N: usize, const D: usize>(
    operation: Op,
    parents: [&Node<B>; N],
    output: Tensor<B, D>,
    state: impl FnOnce([bool; N]) -> Op::State,
) -> Tensor<Autodiff<B, C>, D>
where
    B: Backend,
    C: CheckpointStrategy,
    Op: Backward<B, N>,
{
    let tracked = parents.map(|parent| parent.is_tracked());
    let output = output.into_primitive().tensor();
    let prep = operation
        .prepare::<C>(parents.map(|parent| parent.node.clone()))
        .compute_bound()
        .stateful();
    let output = match prep {
        OpsKind::Tracked(prep) => prep.finish(state(tracked), output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    };
    float(output)
}

fn register<B: Backend, const D: usize>(
    grads: &mut Gradients,
    parent: Option<NodeId>,
    gradient: impl FnOnce() -> Tensor<B, D>,
) {
    if let Some(parent) = parent {
        grads.register::<B>(parent, gradient().into_primitive().tensor());
    }
}

#[derive(Debug)]
struct Dense;

#[derive(Clone, Debug)]
struct DenseState<B: Backend> {
    x: Option<Tensor<B, 3>>,
    weight: Option<Tensor<B, 2>>,
}

impl<B: VictorBackend, const N: usize> Backward<B, N> for Dense {
    type State = DenseState<B>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let parents = ops.parents.map(|parent| Some(parent?.id));
        let gradient = float::<B, 3>(grads.consume::<B>(&ops.node));
        let [batch, seq, output] = gradient.dims();
        let rows = gradient.reshape([batch * seq, output]);
        if let Some(weight) = ops.state.weight {
            let [_, input] = weight.dims();
            let by_x = || rows.clone().matmul(weight).reshape([batch, seq, input]);
            register::<B, 3>(grads, parents[0], by_x);
        }
        if let Some(x) = ops.state.x {
            let [_, _, input] = x.dims();
            // In this order the gradient lies in memory as the weight does.
            let x = x.reshape([batch * seq, input]);
            let by_weight = || rows.clone().transpose().matmul(x);
            register::<B, 2>(grads, parents[1], by_weight);
        }
        if let Some(bias) = parents.get(2) {
            register::<B, 1>(grads, *bias, || rows.sum_dim(0).flatten(0, 1));
        }
    }
}

#[derive(Debug)]
struct Attention;

impl<B: VictorBackend> Backward<B, 3> for Attention {
    type State = (AttentionInputs<B>, Tensor<B, 4>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let parents = ops.parents.map(|parent| Some(parent?.id));
        let gradient = float(grads.consume::<B>(&ops.node));
        let (inputs, output) = ops.state;
        let gradients = B::grouped_attention_backward(inputs, output, gradient);
        for (parent, gradient) in parents.into_iter().zip(gradients) {
            register::<B, 4>(grads, parent, || gradient);
        }
    }
}

#[derive(Debug)]
struct RmsNorm;

impl<B: VictorBackend> Backward<B, 2> for RmsNorm {
    type State = (Tensor<B, 3>, Tensor<B, 1>, f64);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let parents = ops.parents.map(|parent| Some(parent?.id));
        let gradient = float(grads.consume::<B>(&ops.node));
        let (x, weight, epsilon) = ops.state;
        let (by_x, by_weight) = B::rms_norm_backward(x, weight, epsilon, gradient);
        register::<B, 3>(grads, parents[0], || by_x);
        register::<B, 1>(grads, parents[1], || by_weight);
    }
}

#[derive(Debug)]
struct RotateHalf;

impl<B: VictorBackend> Backward<B, 1> for RotateHalf {
    type State = (Tensor<B, 4>, Tensor<B, 4>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (cos, sin) = ops.state;
        // A rotation's gradient is the rotation back.
        unary::<B, _>(ops.parents, ops.node, grads, |gradient| {
            B::rotate_half(float(gradient), cos, sin.neg())
                .into_primitive()
                .tensor()
        });
    }
}

#[derive(Debug)]
struct SwiGlu;

impl<B: VictorBackend> Backward<B, 2> for SwiGlu {
    type State = (Tensor<B, 3>, Tensor<B, 3>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let parents = ops.parents.map(|parent| Some(parent?.id));
        let gradient = float(grads.consume::<B>(&ops.node));
        let (gate, up) = ops.state;
        let (by_gate, by_up) = B::swiglu_backward(gate, up, gradient);
        register::<B, 3>(grads, parents[0], || by_gate);
        register::<B, 3>(grads, parents[1], || by_up);
    }
}
