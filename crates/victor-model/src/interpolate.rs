//! Position tables resampled to another grid, as transformers' DINOv2 does for larger pictures.
//!
//! Bicubic with a = −0.75, half-pixel centres, no antialiasing, edges repeated (PyTorch's
//! `interpolate(mode="bicubic", align_corners=False)`). burn's own aligns corners.

use burn::prelude::*;

/// A table for `rows × columns` patches from one for a square grid; the `before` rows of the class token
/// stay.
///
/// # Shapes
/// - table: `[before + side², hidden]`
/// - output: `[before + rows · columns, hidden]`
pub(crate) fn positions<B: Backend>(
    table: Tensor<B, 2>,
    before: usize,
    rows: usize,
    columns: usize,
) -> Tensor<B, 2> {
    let entries = table.dims()[0];
    let side = (entries - before).isqrt();
    if (rows, columns) == (side, side) {
        return table;
    }
    let (vertical, horizontal) = (taps(side, rows), taps(side, columns));
    let mut weights = vec![0.0; rows * columns * side * side];
    for (row, vertical) in vertical.iter().enumerate() {
        for (column, horizontal) in horizontal.iter().enumerate() {
            let target = &mut weights[(row * columns + column) * side * side..][..side * side];
            for (y, wy) in vertical {
                for (x, wx) in horizontal {
                    target[y * side + x] += wy * wx;
                }
            }
        }
    }
    let shape = [rows * columns, side * side];
    let weights = Tensor::<B, 2>::from_data(TensorData::new(weights, shape), &table.device());
    let grid = weights.matmul(table.clone().narrow(0, before, side * side));
    if before == 0 {
        return grid;
    }
    Tensor::cat(vec![table.narrow(0, 0, before), grid], 0)
}

/// For every target place the four source places and their weights.
fn taps(source: usize, target: usize) -> Vec<[(usize, f32); 4]> {
    let scale = source as f64 / target as f64;
    let tap = |index: usize| {
        let centre = (index as f64 + 0.5) * scale - 0.5;
        let first = centre.floor();
        [-1.0, 0.0, 1.0, 2.0].map(|offset| {
            let place = (first + offset).clamp(0.0, source as f64 - 1.0);
            (place as usize, cubic(centre - first - offset) as f32)
        })
    };
    (0..target).map(tap).collect()
}

/// The cubic convolution kernel (Keys 1981).
fn cubic(distance: f64) -> f64 {
    const A: f64 = -0.75;
    let x = distance.abs();
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_and_an_equal_grid_is_itself() {
        for (source, target) in [(2, 4), (37, 16), (3, 7), (16, 16)] {
            for taps in taps(source, target) {
                let sum: f32 = taps.iter().map(|(_, weight)| weight).sum();
                assert!((sum - 1.0).abs() < 1e-6, "{source} to {target}");
            }
        }
        for (index, taps) in taps(5, 5).iter().enumerate() {
            assert_eq!(taps[1], (index, 1.0));
        }
    }
}
