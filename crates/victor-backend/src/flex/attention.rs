//! Attention by blocks of query rows: scores of a block stay in cache and are never stored.

use super::simd::{dispatch, exp, max, sum2};
use burn_flex::FlexTensor;
use rayon::prelude::*;

/// Query rows whose scores are computed together.
const BLOCK: usize = 64;

/// Numbers `[batch, heads, seq, head_dim]` wherever they lie.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) shape: [usize; 4],
    pub(super) strides: [usize; 4],
}

/// One attention over all heads of a batch.
pub(super) struct Attention<'a> {
    pub(super) query: Heads<'a>,
    pub(super) key: Heads<'a>,
    pub(super) value: Heads<'a>,
    /// `[batch, 1, seq_q, seq_k]`, contiguous
    pub(super) mask: Option<FlexTensor>,
    pub(super) causal: bool,
}

/// A matrix wherever it lies.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    numbers: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

/// What every block of an attention needs to know.
struct Block {
    /// The first query row.
    start: usize,
    rows: usize,
    /// Keys that any row of the block may see.
    keys: usize,
}

impl Attention<'_> {
    /// The output as `[batch, seq_q, heads, head_dim]`.
    pub(super) fn forward(&self) -> Vec<f32> {
        let [batch, heads, seq_q, head_dim] = self.query.shape;
        let group = heads / self.key.shape[1];
        let mut output = vec![0.0; batch * heads * seq_q * head_dim];
        if output.is_empty() {
            return output;
        }
        let tasks = output.par_chunks_mut(seq_q * head_dim).enumerate();
        tasks.for_each(|(task, output)| {
            let (sample, head) = (task / heads, task % heads);
            let query = self.query.matrix(sample, head);
            let key = self.key.matrix(sample, head / group);
            let value = self.value.matrix(sample, head / group);
            let mut scores = vec![0.0; BLOCK.min(seq_q) * key.rows];
            for block in self.blocks() {
                let scores = &mut scores[..block.rows * block.keys];
                self.probabilities(scores, sample, &block, query, key);
                let scores = Matrix::contiguous(scores, block.keys);
                let output = &mut output[block.start * head_dim..][..block.rows * head_dim];
                multiply(
                    output,
                    head_dim,
                    scores,
                    value.first_rows(block.keys),
                    1.0,
                    false,
                );
            }
        });
        interleave(&output, [batch, heads, seq_q, head_dim])
    }

    /// Gradients by query, key and value, each as `[batch, seq, heads, head_dim]`.
    pub(super) fn backward(&self, output: &Heads<'_>, gradient: &Heads<'_>) -> [Vec<f32>; 3] {
        let [batch, heads, seq_q, head_dim] = self.query.shape;
        let [_, kv_heads, seq_k, _] = self.key.shape;
        let group = heads / kv_heads;
        let mut by_query = vec![0.0; batch * heads * seq_q * head_dim];
        let mut by_key = vec![0.0; batch * kv_heads * seq_k * head_dim];
        let mut by_value = vec![0.0; by_key.len()];
        if by_query.is_empty() || by_key.is_empty() {
            return [by_query, by_key, by_value];
        }
        let by_keys = by_key
            .par_chunks_mut(seq_k * head_dim)
            .zip(by_value.par_chunks_mut(seq_k * head_dim));
        let tasks = by_query
            .par_chunks_mut(group * seq_q * head_dim)
            .zip(by_keys);
        tasks
            .enumerate()
            .for_each(|(task, (by_query, (by_key, by_value)))| {
                let (sample, kv_head) = (task / kv_heads, task % kv_heads);
                let key = self.key.matrix(sample, kv_head);
                let value = self.value.matrix(sample, kv_head);
                let size = BLOCK.min(seq_q) * seq_k;
                let (mut scores, mut slopes) = (vec![0.0; size], vec![0.0; size]);
                for (member, by_query) in by_query.chunks_exact_mut(seq_q * head_dim).enumerate() {
                    let head = kv_head * group + member;
                    let query = self.query.matrix(sample, head);
                    let output = output.matrix(sample, head);
                    let gradient = gradient.matrix(sample, head);
                    for block in self.blocks() {
                        let size = block.rows * block.keys;
                        let (scores, slopes) = (&mut scores[..size], &mut slopes[..size]);
                        self.probabilities(scores, sample, &block, query, key);
                        let query = query.rows(block.start, block.rows);
                        let above = gradient.rows(block.start, block.rows);
                        let (seen_key, seen_value) =
                            (key.first_rows(block.keys), value.first_rows(block.keys));

                        let by_value = &mut by_value[..block.keys * head_dim];
                        let probabilities = Matrix::contiguous(scores, block.keys);
                        multiply(
                            by_value,
                            head_dim,
                            probabilities.transposed(),
                            above,
                            1.0,
                            true,
                        );

                        multiply(
                            slopes,
                            block.keys,
                            above,
                            seen_value.transposed(),
                            1.0,
                            false,
                        );
                        let output = output.rows(block.start, block.rows);
                        softmax_backward(slopes, scores, block.keys, output, above);

                        let slopes = Matrix::contiguous(slopes, block.keys);
                        let scale = self.scale();
                        let by_query =
                            &mut by_query[block.start * head_dim..][..block.rows * head_dim];
                        multiply(by_query, head_dim, slopes, seen_key, scale, false);
                        let by_key = &mut by_key[..block.keys * head_dim];
                        multiply(by_key, head_dim, slopes.transposed(), query, scale, true);
                    }
                }
            });
        [
            interleave(&by_query, self.query.shape),
            interleave(&by_key, self.key.shape),
            interleave(&by_value, self.value.shape),
        ]
    }

    fn blocks(&self) -> impl Iterator<Item = Block> {
        let (seq_q, seq_k) = (self.query.shape[2], self.key.shape[2]);
        (0..seq_q).step_by(BLOCK).map(move |start| {
            let rows = BLOCK.min(seq_q - start);
            let seen = (start + rows + seq_k).saturating_sub(seq_q).min(seq_k);
            Block {
                start,
                rows,
                keys: if self.causal { seen } else { seq_k },
            }
        })
    }

    /// Softmax of the scaled and masked scores of a block.
    fn probabilities(
        &self,
        scores: &mut [f32],
        sample: usize,
        block: &Block,
        query: Matrix<'_>,
        key: Matrix<'_>,
    ) {
        let (seq_q, seq_k) = (self.query.shape[2], self.key.shape[2]);
        if block.keys == 0 {
            return;
        }
        let query = query.rows(block.start, block.rows);
        let key = key.first_rows(block.keys).transposed();
        multiply(scores, block.keys, query, key, self.scale(), false);
        let mask: Option<&[u8]> = self.mask.as_ref().map(FlexTensor::bytes);
        for (row, scores) in scores.chunks_exact_mut(block.keys).enumerate() {
            let row = block.start + row;
            let seen = (row + 1 + seq_k).saturating_sub(seq_q).min(block.keys);
            let (seen, hidden) = scores.split_at_mut(if self.causal { seen } else { block.keys });
            hidden.fill(0.0);
            let mask = mask.map(|mask| &mask[(sample * seq_q + row) * seq_k..][..seen.len()]);
            dispatch(
                #[inline(always)]
                || softmax(seen, mask),
            );
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.query.shape[3] as f32).sqrt()
    }
}

#[inline(always)]
fn softmax(scores: &mut [f32], mask: Option<&[u8]>) {
    if let Some(mask) = mask {
        for (score, hidden) in scores.iter_mut().zip(mask) {
            *score = if *hidden == 0 {
                *score
            } else {
                f32::NEG_INFINITY
            };
        }
    }
    let highest = max(scores);
    for score in scores.iter_mut() {
        *score = exp(*score - highest);
    }
    let scale = 1.0 / sum2(scores, scores, |a, _| a);
    for score in scores.iter_mut() {
        *score *= scale;
    }
}

/// From the gradient by the probabilities to that by the scores, in place.
fn softmax_backward(
    slopes: &mut [f32],
    probabilities: &[f32],
    keys: usize,
    output: Matrix<'_>,
    above: Matrix<'_>,
) {
    if keys == 0 {
        return;
    }
    let rows = slopes
        .chunks_exact_mut(keys)
        .zip(probabilities.chunks_exact(keys));
    for (row, (slopes, probabilities)) in rows.enumerate() {
        let along: f32 = output
            .row(row)
            .zip(above.row(row))
            .map(|(a, b)| a * b)
            .sum();
        dispatch(
            #[inline(always)]
            || {
                for (slope, probability) in slopes.iter_mut().zip(probabilities) {
                    *slope = probability * (*slope - along);
                }
            },
        );
    }
}

/// From `[batch, heads, seq, head_dim]` to `[batch, seq, heads, head_dim]`.
fn interleave(x: &[f32], [_, heads, seq, head_dim]: [usize; 4]) -> Vec<f32> {
    let mut output = vec![0.0; x.len()];
    let sample = heads * seq * head_dim;
    if sample == 0 {
        return output;
    }
    let samples = output.par_chunks_mut(sample).zip(x.par_chunks(sample));
    samples.for_each(|(output, x)| {
        for (position, output) in output.chunks_exact_mut(heads * head_dim).enumerate() {
            for (head, output) in output.chunks_exact_mut(head_dim).enumerate() {
                output.copy_from_slice(&x[(head * seq + position) * head_dim..][..head_dim]);
            }
        }
    });
    output
}

impl<'a> Heads<'a> {
    fn matrix(&self, sample: usize, head: usize) -> Matrix<'a> {
        Matrix {
            numbers: &self.numbers[sample * self.strides[0] + head * self.strides[1]..],
            rows: self.shape[2],
            columns: self.shape[3],
            row_stride: self.strides[2],
            column_stride: self.strides[3],
        }
    }
}

impl<'a> Matrix<'a> {
    fn contiguous(numbers: &'a [f32], columns: usize) -> Self {
        Self {
            numbers,
            rows: numbers.len().checked_div(columns).unwrap_or(0),
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn rows(self, start: usize, rows: usize) -> Self {
        Self {
            numbers: &self.numbers[start * self.row_stride..],
            rows,
            ..self
        }
    }

    fn first_rows(self, rows: usize) -> Self {
        self.rows(0, rows)
    }

    fn row(self, row: usize) -> impl Iterator<Item = f32> + use<'a> {
        let at = move |column| self.numbers[row * self.row_stride + column * self.column_stride];
        (0..self.columns).map(at)
    }

    /// Whether every element is inside the numbers.
    fn fits(self) -> bool {
        if self.rows == 0 || self.columns == 0 {
            return true;
        }
        let last = (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride;
        last < self.numbers.len()
    }
}

/// `target = scale · a · b`, or added to it; the target is contiguous and `width` wide.
///
/// # Panics
/// If sizes do not fit.
fn multiply(
    target: &mut [f32],
    width: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    accumulate: bool,
) {
    assert!(
        a.columns == b.rows && b.columns == width,
        "sizes of a product"
    );
    assert!(
        target.len() == a.rows * width && a.fits() && b.fits(),
        "sizes of a product"
    );
    if target.is_empty() || a.columns == 0 {
        if !accumulate {
            target.fill(0.0);
        }
        return;
    }
    // SAFETY: gemm reads `a` and `b` and writes `target` at exactly the elements that the assertions
    // above found to be inside their slices, and `target` is borrowed exclusively.
    #[allow(unsafe_code, reason = "gemm takes pointers")]
    unsafe {
        gemm::gemm(
            a.rows,
            width,
            a.columns,
            target.as_mut_ptr(),
            1,
            width as isize,
            accumulate,
            a.numbers.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.numbers.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
