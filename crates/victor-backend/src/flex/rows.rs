//! Operations that treat rows, or single numbers, apart from each other: one parallel pass each.

use super::simd::{dispatch, sigmoid, sum2};
use rayon::prelude::*;

/// Numbers a task takes at least.
const TASK: usize = 32 * 1024;

pub(super) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let width = weight.len();
    let mut output = vec![0.0; x.len()];
    let task = task_rows(width) * width;
    output
        .par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .for_each(|(output, x)| {
            dispatch(
                #[inline(always)]
                || {
                    for (output, x) in output.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                        let scale = inverse_rms(x, epsilon);
                        for ((output, x), weight) in output.iter_mut().zip(x).zip(weight) {
                            *output = x * scale * weight;
                        }
                    }
                },
            );
        });
    output
}

/// Gradients by x and by the weight.
pub(super) fn rms_norm_backward(
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    gradient: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let width = weight.len();
    let mut by_x = vec![0.0; x.len()];
    let task = task_rows(width) * width;
    // Tasks are of fixed rows and their sums added in order, so the result has no chance in it.
    let partial: Vec<Vec<f32>> = by_x
        .par_chunks_mut(task)
        .zip(x.par_chunks(task).zip(gradient.par_chunks(task)))
        .map(|(by_x, (x, gradient))| {
            dispatch(
                #[inline(always)]
                || {
                    let mut by_weight = vec![0.0; width];
                    let rows = x.chunks_exact(width).zip(gradient.chunks_exact(width));
                    for (by_x, (x, gradient)) in by_x.chunks_exact_mut(width).zip(rows) {
                        let scale = inverse_rms(x, epsilon);
                        for ((sum, x), gradient) in by_weight.iter_mut().zip(x).zip(gradient) {
                            *sum += x * scale * gradient;
                        }
                        for ((by_x, gradient), weight) in by_x.iter_mut().zip(gradient).zip(weight)
                        {
                            *by_x = gradient * weight;
                        }
                        let along = sum2(by_x, x, |a, b| a * b) * scale * scale / width as f32;
                        for (by_x, x) in by_x.iter_mut().zip(x) {
                            *by_x = (*by_x - x * along) * scale;
                        }
                    }
                    by_weight
                },
            )
        })
        .collect();
    let mut by_weight = vec![0.0; width];
    for partial in partial {
        for (sum, part) in by_weight.iter_mut().zip(partial) {
            *sum += part;
        }
    }
    (by_x, by_weight)
}

#[inline(always)]
fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum2(x, x, |a, b| a * b) / x.len() as f32 + epsilon).sqrt()
}

pub(super) fn swiglu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut output = vec![0.0; gate.len()];
    output
        .par_chunks_mut(TASK)
        .zip(gate.par_chunks(TASK).zip(up.par_chunks(TASK)))
        .for_each(|(output, (gate, up))| {
            dispatch(
                #[inline(always)]
                || {
                    for ((output, gate), up) in output.iter_mut().zip(gate).zip(up) {
                        *output = gate * sigmoid(*gate) * up;
                    }
                },
            );
        });
    output
}

/// Gradients by gate and by up.
pub(super) fn swiglu_backward(gate: &[f32], up: &[f32], gradient: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut by_gate, mut by_up) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
    let inputs = gate.par_chunks(TASK).zip(up.par_chunks(TASK));
    by_gate
        .par_chunks_mut(TASK)
        .zip(by_up.par_chunks_mut(TASK))
        .zip(inputs.zip(gradient.par_chunks(TASK)))
        .for_each(|((by_gate, by_up), ((gate, up), gradient))| {
            dispatch(
                #[inline(always)]
                || {
                    for i in 0..gate.len().min(up.len()).min(gradient.len()) {
                        let open = sigmoid(gate[i]);
                        let silu = gate[i] * open;
                        by_gate[i] = gradient[i] * up[i] * (open + silu * (1.0 - open));
                        by_up[i] = gradient[i] * silu;
                    }
                },
            );
        });
    (by_gate, by_up)
}

/// Rotates heads that lie as `[batch, seq, heads, head_dim]`; cos and sin as `[batch, seq, head_dim / 2]`.
pub(super) fn rotate_half(
    x: &[f32],
    [heads, head_dim]: [usize; 2],
    cos: &[f32],
    sin: &[f32],
) -> Vec<f32> {
    let mut output = vec![0.0; x.len()];
    let (half, position) = (head_dim / 2, heads * head_dim);
    let task = task_rows(position);
    output
        .par_chunks_mut(task * position)
        .zip(x.par_chunks(task * position))
        .zip(cos.par_chunks(task * half).zip(sin.par_chunks(task * half)))
        .for_each(|((output, x), (cos, sin))| {
            dispatch(
                #[inline(always)]
                || {
                    let positions = output
                        .chunks_exact_mut(position)
                        .zip(x.chunks_exact(position));
                    let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
                    for ((output, x), (cos, sin)) in positions.zip(angles) {
                        let heads = output
                            .chunks_exact_mut(2 * half)
                            .zip(x.chunks_exact(2 * half));
                        for (output, x) in heads {
                            let (first, second) = x.split_at(half);
                            let (out_first, out_second) = output.split_at_mut(half);
                            for i in 0..half {
                                out_first[i] = first[i] * cos[i] - second[i] * sin[i];
                                out_second[i] = second[i] * cos[i] + first[i] * sin[i];
                            }
                        }
                    }
                },
            );
        });
    output
}

/// Rows of this width that make a task.
fn task_rows(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}
