//! Encodes every picture of a run once with a frozen tower, and reads pictures while training.

use crate::batch::PictureSource;
use crate::{FeatureCache, Progress, TrainError};
use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use victor_data::{ImageProcessor, decode_image};
use victor_model::{VictorBackend, Vlm};

/// Pictures encoded together.
const BATCH: usize = 16;

/// Batches under way at once: one is decoded or normalised while another is in a matrix product.
const WORKERS: usize = 2;

/// Stands for the tower's weights, the selected layer and the processor.
pub(crate) fn fingerprint<B: VictorBackend>(model: &Vlm<B>, processor: &ImageProcessor) -> u64 {
    let mut visitor = WeightHash(DefaultHasher::new());
    if let Some(picture) = &model.picture {
        picture.vision_tower.visit(&mut visitor);
    }
    let mut described = format!("{processor:?}");
    if let Some(picture) = &model.config().picture {
        let (vision, layer) = (&picture.vision_config, picture.vision_feature_layer);
        let select = picture.vision_feature_select_strategy;
        described.push_str(&format!(" {vision:?} {layer} {select:?}"));
    }
    described.hash(&mut visitor.0);
    visitor.0.finish()
}

struct WeightHash(DefaultHasher);

impl<B: Backend> ModuleVisitor<B> for WeightHash {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.write(param.val().into_data().as_bytes());
    }
}

/// Encodes those of `pictures` that the cache does not hold.
///
/// Returns the numbers of the pictures that could not be read, which without `skip_bad` are an error.
pub(crate) fn fill<B: VictorBackend>(
    cache: &mut FeatureCache,
    model: &Vlm<B>,
    processor: &ImageProcessor,
    pictures: &[PathBuf],
    skip_bad: bool,
    progress: Progress,
) -> Result<HashSet<u32>, TrainError> {
    let mut bad = HashSet::new();
    let mut missing = Vec::new();
    for (number, path) in pictures.iter().enumerate() {
        match cache.has(path) {
            Ok(true) => {}
            Ok(false) => missing.push((number as u32, path.as_path())),
            Err(_) if skip_bad => {
                bad.insert(number as u32);
            }
            Err(error) => return Err(error),
        }
    }
    if missing.is_empty() {
        return Ok(bad);
    }
    let bar = progress.bar(missing.len(), "encoding pictures");
    let (sender, receiver) = sync_channel(WORKERS);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (sender, missing, model) = (sender.clone(), &missing, model.clone());
            scope.spawn(move || {
                for chunk in missing.chunks(BATCH).skip(worker).step_by(WORKERS) {
                    if sender.send(encode(&model, processor, chunk)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for encoded in receiver {
            bar.inc((encoded.paths.len() + encoded.failed.len()) as u64);
            for (number, error) in encoded.failed {
                if !skip_bad {
                    return Err(error);
                }
                bad.insert(number);
            }
            if !encoded.paths.is_empty() {
                cache.insert(&encoded.paths, &encoded.features)?;
            }
        }
        bar.finish();
        Ok(bad)
    })
}

/// One batch of pictures after the tower.
struct Encoded<'a> {
    paths: Vec<&'a Path>,
    features: Vec<f32>,
    failed: Vec<(u32, TrainError)>,
}

fn encode<'a, B: VictorBackend>(
    model: &Vlm<B>,
    processor: &ImageProcessor,
    chunk: &[(u32, &'a Path)],
) -> Encoded<'a> {
    let mut encoded = Encoded {
        paths: Vec::new(),
        features: Vec::new(),
        failed: Vec::new(),
    };
    let mut pixels = Vec::new();
    for (number, path) in chunk {
        match read_pixels(path, processor) {
            Ok(values) => {
                encoded.paths.push(path);
                pixels.extend(values);
            }
            Err(error) => encoded.failed.push((*number, error)),
        }
    }
    if !encoded.paths.is_empty() {
        let (height, width) = processor.output_size();
        let shape = [encoded.paths.len(), 3, height, width];
        let pixels = Tensor::<B, 4>::from_data(TensorData::new(pixels, shape), &model.device());
        let features = model.encode_images(pixels).into_data().convert::<f32>();
        encoded.features = features.to_vec().unwrap_or_default();
    }
    encoded
}

fn read_pixels(path: &Path, processor: &ImageProcessor) -> Result<Vec<f32>, TrainError> {
    Ok(processor.preprocess(&decode_image(path)?)?.values)
}

/// Features from the cache.
pub(crate) struct Cached<'a> {
    pub(crate) cache: &'a mut FeatureCache,
    pub(crate) pictures: &'a [PathBuf],
}

impl PictureSource for Cached<'_> {
    fn append(&mut self, image: u32, into: &mut Vec<f32>) -> Result<(), TrainError> {
        self.cache.read(&self.pictures[image as usize], into)
    }

    fn gives_pixels(&self) -> bool {
        false
    }
}

/// Pixels from the pictures' files.
pub(crate) struct Files<'a> {
    pub(crate) processor: &'a ImageProcessor,
    pub(crate) pictures: &'a [PathBuf],
}

impl PictureSource for Files<'_> {
    fn append(&mut self, image: u32, into: &mut Vec<f32>) -> Result<(), TrainError> {
        into.extend(read_pixels(&self.pictures[image as usize], self.processor)?);
        Ok(())
    }

    fn gives_pixels(&self) -> bool {
        true
    }
}
