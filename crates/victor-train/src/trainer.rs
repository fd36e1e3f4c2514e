//! One optimiser step, and the loss on samples that are not trained on.

use crate::TrainConfig;
use crate::batch::{Batch, Visual};
use crate::loss::{cross_entropy, plain_cross_entropy};
use crate::optimizer::{Model, Optimizers};
use crate::{LossRows, Part, TrainError};
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::prelude::*;
use victor_model::{BatchLayout, Row, VictorBackend, Vlm};

/// What a step computes with.
pub(crate) struct Trainer<B: VictorBackend> {
    pub(crate) optimizers: Optimizers<B>,
    smoothing: f64,
    noise: f64,
    trains_tower: bool,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// Mean over the loss tokens.
    pub(crate) loss: f64,
    pub(crate) grad_norm: f64,
    pub(crate) samples: usize,
    /// Rows of the decoder without padding.
    pub(crate) rows: usize,
}

/// A batch laid out.
struct Plan<'a> {
    batch: &'a Batch,
    layout: BatchLayout,
    loss_rows: LossRows,
}

impl<B: VictorBackend> Trainer<B> {
    pub(crate) fn new(config: &TrainConfig, model: &Model<B>) -> Self {
        Self {
            optimizers: Optimizers::new(config, model),
            smoothing: config.label_smoothing,
            noise: config.feature_noise,
            trains_tower: config.trains(Part::VisionTower),
        }
    }

    /// One optimiser step over some batches. The loss is the mean over all their loss tokens, so
    /// accumulating gives the gradient of one large batch.
    pub(crate) fn step(
        &mut self,
        mut model: Model<B>,
        batches: &[Batch],
        factor: f64,
    ) -> Result<(Model<B>, Outcome), TrainError> {
        let plans = plans(&model, batches)?;
        let total: usize = plans.iter().map(|plan| plan.loss_rows.len()).sum();
        let mut outcome = Outcome::default();
        if total == 0 {
            return Ok((model, outcome));
        }
        let device = model.device();
        let mut accumulator = GradientsAccumulator::new();
        let mut alone = None;
        for plan in &plans {
            let features = self.features(&model, plan.batch);
            let visual = features.map(|features| model.project(features));
            let logits = loss_logits(&model, plan, visual);
            let targets = int_tensor::<B>(&plan.loss_rows.targets, &device);
            let loss = cross_entropy(logits, targets, self.smoothing, 1.0 / total as f64);
            outcome.loss += loss.clone().into_scalar().elem::<f64>();
            let mut gradients = loss.backward();
            let gradients = GradientsParams::from_module(&mut gradients, &model);
            if plans.len() == 1 {
                alone = Some(gradients);
            } else {
                accumulator.accumulate(&model, gradients);
            }
            outcome.samples += plan.batch.sequences.len();
            let rows = plan.layout.rows().iter().flatten();
            outcome.rows += rows.filter(|row| **row != Row::Padding).count();
        }
        drop(plans);
        let gradients = alone.unwrap_or_else(|| accumulator.grads());
        (model, outcome.grad_norm) = self.optimizers.step(model, gradients, factor);
        Ok((model, outcome))
    }

    /// Features as constants, unless the tower trains.
    fn features(&self, model: &Model<B>, batch: &Batch) -> Option<Tensor<Autodiff<B>, 3>> {
        let device = model.device();
        let features = match &batch.visual {
            Visual::Pixels(pixels) if self.trains_tower => {
                model.encode_images(pixel_tensor(model, pixels, &device)?)
            }
            _ => Tensor::from_inner(constant_features(&model.valid(), batch)?),
        };
        Some(self.perturbed(features, batch))
    }

    fn perturbed(
        &self,
        mut features: Tensor<Autodiff<B>, 3>,
        batch: &Batch,
    ) -> Tensor<Autodiff<B>, 3> {
        let (shape, device) = (features.dims(), features.device());
        let [images, tokens, _] = shape;
        if !batch.perturbation.noise.is_empty() {
            let values = features.clone().inner();
            let centred = values.clone() - values.mean().reshape([1, 1, 1]);
            let deviation = centred.square().mean().sqrt().reshape([1, 1, 1]);
            let noise = TensorData::new(batch.perturbation.noise.clone(), shape);
            let noise = Tensor::<B, 3>::from_data(noise, &device) * deviation;
            features = features + Tensor::from_inner(noise.mul_scalar(self.noise));
        }
        if !batch.perturbation.keep.is_empty() {
            let keep = TensorData::new(batch.perturbation.keep.clone(), [images, tokens, 1]);
            features = features * Tensor::from_data(keep, &device);
        }
        features
    }
}

/// The mean loss over the loss tokens of all batches, without smoothing.
pub(crate) fn evaluate<B: VictorBackend>(
    model: &Vlm<B>,
    batches: &[Batch],
) -> Result<Option<f64>, TrainError> {
    let (mut sum, mut tokens) = (0.0, 0);
    for plan in plans(model, batches)? {
        let visual = constant_features(model, plan.batch).map(|features| model.project(features));
        let logits = loss_logits(model, &plan, visual);
        let targets = int_tensor::<B>(&plan.loss_rows.targets, &model.device());
        let loss = plain_cross_entropy(logits, targets, 0.0);
        sum += loss.into_scalar().elem::<f64>();
        tokens += plan.loss_rows.len();
    }
    Ok((tokens > 0).then(|| sum / tokens as f64))
}

/// Lays out the batches that hold anything to learn.
fn plans<'a, B: VictorBackend>(
    model: &Vlm<B>,
    batches: &'a [Batch],
) -> Result<Vec<Plan<'a>>, TrainError> {
    let mut plans = Vec::with_capacity(batches.len());
    for batch in batches.iter().filter(|batch| !batch.sequences.is_empty()) {
        let mut layout = model.layout(&batch.sequences)?;
        if !batch.chosen.is_empty() {
            layout.spread(&batch.chosen, model.config().visual_tokens());
        }
        let loss_rows = LossRows::new(&model.output_rows(&layout), &batch.learned);
        if !loss_rows.is_empty() {
            plans.push(Plan {
                batch,
                layout,
                loss_rows,
            });
        }
    }
    Ok(plans)
}

/// Logits of the rows that carry loss: the head is computed on these alone.
///
/// # Shapes
/// - visual: `[visual tokens of the batch, hidden]`
/// - output: `[loss rows, vocab]`
fn loss_logits<B: VictorBackend>(
    model: &Vlm<B>,
    plan: &Plan<'_>,
    visual: Option<Tensor<B, 2>>,
) -> Tensor<B, 2> {
    let embeds = model.embed(&plan.layout, visual);
    let hidden = model.forward(&plan.layout, embeds, None);
    let [batch, rows, width] = hidden.dims();
    let index = int_tensor::<B>(&plan.loss_rows.rows, &hidden.device());
    let hidden = hidden.reshape([batch * rows, width]).select(0, index);
    let logits = model.language_model.logits(hidden.unsqueeze_dim(0));
    logits.squeeze_dim(0)
}

/// Features of a batch without a graph; `None` where it has no pictures.
///
/// # Shapes
/// - output: `[images, visual_tokens, vision_hidden]`
fn constant_features<B: VictorBackend>(model: &Vlm<B>, batch: &Batch) -> Option<Tensor<B, 3>> {
    let device = model.device();
    match &batch.visual {
        Visual::None => None,
        Visual::Pixels(pixels) => Some(model.encode_images(pixel_tensor(model, pixels, &device)?)),
        Visual::Features(values) => {
            let picture = model.config().picture.as_ref()?;
            let seen = batch.chosen.first().map(Vec::len);
            let tokens = seen.unwrap_or(picture.visual_tokens());
            let width = picture.vision_config.hidden_size;
            let shape = [values.len() / (tokens * width), tokens, width];
            Some(Tensor::from_data(
                TensorData::new(values.clone(), shape),
                &device,
            ))
        }
    }
}

/// Pixels for the tower; `None` where the model has none.
fn pixel_tensor<B: VictorBackend>(
    model: &Vlm<B>,
    pixels: &[f32],
    device: &B::Device,
) -> Option<Tensor<B, 4>> {
    let vision = &model.config().picture.as_ref()?.vision_config;
    let (channels, side) = (vision.num_channels, vision.image_size);
    let shape = [
        pixels.len() / (channels * side * side),
        channels,
        side,
        side,
    ];
    let pixels = TensorData::new(pixels.to_vec(), shape);
    Some(Tensor::from_data(pixels, device))
}

fn int_tensor<B: Backend>(values: &[i32], device: &B::Device) -> Tensor<B, 1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}
