//! Cross-entropy whose gradient is computed in the same passes as the loss.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::prelude::*;
use burn::tensor::{IndexingUpdateOp, TensorPrimitive};

/// The sum over all rows of the cross-entropy between `logits` and `targets`, times `scale`.
///
/// With smoothing ε the target is 1 − ε on the token plus ε spread evenly over the vocabulary.
///
/// # Shapes
/// - logits: `[rows, vocab]`
/// - targets: `[rows]`
/// - output: `[1]`
pub fn cross_entropy<B: Backend>(
    logits: Tensor<Autodiff<B>, 2>,
    targets: Tensor<B, 1, Int>,
    smoothing: f64,
    scale: f64,
) -> Tensor<Autodiff<B>, 1> {
    let logits = logits.into_primitive().tensor();
    let inner = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(logits.primitive.clone()));
    let prep = CrossEntropy
        .prepare::<NoCheckpointing>([logits.node.clone()])
        .compute_bound()
        .stateful();
    let output = match prep {
        OpsKind::Tracked(prep) => {
            let (loss, gradient) = loss_and_gradient(inner, targets, smoothing);
            let gradient = gradient.mul_scalar(scale);
            prep.finish(
                gradient.into_primitive().tensor(),
                loss.mul_scalar(scale).into_primitive().tensor(),
            )
        }
        OpsKind::UnTracked(prep) => {
            let loss = plain_cross_entropy(inner, targets, smoothing).mul_scalar(scale);
            prep.finish(loss.into_primitive().tensor())
        }
    };
    Tensor::from_primitive(TensorPrimitive::Float(output))
}

/// [`cross_entropy`] without a gradient and unscaled.
pub(crate) fn plain_cross_entropy<B: Backend>(
    logits: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    smoothing: f64,
) -> Tensor<B, 1> {
    let (logits, _, total) = exponentials(logits);
    loss(logits, &total, targets.unsqueeze_dim(1), smoothing)
}

#[derive(Debug)]
struct CrossEntropy;

impl<B: Backend> Backward<B, 1> for CrossEntropy {
    /// The gradient, complete but for what comes from above.
    type State = B::FloatTensorPrimitive;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        unary::<B, _>(ops.parents, ops.node, grads, |above| {
            let gradient = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(ops.state));
            let above = Tensor::<B, 1>::from_primitive(TensorPrimitive::Float(above));
            (gradient * above.unsqueeze()).into_primitive().tensor()
        });
    }
}

fn loss_and_gradient<B: Backend>(
    logits: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    smoothing: f64,
) -> (Tensor<B, 1>, Tensor<B, 2>) {
    let [rows, vocab] = logits.dims();
    let device = logits.device();
    let (logits, powers, total) = exponentials(logits);
    let targets = targets.unsqueeze_dim::<2>(1);
    let loss = loss(logits, &total, targets.clone(), smoothing);
    let mut gradient = powers / total;
    if smoothing > 0.0 {
        gradient = gradient.sub_scalar(smoothing / vocab as f64);
    }
    let hit = Tensor::full([rows, 1], smoothing - 1.0, &device);
    let gradient = gradient.scatter(1, targets, hit, IndexingUpdateOp::Add);
    (loss, gradient)
}

/// Logits less their row's maximum, their exponentials, and the sums of those, `[rows, 1]`.
fn exponentials<B: Backend>(logits: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>, Tensor<B, 2>) {
    let highest = logits.clone().max_dim(1);
    let logits = logits - highest;
    let powers = logits.clone().exp();
    let total = powers.clone().sum_dim(1);
    (logits, powers, total)
}

fn loss<B: Backend>(
    logits: Tensor<B, 2>,
    total: &Tensor<B, 2>,
    targets: Tensor<B, 2, Int>,
    smoothing: f64,
) -> Tensor<B, 1> {
    let hit = logits
        .clone()
        .gather(1, targets)
        .mul_scalar(1.0 - smoothing);
    let mut log_probability = hit - total.clone().log();
    if smoothing > 0.0 {
        log_probability = log_probability + logits.mean_dim(1).mul_scalar(smoothing);
    }
    log_probability.sum().neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Inner, Train};
    use burn::tensor::Distribution;
    use burn::tensor::activation::log_softmax;

    #[test]
    fn loss_and_gradient_are_those_of_the_definition() {
        let device = Default::default();
        let (rows, vocab, scale) = (5, 13, 0.25);
        let values =
            Tensor::<Inner, 2>::random([rows, vocab], Distribution::Normal(0.0, 3.0), &device);
        let targets = Tensor::<Inner, 1, Int>::from_data([3, 0, 12, 3, 7], &device);
        for smoothing in [0.0, 0.1] {
            let logits = Tensor::<Train, 2>::from_inner(values.clone()).require_grad();
            let log_p = log_softmax(logits.clone(), 1);
            let hit = log_p
                .clone()
                .gather(1, Tensor::from_inner(targets.clone().unsqueeze_dim(1)));
            let expected = (hit.sum().mul_scalar(1.0 - smoothing)
                + log_p.sum().mul_scalar(smoothing / vocab as f64))
            .mul_scalar(-scale);
            let expected_gradient = logits.grad(&expected.backward()).expect("tracked");

            let logits = Tensor::<Train, 2>::from_inner(values.clone()).require_grad();
            let found = cross_entropy(logits.clone(), targets.clone(), smoothing, scale);
            let plain = plain_cross_entropy(values.clone(), targets.clone(), smoothing);
            let (expected, plain) = (expected.into_scalar(), plain.into_scalar() * scale as f32);
            assert!((found.clone().into_scalar() - expected).abs() < 1e-5);
            assert!((plain - expected).abs() < 1e-5);
            let gradient = logits.grad(&found.backward()).expect("tracked");
            let difference = (gradient - expected_gradient).abs().max().into_scalar();
            assert!(difference < 1e-6, "{difference}");
        }
    }
}
