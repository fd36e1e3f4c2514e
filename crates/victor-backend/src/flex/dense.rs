//! `x · weightᵀ + bias` for weights stored as f32, f16 or bf16, which are never widened as a whole.
//!
//! A few rows of x are dot products straight from the weight, bound by reading it. For many rows, a
//! panel of the weight is widened and multiplied, then the next. All types are added up in the same
//! order, so a half weight gives the very results of its numbers in f32.

use super::widen::{Kernel, LANES, Stored, Vector, Widened};
use rayon::prelude::*;

/// Rows of x up to which dot products are faster than widening panels.
const FEW: usize = 16;
/// Rows of x that share one widening.
const SHARED: usize = 4;
/// Numbers a task takes at least.
const TASK: usize = 64 * 1024;
/// Numbers of a widened panel (8 MiB of f32).
const PANEL: usize = 2 << 20;
/// Multiply–accumulates from which a product is worth all threads; burn-flex's own number.
const PARALLEL: usize = 192 * 192 * 192;

/// # Shapes
/// - x: `[rows, input]`
/// - weight: `[output, input]`
/// - bias: `[output]`
/// - output: `[rows, output]`
pub(super) fn dense<T: Widened>(
    x: &[f32],
    weight: &[T],
    bias: Option<&[f32]>,
    [rows, input, output]: [usize; 3],
) -> Vec<f32> {
    assert_eq!(x.len(), rows * input, "x is not [rows, input]");
    assert_eq!(
        weight.len(),
        output * input,
        "weight is not [output, input]"
    );
    let mut y = if x.is_empty() || weight.is_empty() {
        vec![0.0; rows * output]
    } else if rows <= FEW {
        few(x, weight, [rows, input, output])
    } else {
        many(x, weight, [rows, input, output])
    };
    if let Some(bias) = bias.filter(|_| !y.is_empty()) {
        assert_eq!(bias.len(), output, "bias is not [output]");
        let add = |y: &mut [f32]| y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
        y.par_chunks_mut(output)
            .with_min_len(TASK.div_ceil(output))
            .for_each(add);
    }
    y
}

fn few<T: Widened>(x: &[f32], weight: &[T], [rows, input, output]: [usize; 3]) -> Vec<f32> {
    // `[output, rows]`: a task writes what lies together.
    let mut columns = vec![0.0; output * rows];
    let task = (TASK / input).max(1);
    columns
        .par_chunks_mut(task * rows)
        .zip(weight.par_chunks(task * input))
        .for_each(|(columns, weight)| {
            T::dispatch(Dots {
                x,
                weight,
                columns,
                input,
            });
        });
    if rows == 1 {
        return columns;
    }
    let mut y = vec![0.0; rows * output];
    for (row, y) in y.chunks_exact_mut(output).enumerate() {
        for (y, column) in y.iter_mut().zip(columns.chunks_exact(rows)) {
            *y = column[row];
        }
    }
    y
}

/// Every row of x times every row of the weight.
struct Dots<'a, T> {
    /// `[rows, input]`
    x: &'a [f32],
    /// `[some outputs, input]`
    weight: &'a [T],
    /// `[some outputs, rows]`
    columns: &'a mut [f32],
    input: usize,
}

impl<T: Stored> Kernel<T> for Dots<'_, T> {
    #[inline(always)]
    fn run<V: Vector<T>>(self) {
        let input = self.input;
        let rows = self.x.len() / input;
        let columns = self.columns.chunks_exact_mut(rows);
        for (column, weight) in columns.zip(self.weight.chunks_exact(input)) {
            let x = self.x.chunks(SHARED * input);
            for (column, x) in column.chunks_mut(SHARED).zip(x) {
                match column {
                    [a, b, c, d] => [*a, *b, *c, *d] = dots::<T, V, 4>(x, weight),
                    [a, b, c] => [*a, *b, *c] = dots::<T, V, 3>(x, weight),
                    [a, b] => [*a, *b] = dots::<T, V, 2>(x, weight),
                    [a] => [*a] = dots::<T, V, 1>(x, weight),
                    _ => {}
                }
            }
        }
    }
}

/// `R` rows of x, one after the other, times one row of the weight.
#[inline(always)]
fn dots<T: Stored, V: Vector<T>, const R: usize>(x: &[f32], weight: &[T]) -> [f32; R] {
    let input = weight.len();
    let (whole, rest) = weight.as_chunks::<LANES>();
    let (pairs, single) = whole.as_chunks::<2>();
    // Cut to one length, so that no index below is checked again.
    let rows: [&[[f32; LANES]]; R] =
        std::array::from_fn(|row| &x[row * input..].as_chunks::<LANES>().0[..whole.len()]);
    // Two sums a row: an addition waits for the one before it.
    let mut sums = [[V::zero(); 2]; R];
    for (index, pair) in pairs.iter().enumerate() {
        let weight = [V::widen(&pair[0]), V::widen(&pair[1])];
        for row in 0..R {
            let x = [&rows[row][2 * index], &rows[row][2 * index + 1]];
            for half in 0..2 {
                sums[row][half] = sums[row][half].add_product(V::load(x[half]), weight[half]);
            }
        }
    }
    for stored in single {
        for row in 0..R {
            let x = V::load(&rows[row][whole.len() - 1]);
            sums[row][0] = sums[row][0].add_product(x, V::widen(stored));
        }
    }
    std::array::from_fn(|row| {
        let [even, odd] = sums[row].map(V::numbers);
        let x = &x[row * input..][..input];
        let rest = rest.iter().zip(&x[whole.len() * LANES..]);
        let rest: f32 = rest.map(|(weight, x)| weight.wide() * x).sum();
        even.iter()
            .zip(odd)
            .map(|(even, odd)| even + odd)
            .sum::<f32>()
            + rest
    })
}

fn many<T: Widened>(x: &[f32], weight: &[T], [rows, input, output]: [usize; 3]) -> Vec<f32> {
    let mut y = vec![0.0; rows * output];
    // Panels of one size, so that none is left too small for the fast kernels.
    let panels = output.div_ceil((PANEL / input).max(1));
    let width = output.div_ceil(panels);
    let mut wide = Vec::new();
    for (panel, weight) in weight.chunks(width * input).enumerate() {
        let weight = match T::as_f32(weight) {
            Some(weight) => weight,
            None => {
                wide.resize(weight.len(), 0.0);
                wide.par_chunks_mut(TASK)
                    .zip(weight.par_chunks(TASK))
                    .for_each(|(wide, stored)| T::dispatch(Widening { stored, wide }));
                &wide
            }
        };
        product(x, weight, &mut y[panel * width..], [rows, input, output]);
    }
    y
}

/// Widens numbers into memory.
struct Widening<'a, T> {
    stored: &'a [T],
    wide: &'a mut [f32],
}

impl<T: Stored> Kernel<T> for Widening<'_, T> {
    #[inline(always)]
    fn run<V: Vector<T>>(self) {
        let (stored, stored_rest) = self.stored.as_chunks::<LANES>();
        let (wide, wide_rest) = self.wide.as_chunks_mut::<LANES>();
        for (wide, stored) in wide.iter_mut().zip(stored) {
            *wide = V::widen(stored).numbers();
        }
        for (wide, stored) in wide_rest.iter_mut().zip(stored_rest) {
            *wide = stored.wide();
        }
    }
}

/// Writes `x · weightᵀ` into the first columns of `y`.
///
/// # Shapes
/// - x: `[rows, input]`
/// - weight: `[width, input]`
/// - y: `[rows, output]` without what stands before its first column
fn product(x: &[f32], weight: &[f32], y: &mut [f32], [rows, input, output]: [usize; 3]) {
    let width = weight.len() / input;
    assert!(x.len() == rows * input && weight.len() == width * input);
    assert!(y.len() >= (rows - 1) * output + width);
    let parallelism = if rows * width * input >= PARALLEL {
        gemm::Parallelism::Rayon(0)
    } else {
        gemm::Parallelism::None
    };
    // SAFETY: gemm reads `x` and `weight` and writes `y` at exactly the elements that the assertions
    // above found to be inside their slices, and `y` is borrowed exclusively.
    #[allow(unsafe_code, reason = "gemm takes pointers")]
    unsafe {
        gemm::gemm(
            rows,
            width,
            input,
            y.as_mut_ptr(),
            1,
            output as isize,
            false,
            x.as_ptr(),
            1,
            input as isize,
            weight.as_ptr(),
            input as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
