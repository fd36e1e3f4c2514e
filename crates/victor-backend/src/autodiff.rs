//! Differentiable backends: each operation is one node that keeps its inputs and calls the backend's
//! own gradient, where plain burn would keep every intermediate result.

use crate::VictorBackend;
use crate::gradients::AttentionInputs;
use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::prelude::*;
use burn::tensor::TensorPrimitive;
use burn::tensor::ops::FloatTensor;

impl<B: VictorBackend, C: CheckpointStrategy> VictorBackend for Autodiff<B, C> {
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

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{gradients, plain};
    use burn_flex::Flex;
    use std::cell::Cell;

    type Train = Autodiff<Flex>;

    /// About normal numbers, the same in every run: each test has a thread and so a sequence of its own.
    fn random<const D: usize>(shape: [usize; D]) -> Tensor<Flex, D> {
        thread_local!(static STATE: Cell<u64> = const { Cell::new(1) });
        let uniform = || {
            // Knuth's 64-bit linear congruential generator.
            let next = STATE.get().wrapping_mul(6_364_136_223_846_793_005);
            STATE.set(next.wrapping_add(1_442_695_040_888_963_407));
            (STATE.get() >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let values = (0..shape.iter().product()).map(|_| 2.0 * (uniform() + uniform() + uniform()));
        let values: Vec<f32> = values.collect();
        Tensor::from_data(TensorData::new(values, shape), &Default::default())
    }

    /// Equal to rounding, measured against the largest number: sums over rows grow with the rows.
    fn close<const D: usize>(found: Tensor<Flex, D>, expected: Tensor<Flex, D>, what: &str) {
        assert_eq!(found.dims(), expected.dims(), "{what}");
        let size = expected.clone().abs().max().into_scalar().max(1.0);
        let difference = (found - expected).abs().max().into_scalar() / size;
        assert!(difference < 5e-6, "{what}: {difference}");
    }

    /// Checks values and gradients of an operation of two tensors against its plain statement.
    fn check<const D: usize, const A: usize, const E: usize>(
        what: &str,
        a: Tensor<Flex, D>,
        b: Tensor<Flex, A>,
        found: impl Fn(Tensor<Train, D>, Tensor<Train, A>) -> Tensor<Train, E>,
        expected: impl Fn(Tensor<Train, D>, Tensor<Train, A>) -> Tensor<Train, E>,
    ) {
        let tracked_a = Tensor::<Train, D>::from_inner(a).require_grad();
        let tracked_b = Tensor::<Train, A>::from_inner(b).require_grad();
        let left = found(tracked_a.clone(), tracked_b.clone());
        let right = expected(tracked_a.clone(), tracked_b.clone());
        let above = Tensor::<Train, E>::from_inner(random(left.dims()));
        let left_grads = (left.clone() * above.clone()).sum().backward();
        let right_grads = (right.clone() * above).sum().backward();
        close(left.inner(), right.inner(), what);
        let both = [&left_grads, &right_grads].map(|grads| tracked_a.grad(grads).expect("tracked"));
        let [left, right] = both;
        close(left, right, what);
        let both = [&left_grads, &right_grads].map(|grads| tracked_b.grad(grads).expect("tracked"));
        let [left, right] = both;
        close(left, right, what);
    }

    #[test]
    fn attention_is_the_plain_one_for_odd_shapes_groups_and_masks() {
        let device = Default::default();
        // batch, heads, key heads, queries, keys, width of a head
        let shapes = [
            [1, 2, 2, 5, 5, 4],
            [2, 4, 2, 7, 7, 6],
            [2, 6, 1, 1, 9, 8],
            [1, 3, 3, 70, 70, 5],
            [2, 4, 2, 65, 131, 16],
            [1, 2, 1, 130, 130, 3],
        ];
        for [batch, heads, kv_heads, seq_q, seq_k, width] in shapes {
            for (causal, masked) in [(false, false), (true, false), (true, true), (false, true)] {
                let hidden: Vec<bool> = (0..batch * seq_q * seq_k)
                    .map(|i| i % seq_k < i / (seq_q * seq_k) && i % seq_k != (i / seq_k) % seq_q)
                    .collect();
                let hidden = TensorData::new(hidden, [batch, 1, seq_q, seq_k]);
                let mask = masked.then(|| Tensor::<Train, 4, Bool>::from_data(hidden, &device));
                // As projections leave them: positions before heads.
                let make = |heads, seq| random([batch, seq, heads, width]).swap_dims(1, 2);
                let (query, key) = (make(heads, seq_q), make(kv_heads, seq_k));
                let value = make(kv_heads, seq_k);
                let what = format!("{seq_q}x{seq_k} causal {causal} masked {masked}");
                let fixed = Tensor::<Train, 4>::from_inner(value.clone());
                check(
                    &what,
                    query.clone(),
                    key.clone(),
                    |q, k| Train::grouped_attention(q, k, fixed.clone(), mask.clone(), causal),
                    |q, k| plain::grouped_attention(q, k, fixed.clone(), mask.clone(), causal),
                );
                let fixed = Tensor::<Train, 4>::from_inner(key);
                check(
                    &what,
                    query,
                    value,
                    |q, v| Train::grouped_attention(q, fixed.clone(), v, mask.clone(), causal),
                    |q, v| plain::grouped_attention(q, fixed.clone(), v, mask.clone(), causal),
                );
            }
        }
    }

    #[test]
    fn the_plain_gradient_of_attention_is_burns() {
        let inputs = AttentionInputs {
            query: random([2, 4, 5, 6]),
            key: random([2, 2, 7, 6]),
            value: random([2, 2, 7, 6]),
            mask: None,
            causal: true,
        };
        let above = random([2, 4, 5, 6]);
        let [query, key, value] = [&inputs.query, &inputs.key, &inputs.value]
            .map(|x| Tensor::<Train, 4>::from_inner(x.clone()).require_grad());
        let output =
            plain::grouped_attention(query.clone(), key.clone(), value.clone(), None, true);
        let grads = (output.clone() * Tensor::from_inner(above.clone()))
            .sum()
            .backward();
        let found = gradients::grouped_attention(inputs, output.inner(), above);
        for (found, tensor) in found.into_iter().zip([query, key, value]) {
            close(
                found,
                tensor.grad(&grads).expect("tracked"),
                "plain attention",
            );
        }
    }

    #[test]
    fn row_operations_are_the_plain_ones() {
        for [batch, seq, width] in [[1, 1, 3], [2, 3, 33], [3, 71, 288], [2, 257, 40]] {
            check(
                "rms_norm",
                random([batch, seq, width]),
                random([width]),
                |x, weight| Train::rms_norm(x, weight, 1e-5),
                |x, weight| plain::rms_norm(x, weight, 1e-5),
            );
            check(
                "swiglu",
                random([batch, seq, width]),
                random([batch, seq, width]),
                Train::swiglu,
                plain::swiglu,
            );
            check(
                "dense",
                random([batch, seq, width]),
                random([5, width]),
                |x, weight| Train::dense(x, weight, None),
                |x, weight| plain::dense(x, weight, None),
            );
            let weight = Tensor::<Train, 2>::from_inner(random([7, width]));
            check(
                "dense with bias",
                random([batch, seq, width]),
                random([7]),
                |x, bias| Train::dense(x, weight.clone(), Some(bias)),
                |x, bias| plain::dense(x, weight.clone(), Some(bias)),
            );
        }
    }

    #[test]
    fn the_plain_gradients_of_row_operations_are_the_kernels() {
        let [x, up, above] = [(); 3].map(|()| random([2, 9, 37]));
        let weight = random([37]);
        let (by_x, by_weight) =
            Flex::rms_norm_backward(x.clone(), weight.clone(), 1e-5, above.clone());
        let expected = gradients::rms_norm(x.clone(), weight, 1e-5, above.clone());
        close(by_x, expected.0, "rms_norm");
        close(by_weight, expected.1, "rms_norm");
        let found = Flex::swiglu_backward(x.clone(), up.clone(), above.clone());
        let expected = gradients::swiglu(x, up, above);
        close(found.0, expected.0, "swiglu");
        close(found.1, expected.1, "swiglu");
    }

    #[test]
    fn rotations_are_the_plain_ones() {
        for [batch, heads, seq, width] in [[1, 1, 1, 2], [2, 3, 5, 8], [3, 6, 300, 48]] {
            let angles = [(); 2].map(|()| random([batch, 1, seq, width / 2]));
            let [cos, sin] = angles.map(Tensor::<Train, 4>::from_inner);
            let x = random([batch, seq, heads, width]).swap_dims(1, 2);
            let unused = random([1]);
            check(
                "rotate_half",
                x,
                unused,
                |x, unused| {
                    Train::rotate_half(x, cos.clone(), sin.clone()) * unused.reshape([1, 1, 1, 1])
                },
                |x, unused| {
                    plain::rotate_half(x, cos.clone(), sin.clone()) * unused.reshape([1, 1, 1, 1])
                },
            );
        }
    }

    #[test]
    fn frozen_weights_get_no_gradient_and_pass_one_on() {
        let x = Tensor::<Train, 3>::from_inner(random([2, 3, 4])).require_grad();
        let weight = Tensor::<Train, 2>::from_inner(random([5, 4]));
        let grads = Train::dense(x.clone(), weight.clone(), None)
            .sum()
            .backward();
        assert!(x.grad(&grads).is_some() && weight.grad(&grads).is_none());
    }
}
