//! Which samples form which batch: a pure function of the seed, the epoch and the batch's number.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// Batches sorted by length in this many at a time: little padding, and still much chance.
const MEGA_BATCHES: usize = 50;

/// What matters of a sample for grouping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Whether it has pictures.
    pub pictures: bool,
    /// Its rows.
    pub rows: usize,
}

/// The order of all samples.
#[derive(Clone, Debug)]
pub struct BatchOrder {
    shapes: Vec<Shape>,
    entries: Vec<usize>,
    batch_size: usize,
    seed: u64,
}

impl BatchOrder {
    /// `sources` are ranges of samples with how often each comes up in an epoch; of a fraction the
    /// seed chooses the samples, the same in every epoch.
    pub fn new(
        shapes: Vec<Shape>,
        sources: &[(Range<usize>, f64)],
        batch_size: usize,
        seed: u64,
    ) -> Self {
        let mut entries = Vec::new();
        for (number, (range, weight)) in sources.iter().enumerate() {
            for _ in 0..weight.trunc() as usize {
                entries.extend(range.clone());
            }
            let share = (weight.fract() * range.len() as f64).round() as usize;
            let mut shuffled: Vec<usize> = range.clone().collect();
            shuffled.shuffle(&mut random(seed, u64::MAX - number as u64));
            entries.extend(shuffled.into_iter().take(share));
        }
        Self {
            shapes,
            entries,
            batch_size,
            seed,
        }
    }

    /// Batches in every epoch.
    pub fn batches_per_epoch(&self) -> usize {
        let pictures = |entry: &&usize| self.shapes[**entry].pictures;
        let with = self.entries.iter().filter(pictures).count();
        let without = self.entries.len() - with;
        with.div_ceil(self.batch_size) + without.div_ceil(self.batch_size)
    }

    /// The batches of an epoch: each of one modality and of similar lengths.
    pub fn epoch(&self, epoch: usize) -> Vec<Vec<usize>> {
        let random = &mut random(self.seed, epoch as u64);
        let mut batches = Vec::with_capacity(self.batches_per_epoch());
        for pictures in [true, false] {
            let of_modality = |entry: &usize| self.shapes[*entry].pictures == pictures;
            let mut entries: Vec<usize> =
                self.entries.iter().copied().filter(of_modality).collect();
            entries.shuffle(random);
            for mega in entries.chunks_mut(self.batch_size * MEGA_BATCHES) {
                mega.sort_by_key(|entry| self.shapes[*entry].rows);
                batches.extend(mega.chunks(self.batch_size).map(<[usize]>::to_vec));
            }
        }
        batches.shuffle(random);
        batches
    }
}

/// The random numbers of one purpose.
pub(crate) fn random(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64) -> BatchOrder {
        let shape = |i: usize| Shape {
            pictures: !i.is_multiple_of(3),
            rows: (i * 7919) % 101,
        };
        let sources = [(0..600, 1.0), (600..1000, 2.5)];
        BatchOrder::new((0..1000).map(shape).collect(), &sources, 8, seed)
    }

    #[test]
    fn an_epoch_holds_every_sample_as_often_as_its_weight_says() {
        for epoch in 0..3 {
            let mut counts = vec![0; 1000];
            for entry in order(1).epoch(epoch).into_iter().flatten() {
                counts[entry] += 1;
            }
            assert!(counts[..600].iter().all(|count| *count == 1));
            assert!(counts[600..].iter().all(|count| [2, 3].contains(count)));
            assert_eq!(counts[600..].iter().sum::<usize>(), 1000);
        }
    }

    #[test]
    fn batches_are_of_one_modality_and_of_similar_length() {
        let order = order(1);
        let batches = order.epoch(0);
        assert_eq!(batches.len(), order.batches_per_epoch());
        let mut spread = 0;
        for batch in &batches {
            let shapes: Vec<Shape> = batch.iter().map(|entry| order.shapes[*entry]).collect();
            assert!(
                shapes
                    .iter()
                    .all(|shape| shape.pictures == shapes[0].pictures)
            );
            let rows = shapes.iter().map(|shape| shape.rows);
            spread += rows.clone().max().unwrap_or(0) - rows.min().unwrap_or(0);
        }
        assert!(spread / batches.len() < 10, "{spread}");
    }

    #[test]
    fn the_order_follows_from_seed_and_epoch() {
        assert_eq!(order(1).epoch(2), order(1).epoch(2));
        assert_ne!(order(1).epoch(2), order(1).epoch(3));
        assert_ne!(order(1).epoch(2), order(2).epoch(2));
    }
}
