//! Prepares the batches of coming steps in a thread of its own.

use crate::order::{BatchOrder, random};
use crate::shifts::Shifts;
use crate::{Sample, TrainError};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;
use std::sync::mpsc::SyncSender;
use victor_model::Sequence;

/// The numbers of the batch's pictures, in the order of the samples.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Visual {
    /// No pictures.
    None,
    /// `[images, visual_tokens, vision_hidden]`
    Features(Vec<f32>),
    /// `[images, channels, image_size, image_size]`
    Pixels(Vec<f32>),
}

/// Samples of one forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) sequences: Vec<Sequence>,
    /// For each sample's text tokens, whether they carry loss.
    pub(crate) learned: Vec<Vec<bool>>,
    pub(crate) visual: Visual,
    pub(crate) perturbation: Perturbation,
    /// For each picture the places of its visual tokens, where a step sees a choice of them; else empty.
    pub(crate) chosen: Vec<Vec<usize>>,
}

/// Random changes of the features, drawn here so that they follow from the seed and the step alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Perturbation {
    /// A factor for each visual token, 0 or 1; empty when none is dropped.
    pub(crate) keep: Vec<f32>,
    /// Normal noise for each number; empty when there is none.
    pub(crate) noise: Vec<f32>,
}

/// Where features or pixels come from.
pub(crate) trait PictureSource: Send {
    /// Appends the numbers of one picture.
    fn append(&mut self, image: u32, into: &mut Vec<f32>) -> Result<(), TrainError>;

    /// Whether the numbers are pixels and not features.
    fn gives_pixels(&self) -> bool;
}

/// What batches are made of.
pub(crate) struct Loader<'a> {
    pub(crate) samples: &'a [Sample],
    pub(crate) pictures: Box<dyn PictureSource + 'a>,
    pub(crate) marker: u32,
    pub(crate) visual_tokens: usize,
    pub(crate) vision_hidden: usize,
    pub(crate) skip_bad: bool,
    pub(crate) seed: u64,
    pub(crate) feature_dropout: f64,
    pub(crate) feature_noise: f64,
    /// How many of a picture's visual tokens a step sees; `None` for all.
    pub(crate) visual_sample: Option<usize>,
    /// Looks to shift features by.
    pub(crate) shifts: Option<Shifts>,
}

impl Loader<'_> {
    /// Sends the batches of every step of `steps` until the receiver is gone.
    pub(crate) fn run(
        mut self,
        order: &BatchOrder,
        accumulation: usize,
        steps: Range<usize>,
        sender: &SyncSender<Result<Vec<Batch>, TrainError>>,
    ) {
        let per_epoch = order.batches_per_epoch().div_ceil(accumulation);
        let mut current = None;
        for step in steps {
            let (epoch, within) = (step / per_epoch, step % per_epoch);
            if current.as_ref().is_none_or(|(number, _)| *number != epoch) {
                current = Some((epoch, order.epoch(epoch)));
            }
            let Some((_, batches)) = &current else { return };
            let end = ((within + 1) * accumulation).min(batches.len());
            let mut random = random(self.seed ^ 0x5bd1_e995, step as u64);
            let batches: Result<Vec<Batch>, TrainError> = batches[within * accumulation..end]
                .iter()
                .map(|entries| self.batch(entries, &mut random))
                .collect();
            let failed = batches.is_err();
            if sender.send(batches).is_err() || failed {
                return;
            }
        }
    }

    /// One batch; with `skip_bad` it may hold fewer samples than asked for.
    pub(crate) fn batch(
        &mut self,
        entries: &[usize],
        random: &mut ChaCha8Rng,
    ) -> Result<Batch, TrainError> {
        let mut batch = Batch {
            sequences: Vec::new(),
            learned: Vec::new(),
            visual: Visual::None,
            perturbation: Perturbation::default(),
            chosen: Vec::new(),
        };
        let seen = self.visual_sample.unwrap_or(self.visual_tokens);
        let mut numbers = Vec::new();
        let mut images = 0;
        for sample in entries.iter().map(|entry| &self.samples[*entry]) {
            let before = numbers.len();
            let mut load = || {
                for image in &sample.images {
                    self.pictures.append(*image, &mut numbers)?;
                }
                Ok(())
            };
            match load() {
                Ok(()) => {}
                Err(_) if self.skip_bad => {
                    numbers.truncate(before);
                    continue;
                }
                Err(error) => return Err(error),
            }
            images += sample.images.len();
            batch.sequences.push(sample.sequence(self.marker, seen)?);
            batch.learned.push(sample.learned_text(self.marker));
        }
        if self.visual_sample.is_some() {
            (batch.chosen, numbers) = self.choose(images, seen, &numbers, random);
        }
        if let Some(shifts) = &self.shifts {
            for picture in numbers.chunks_exact_mut(seen * self.vision_hidden) {
                shifts.apply(picture, random);
            }
        }
        batch.perturbation = self.perturbation(images * seen, random);
        batch.visual = match (images, self.pictures.gives_pixels()) {
            (0, _) => Visual::None,
            (_, true) => Visual::Pixels(numbers),
            (_, false) => Visual::Features(numbers),
        };
        Ok(batch)
    }

    /// A random choice of each picture's visual tokens, always with the first: their places, and their
    /// features out of all.
    fn choose(
        &self,
        images: usize,
        seen: usize,
        features: &[f32],
        random: &mut ChaCha8Rng,
    ) -> (Vec<Vec<usize>>, Vec<f32>) {
        let mut chosen = Vec::with_capacity(images);
        let mut kept = Vec::with_capacity(images * seen * self.vision_hidden);
        for image in 0..images {
            // The first is the class token where the tower has one.
            let others = rand::seq::index::sample(random, self.visual_tokens - 1, seen - 1);
            let mut places: Vec<usize> = others.into_iter().map(|place| place + 1).collect();
            places.push(0);
            places.sort_unstable();
            for place in &places {
                let start = (image * self.visual_tokens + place) * self.vision_hidden;
                kept.extend_from_slice(&features[start..start + self.vision_hidden]);
            }
            chosen.push(places);
        }
        (chosen, kept)
    }

    fn perturbation(&self, tokens: usize, random: &mut ChaCha8Rng) -> Perturbation {
        let mut perturbation = Perturbation::default();
        if self.feature_dropout > 0.0 {
            let keep = |_| f32::from(!random.random_bool(self.feature_dropout));
            perturbation.keep = (0..tokens).map(keep).collect();
        }
        if self.feature_noise > 0.0 {
            let numbers = tokens * self.vision_hidden;
            perturbation.noise = (0..numbers).map(|_| normal(random)).collect();
        }
        perturbation
    }
}

/// A standard normal number (Box and Muller).
fn normal(random: &mut ChaCha8Rng) -> f32 {
    let (radius, angle): (f32, f32) = (random.random(), random.random());
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f32::consts::TAU * angle).cos()
}
