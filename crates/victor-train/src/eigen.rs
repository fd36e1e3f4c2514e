//! Eigenvectors of small symmetric matrices, by Jacobi's rotations.

/// Eigenvalues and unit eigenvectors of a symmetric matrix, in no order.
pub(crate) fn eigen(mut matrix: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
    const SWEEPS: usize = 30;
    let size = matrix.len();
    // Row `i` becomes the `i`-th eigenvector.
    let mut vectors: Vec<Vec<f64>> = (0..size)
        .map(|i| (0..size).map(|j| f64::from(u8::from(i == j))).collect())
        .collect();
    let diagonal: f64 = (0..size).map(|i| matrix[i][i].powi(2)).sum();
    for _ in 0..SWEEPS {
        let mut rest = 0.0;
        for p in 0..size {
            for q in p + 1..size {
                let off = matrix[p][q];
                rest += off * off;
                if off.abs() <= f64::MIN_POSITIVE {
                    continue;
                }
                let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * off);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let cos = 1.0 / (t * t + 1.0).sqrt();
                let sin = t * cos;
                rotate_rows(&mut matrix, p, q, cos, sin);
                for row in &mut matrix {
                    (row[p], row[q]) = (cos * row[p] - sin * row[q], sin * row[p] + cos * row[q]);
                }
                rotate_rows(&mut vectors, p, q, cos, sin);
            }
        }
        if rest <= 1e-24 * diagonal {
            break;
        }
    }
    let values = (0..size).map(|i| matrix[i][i]);
    values.zip(vectors).collect()
}

fn rotate_rows(rows: &mut [Vec<f64>], p: usize, q: usize, cos: f64, sin: f64) {
    let (left, right) = rows.split_at_mut(q);
    for (a, b) in left[p].iter_mut().zip(&mut right[0]) {
        (*a, *b) = (cos * *a - sin * *b, sin * *a + cos * *b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_give_the_matrix_back() {
        let size = 7;
        let entry = |i: usize, j: usize| ((i * j + i + j) % 5) as f64 - 1.5;
        let matrix: Vec<Vec<f64>> = (0..size)
            .map(|i| (0..size).map(|j| entry(i, j)).collect())
            .collect();
        let found = eigen(matrix.clone());
        for (i, row) in matrix.iter().enumerate() {
            for (j, value) in row.iter().enumerate() {
                let terms = found
                    .iter()
                    .map(|(value, vector)| value * vector[i] * vector[j]);
                assert!((terms.sum::<f64>() - value).abs() < 1e-9);
            }
        }
    }
}
