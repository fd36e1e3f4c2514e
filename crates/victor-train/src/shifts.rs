//! Random shifts of a picture's features by what tells apart two pictures of one caption.
//!
//! Few looks of each thing are soon known by heart. The difference between two looks of one thing is a
//! change that leaves a name true, and added to the features of another thing it gives a look nobody drew.

use crate::discriminant::mean_features;
use crate::{FeatureCache, TrainError};
use rand::Rng;
use rand::seq::IndexedRandom;
use std::collections::BTreeMap;
use std::path::Path;

/// Mean features of pictures by caption.
pub(crate) struct Shifts {
    groups: Vec<Vec<Vec<f32>>>,
    /// A factor on every shift.
    scale: f32,
}

impl Shifts {
    /// From pictures, each with the number of its caption.
    ///
    /// # Errors
    /// If no two pictures have one caption, or a picture's features are not in the cache.
    pub(crate) fn new(
        cache: &mut FeatureCache,
        pictures: &[(&Path, usize)],
        width: usize,
        scale: f64,
    ) -> Result<Self, TrainError> {
        let mut groups: BTreeMap<usize, Vec<Vec<f32>>> = BTreeMap::new();
        for (picture, caption) in pictures {
            let mean = mean_features(cache, picture, width)?;
            let mean = mean.into_iter().map(|value| value as f32).collect();
            groups.entry(*caption).or_default().push(mean);
        }
        groups.retain(|_, pictures| pictures.len() > 1);
        if groups.is_empty() {
            return Err(TrainError::NoGroups {
                field: "look_shift",
                needed: 1,
                groups: 0,
            });
        }
        Ok(Self {
            groups: groups.into_values().collect(),
            scale: scale as f32,
        })
    }

    /// Adds the difference of two random looks of one random thing to every visual token of a picture.
    pub(crate) fn apply(&self, features: &mut [f32], random: &mut impl Rng) {
        let Some(group) = self.groups.choose(random) else {
            return;
        };
        let looks: Vec<&Vec<f32>> = group.choose_multiple(random, 2).collect();
        let [from, to] = looks[..] else { return };
        for token in features.chunks_exact_mut(from.len()) {
            for ((value, from), to) in token.iter_mut().zip(from).zip(to) {
                *value += self.scale * (to - from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_shift_is_a_difference_within_one_caption_on_every_token() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut cache = FeatureCache::open(dir.path(), 1, 4).expect("opened");
        let paths: Vec<_> = (0..5)
            .map(|i| dir.path().join(format!("{i}.png")))
            .collect();
        for (number, path) in paths.iter().enumerate() {
            std::fs::write(path, b"pixels").expect("written");
            let value = [1.0, 3.0, 10.0, 14.0, 500.0][number];
            cache.insert(&[path], &[value; 4]).expect("stored");
        }
        let captions = [0, 0, 1, 1, 2];
        let pictures: Vec<(&Path, usize)> = paths
            .iter()
            .zip(captions)
            .map(|(path, caption)| (path.as_path(), caption))
            .collect();
        let shifts = Shifts::new(&mut cache, &pictures, 2, 0.5).expect("groups");
        let random = &mut ChaCha8Rng::seed_from_u64(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let mut features = [7.0; 4];
            shifts.apply(&mut features, random);
            assert!(features.iter().all(|value| *value == features[0]));
            seen.insert(features[0] as i32);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [5, 6, 8, 9]);
        assert!(Shifts::new(&mut cache, &pictures[3..], 2, 1.0).is_err());
    }
}
