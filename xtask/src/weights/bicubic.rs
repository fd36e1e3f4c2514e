//! Bicubic resampling of a position table, as `torch.nn.functional.interpolate` does it for DINOv2:
//! `align_corners=False`, no antialiasing, taps outside the grid taken from its edge.

/// The cubic's free coefficient, as in PyTorch.
const A: f64 = -0.75;

/// One output sample: the four input samples it blends, with their weights.
type Taps = [(usize, f64); 4];

/// Resamples a square table of `from`² rows to `to`² rows.
///
/// # Shapes
/// - table: `[from * from, width]`
/// - output: `[to * to, width]`
pub(super) fn resample(table: &[f32], from: usize, to: usize, width: usize) -> Vec<f32> {
    assert_eq!(table.len(), from * from * width, "not a square table");
    let taps: Vec<Taps> = (0..to).map(|at| taps(at, from, to)).collect();
    let mut output = Vec::with_capacity(to * to * width);
    for row in &taps {
        for column in &taps {
            output.extend((0..width).map(|channel| {
                let sample =
                    |y: usize, x: usize| f64::from(table[(y * from + x) * width + channel]);
                let blend = |y| {
                    column
                        .iter()
                        .map(|&(x, weight)| weight * sample(y, x))
                        .sum::<f64>()
                };
                row.iter()
                    .map(|&(y, weight)| weight * blend(y))
                    .sum::<f64>() as f32
            }));
        }
    }
    output
}

fn taps(at: usize, from: usize, to: usize) -> Taps {
    let center = (at as f64 + 0.5) * from as f64 / to as f64 - 0.5;
    let first = center.floor() - 1.0;
    std::array::from_fn(|tap| {
        let position = first + tap as f64;
        let inside = position.clamp(0.0, (from - 1) as f64);
        (inside as usize, cubic((center - position).abs()))
    })
}

/// The convolution kernel at a distance of at most two samples.
fn cubic(distance: f64) -> f64 {
    let x = distance;
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else {
        ((x - 5.0) * x + 8.0) * x * A - 4.0 * A
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_of_every_sample_sum_to_one() {
        for (from, to) in [(37, 16), (16, 37), (4, 4)] {
            for at in 0..to {
                let sum: f64 = taps(at, from, to).iter().map(|tap| tap.1).sum();
                assert!((sum - 1.0).abs() < 1e-12, "{from} to {to} at {at}: {sum}");
            }
        }
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let table: Vec<f32> = (0..18).map(|at| at as f32 * 0.5).collect();
        assert_eq!(resample(&table, 3, 3, 2), table);
    }

    #[test]
    fn a_ramp_stays_a_ramp_away_from_the_edges() {
        let table: Vec<f32> = (0..64).map(|at| (at % 8) as f32).collect();
        let output = resample(&table, 8, 4, 1);
        // Samples at 2.5 and 4.5, halfway between columns.
        assert!((output[5] - 2.5).abs() < 1e-6);
        assert!((output[6] - 4.5).abs() < 1e-6);
    }
}
