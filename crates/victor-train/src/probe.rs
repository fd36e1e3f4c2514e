//! A classifier on a frozen tower's features: how much of a label the features hold, whatever the decoder
//! makes of it.
//!
//! A few learned queries attend to the visual tokens and one linear layer names the label.

use crate::encode::{fill, fingerprint};
use crate::stage::picture_config;
use crate::{FeatureCache, Part, Progress, TrainError};
use burn::backend::Autodiff;
use burn::grad_clipping::GradientClippingConfig;
use burn::module::{AutodiffModule, Module, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::prelude::*;
use burn::tensor::Distribution;
use burn::tensor::activation::softmax;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use victor_backend::{Device, DeviceTask};
use victor_data::{ConversationSet, ImageProcessor};
use victor_model::VictorBackend;
use victor_weights::{LoadOptions, WeightDtype};

/// Learned queries, each with the whole width as its head.
const QUERIES: usize = 8;
const BATCH: usize = 64;

/// What is probed.
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// The checkpoint whose tower gives the features.
    pub model: PathBuf,
    /// Records with `label`, trained on.
    pub train: PathBuf,
    /// Records with `label`, scored; labels only `train` has are left out of both.
    pub test: PathBuf,
    /// Where features are kept.
    pub feature_cache: PathBuf,
    /// Passes over the training records.
    pub epochs: usize,
    /// Decides the order and the first weights.
    pub seed: u64,
}

/// How well the features name the labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeReport {
    /// Labels.
    pub labels: usize,
    /// Records trained on.
    pub trained: usize,
    /// Records scored.
    pub tested: usize,
    /// The share whose label came first.
    pub top1: f64,
    /// The share whose label was among the first five.
    pub top5: f64,
}

/// Trains the classifier on one set of pictures and scores it on another.
///
/// # Errors
/// If the checkpoint, a record or the cache is not usable.
pub fn probe(
    config: &ProbeConfig,
    device: Device,
    progress: Progress,
) -> Result<ProbeReport, TrainError> {
    device.run(Probe { config, progress })?
}

struct Probe<'a> {
    config: &'a ProbeConfig,
    progress: Progress,
}

/// A picture and the number of its label.
type Example = (PathBuf, usize);

impl DeviceTask for Probe<'_> {
    type Output = Result<ProbeReport, TrainError>;

    fn run<B: VictorBackend>(self, device: B::Device) -> Self::Output {
        let config = self.config;
        let test = labelled(&config.test)?;
        let mut labels = BTreeMap::new();
        for (_, label) in &test {
            let number = labels.len();
            labels.entry(label.clone()).or_insert(number);
        }
        let numbered = |records: Vec<(PathBuf, String)>| -> Vec<Example> {
            let known = |(path, label): (PathBuf, String)| Some((path, *labels.get(&label)?));
            records.into_iter().filter_map(known).collect()
        };
        let (mut train, test) = (numbered(labelled(&config.train)?), numbered(test));
        if train.is_empty() {
            return Err(TrainError::NoSamples {
                records: 0,
                skipped: 0,
            });
        }
        let (mut cache, shape) = self.features::<B>(&device, &train, &test)?;

        B::seed(&device, config.seed);
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        let mut model = Classifier::<Autodiff<B>>::init(shape[1], labels.len(), &device);
        let mut optimizer = AdamWConfig::new()
            .with_weight_decay(0.05)
            .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)))
            .init();
        let loss = CrossEntropyLossConfig::new()
            .with_smoothing(Some(0.1))
            .init(&device);
        let steps = config.epochs * train.len().div_ceil(BATCH);
        let bar = self.progress.bar(steps, "probing");
        for epoch in 0..config.epochs {
            train.shuffle(&mut random);
            for (index, batch) in train.chunks(BATCH).enumerate() {
                let step = epoch * train.len().div_ceil(BATCH) + index;
                let rate = 1e-3 * (1.0 - step as f64 / steps as f64);
                let (features, targets) = load::<B>(&mut cache, batch, shape, &device)?;
                let logits = model.forward(Tensor::from_inner(features));
                let gradients = loss.forward(logits, Tensor::from_inner(targets)).backward();
                let gradients = GradientsParams::from_grads(gradients, &model);
                model = optimizer.step(rate, model, gradients);
                bar.inc(1);
            }
        }
        bar.finish();

        let model = model.valid();
        let (mut top1, mut top5) = (0, 0);
        for batch in test.chunks(BATCH) {
            let (features, _) = load::<B>(&mut cache, batch, shape, &device)?;
            let logits = model.forward(features).into_data().convert::<f32>();
            let logits: Vec<f32> = logits.to_vec().unwrap_or_default();
            for ((_, label), logits) in batch.iter().zip(logits.chunks_exact(labels.len())) {
                let better = logits
                    .iter()
                    .filter(|logit| **logit > logits[*label])
                    .count();
                top1 += usize::from(better == 0);
                top5 += usize::from(better < 5);
            }
        }
        Ok(ProbeReport {
            labels: labels.len(),
            trained: train.len(),
            tested: test.len(),
            top1: top1 as f64 / test.len() as f64,
            top5: top5 as f64 / test.len() as f64,
        })
    }
}

impl Probe<'_> {
    /// A cache that holds the features of all pictures, and their shape.
    fn features<B: VictorBackend>(
        &self,
        device: &B::Device,
        train: &[Example],
        test: &[Example],
    ) -> Result<(FeatureCache, [usize; 2]), TrainError> {
        let source = &self.config.model;
        let vlm = victor_weights::read_config(source)?;
        let picture = picture_config(&vlm, source)?;
        let processor = ImageProcessor::from_dir(source)?;
        let unused = [Part::Projector, Part::Registers].map(|part| part.module_name().into());
        let options = LoadOptions {
            fresh: unused.into(),
            // As training loads it, so that both find the same features in the cache.
            dtype: WeightDtype::F32,
        };
        let (model, _) = victor_weights::load::<B>(source, &vlm, device, &options)?;
        let shape = [picture.visual_tokens(), picture.vision_config.hidden_size];
        let print = fingerprint(&model, &processor);
        let mut cache =
            FeatureCache::open(&self.config.feature_cache, print, shape.iter().product())?;
        let pictures: Vec<PathBuf> = train
            .iter()
            .chain(test)
            .map(|(path, _)| path.clone())
            .collect();
        fill(
            &mut cache,
            &model,
            &processor,
            &pictures,
            false,
            self.progress,
        )?;
        Ok((cache, shape))
    }
}

/// The first picture and the label of every record that has both.
fn labelled(json: &Path) -> Result<Vec<(PathBuf, String)>, TrainError> {
    let images = json.parent().unwrap_or(Path::new(""));
    let set = ConversationSet::load(json, images, false)?;
    let pair = |record: &victor_data::Record| {
        let label = record.extra.get("label")?.as_str()?;
        Some((record.images.first()?.clone(), label.to_string()))
    };
    Ok(set.records().iter().filter_map(pair).collect())
}

/// Features `[batch, tokens, width]` and labels `[batch]`.
fn load<B: VictorBackend>(
    cache: &mut FeatureCache,
    batch: &[Example],
    [tokens, width]: [usize; 2],
    device: &B::Device,
) -> Result<(Tensor<B, 3>, Tensor<B, 1, Int>), TrainError> {
    let mut values = Vec::with_capacity(batch.len() * tokens * width);
    for (path, _) in batch {
        cache.read(path, &mut values)?;
    }
    let features = TensorData::new(values, [batch.len(), tokens, width]);
    let labels: Vec<i32> = batch.iter().map(|(_, label)| *label as i32).collect();
    let labels = TensorData::new(labels, [batch.len()]);
    Ok((
        Tensor::from_data(features, device),
        Tensor::from_data(labels, device),
    ))
}

#[derive(Module, Debug)]
struct Classifier<B: Backend> {
    queries: Param<Tensor<B, 2>>,
    head: burn::nn::Linear<B>,
    norm: burn::nn::LayerNorm<B>,
}

impl<B: Backend> Classifier<B> {
    fn init(width: usize, labels: usize, device: &B::Device) -> Self {
        let spread = Distribution::Normal(0.0, 1.0 / (width as f64).sqrt());
        let queries = Tensor::random([QUERIES, width], spread, device);
        Self {
            queries: Param::from_tensor(queries),
            head: burn::nn::LinearConfig::new(QUERIES * width, labels).init(device),
            norm: burn::nn::LayerNormConfig::new(width).init(device),
        }
    }

    /// # Shapes
    /// - features: `[batch, tokens, width]`
    /// - output: `[batch, labels]`
    fn forward(&self, features: Tensor<B, 3>) -> Tensor<B, 2> {
        let features = self.norm.forward(features);
        let queries = self.queries.val().unsqueeze::<3>();
        let scores = queries.matmul(features.clone().swap_dims(1, 2));
        let pooled = softmax(scores, 2).matmul(features);
        self.head.forward(pooled.flatten::<2>(1, 2))
    }
}
