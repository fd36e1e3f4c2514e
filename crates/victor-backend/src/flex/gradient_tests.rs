//! Gradients of our operations against those burn takes through the plain statements.

use crate::VictorBackend;
use crate::gradients::AttentionInputs;
use crate::{gradients, plain};
use burn::backend::Autodiff;
use burn::prelude::*;
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
    let output = plain::grouped_attention(query.clone(), key.clone(), value.clone(), None, true);
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
    let (by_x, by_weight) = Flex::rms_norm_backward(x.clone(), weight.clone(), 1e-5, above.clone());
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
