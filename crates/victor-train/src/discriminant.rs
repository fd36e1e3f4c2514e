//! A start for a fresh projector: the linear discriminants of the pictures, by what is said of them.
//!
//! A tower's features vary most along directions that tell nothing, such as who drew a picture. Fisher's
//! discriminants are the directions along which pictures of different captions differ most, beside how
//! pictures of one caption differ. Their weights are folded into the projector's first layer, so the
//! model is the same graph as without.

use crate::eigen::eigen;
use crate::{FeatureCache, TrainError};
use burn::module::Param;
use burn::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use victor_model::{VictorBackend, Vlm};

/// Share of the mean variance within captions added to each direction's: some have hardly any.
const FLOOR: f64 = 0.01;

/// Sets the projector's first layer to the discriminants of the mean features of `pictures`, each given
/// with the number of its caption: centred, of unit variance on the whole, the most telling first.
///
/// Where the layer is wider than the features, its other rows keep their fresh weights, on these outputs.
///
/// # Errors
/// If no two pictures have one caption or all have, or a picture's features are not in the cache.
pub(crate) fn start_projector<B: VictorBackend>(
    mut model: Vlm<B>,
    cache: &mut FeatureCache,
    pictures: &[(&Path, usize)],
) -> Result<Vlm<B>, TrainError> {
    let Some(picture) = &model.config().picture else {
        return Ok(model);
    };
    let width = picture.vision_config.hidden_size;
    let mut groups: BTreeMap<usize, Vec<Vec<f64>>> = BTreeMap::new();
    for (picture, caption) in pictures {
        let features = mean_features(cache, picture, width)?;
        groups.entry(*caption).or_default().push(features);
    }
    // A caption of a single picture says nothing of what varies within one.
    groups.retain(|_, pictures| pictures.len() > 1);
    if groups.len() < 2 {
        return Err(TrainError::NoGroups {
            field: "discriminant_projector",
            needed: 2,
            groups: groups.len(),
        });
    }
    let groups: Vec<_> = groups.into_values().collect();
    let start = Discriminants::new(&groups, width);

    let Some(encoder) = &mut model.picture else {
        return Ok(model);
    };
    let layer = &mut encoder.multi_modal_projector.linear_1;
    let device = layer.weight.val().device();
    let [rows, _] = layer.weight.val().dims();
    let fresh = layer.weight.val().into_data().convert::<f64>();
    let fresh: Vec<f64> = fresh.to_vec().unwrap_or_default();
    let (mut weight, mut bias) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let row = match start.rows.get(row) {
            Some(row) => row.clone(),
            None => combine(&fresh[row * width..(row + 1) * width], &start.rows),
        };
        bias.push(-dot(&row, &start.mean));
        weight.extend(row);
    }
    let weight = TensorData::new(weight, [rows, width]).convert::<f32>();
    layer.weight = Param::from_tensor(Tensor::from_data(weight, &device));
    if let Some(old) = &mut layer.bias {
        let bias = TensorData::new(bias, [rows]).convert::<f32>();
        *old = Param::from_tensor(Tensor::from_data(bias, &device));
    }
    Ok(model)
}

/// The mean over a picture's visual tokens, `[width]`.
pub(crate) fn mean_features(
    cache: &mut FeatureCache,
    picture: &Path,
    width: usize,
) -> Result<Vec<f64>, TrainError> {
    let mut features = Vec::new();
    cache.read(picture, &mut features)?;
    let tokens: Vec<Vec<f64>> = features
        .chunks_exact(width)
        .map(|token| token.iter().copied().map(f64::from).collect())
        .collect();
    Ok(mean(&tokens))
}

struct Discriminants {
    mean: Vec<f64>,
    /// The most telling direction first.
    rows: Vec<Vec<f64>>,
}

impl Discriminants {
    /// `groups` are the samples of each caption.
    fn new(groups: &[Vec<Vec<f64>>], width: usize) -> Self {
        let means: Vec<Vec<f64>> = groups.iter().map(|group| mean(group)).collect();
        let centre = mean(&means);
        let within = groups
            .iter()
            .zip(&means)
            .flat_map(|(group, mean)| group.iter().map(move |sample| difference(sample, mean)));
        let mut within = eigen(scatter(within, width));
        let total: f64 = within.iter().map(|(variance, _)| variance).sum();
        // Where nothing varies there is nothing to scale.
        let floor = (FLOOR * total / width as f64).max(1e-12);
        for (variance, direction) in &mut within {
            let scale = (variance.max(0.0) + floor).sqrt().recip();
            direction.iter_mut().for_each(|value| *value *= scale);
        }
        // Rows on whose outputs pictures of one caption vary alike in every direction.
        let even: Vec<Vec<f64>> = within.into_iter().map(|(_, row)| row).collect();

        let spread: Vec<Vec<f64>> = means
            .iter()
            .map(|mean| {
                let mean = difference(mean, &centre);
                even.iter().map(|row| dot(row, &mean)).collect()
            })
            .collect();
        let mut between = eigen(scatter(spread.into_iter(), width));
        between.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let mut rows: Vec<Vec<f64>> = between
            .iter()
            .map(|(_, direction)| combine(direction, &even))
            .collect();

        let outputs = rows.iter().flat_map(|row| {
            let samples = groups.iter().flatten();
            samples.map(|sample| dot(row, &difference(sample, &centre)))
        });
        let count = (rows.len() * groups.iter().map(Vec::len).sum::<usize>()) as f64;
        let deviation = (outputs.map(|value| value * value).sum::<f64>() / count).sqrt();
        for value in rows.iter_mut().flatten() {
            *value /= deviation.max(1e-12);
        }
        Self { mean: centre, rows }
    }
}

fn mean(samples: &[Vec<f64>]) -> Vec<f64> {
    let mut mean = vec![0.0; samples.first().map_or(0, Vec::len)];
    for sample in samples {
        for (sum, value) in mean.iter_mut().zip(sample) {
            *sum += value / samples.len() as f64;
        }
    }
    mean
}

/// The mean product of every two numbers of a sample.
fn scatter(samples: impl Iterator<Item = Vec<f64>>, width: usize) -> Vec<Vec<f64>> {
    let mut scatter = vec![vec![0.0; width]; width];
    let mut count = 0.0;
    for sample in samples {
        count += 1.0;
        for (row, left) in scatter.iter_mut().zip(&sample) {
            for (sum, right) in row.iter_mut().zip(&sample) {
                *sum += left * right;
            }
        }
    }
    for value in scatter.iter_mut().flatten() {
        *value /= count;
    }
    scatter
}

/// The sum of `rows`, each times its weight.
fn combine(weights: &[f64], rows: &[Vec<f64>]) -> Vec<f64> {
    let mut sum = vec![0.0; weights.len()];
    for (weight, row) in weights.iter().zip(rows) {
        for (sum, value) in sum.iter_mut().zip(row) {
            *sum += weight * value;
        }
    }
    sum
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Inner, tiny_model};
    use std::path::PathBuf;

    const WIDTH: usize = 8;
    const TOKENS: usize = 4;
    /// Pictures of each caption.
    const EACH: usize = 20;

    /// Ten captions that differ a little along the last axis, and vary much along all others.
    fn fixture() -> (tempfile::TempDir, FeatureCache, Vec<PathBuf>) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut cache = FeatureCache::open(dir.path(), 1, TOKENS * WIDTH).expect("opened");
        let paths: Vec<PathBuf> = (0..10 * EACH)
            .map(|number| dir.path().join(format!("{number}.png")))
            .collect();
        for (number, path) in paths.iter().enumerate() {
            std::fs::write(path, b"pixels").expect("written");
            let wave = |at: usize| ((number * (at + 3) * 7919) % 101) as f32 / 101.0;
            let features: Vec<f32> = (0..TOKENS * WIDTH)
                .map(|i| match i % WIDTH {
                    7 => (number / EACH) as f32 + wave(7) * 0.1 + 3.0,
                    at => 10.0 * wave(at) + wave(0) + 5.0,
                })
                .collect();
            cache.insert(&[path], &features).expect("stored");
        }
        (dir, cache, paths)
    }

    #[test]
    fn the_first_output_tells_captions_apart() {
        let (_dir, mut cache, paths) = fixture();
        let numbered = paths.iter().enumerate();
        let pictures: Vec<(&Path, usize)> = numbered
            .map(|(number, path)| (path.as_path(), number / EACH))
            .collect();
        let model = tiny_model::<Inner>(2, Some(1));
        let model = start_projector(model, &mut cache, &pictures).expect("started");

        let mut means = Vec::new();
        for path in &paths {
            let mean = mean_features(&mut cache, path, WIDTH).expect("held");
            means.extend(mean.iter().map(|value| *value as f32));
        }
        let means = TensorData::new(means, [1, paths.len(), WIDTH]);
        let means = Tensor::<Inner, 3>::from_data(means, &model.device());
        let output = model
            .picture
            .as_ref()
            .expect("a picture side")
            .multi_modal_projector
            .linear_1
            .forward(means);
        let output = output.narrow(2, 0, WIDTH).into_data();
        let output = output.to_vec::<f32>().expect("numbers");
        let variance = output.iter().map(|value| value * value).sum::<f32>() / output.len() as f32;
        assert!((variance - 1.0).abs() < 1e-2, "{variance}");
        let first: Vec<f32> = output.iter().step_by(WIDTH).copied().collect();
        let ends = |group: &[f32]| {
            let least = group.iter().copied().fold(f32::MAX, f32::min);
            (least, group.iter().copied().fold(f32::MIN, f32::max))
        };
        let mut ranges: Vec<(f32, f32)> = first.chunks(EACH).map(ends).collect();
        ranges.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(
            ranges.windows(2).all(|pair| pair[0].1 < pair[1].0),
            "{ranges:?}"
        );
    }

    #[test]
    fn captions_of_one_picture_each_are_refused() {
        let (_dir, mut cache, paths) = fixture();
        let pictures = [(paths[0].as_path(), 0), (paths[1].as_path(), 1)];
        let model = tiny_model::<Inner>(2, Some(1));
        let error = start_projector(model, &mut cache, &pictures).expect_err("refused");
        assert!(
            error.to_string().contains("`discriminant_projector`"),
            "{error}"
        );
    }
}
