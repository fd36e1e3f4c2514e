//! The loop over all steps: schedule, metrics, validation, checkpoints.

use crate::batch::{Batch, Loader};
use crate::checkpoint::CheckpointStore;
use crate::error::file_error;
use crate::metrics::MetricsLog;
use crate::optimizer::Model;
use crate::order::BatchOrder;
use crate::trainer::{Trainer, evaluate};
use crate::{Metrics, Progress, Schedule, TrainConfig, TrainError, curve};
use burn::module::AutodiffModule;
use std::fs;
use std::sync::mpsc::sync_channel;
use std::time::Instant;
use victor_model::VictorBackend;

/// What a run needs besides the model.
pub(crate) struct Run<'a> {
    pub(crate) config: &'a TrainConfig,
    pub(crate) order: BatchOrder,
    pub(crate) loader: Loader<'a>,
    pub(crate) validation: Vec<Batch>,
    pub(crate) progress: Progress,
    /// Ends the run early, as a kill after a checkpoint would; only tests do.
    pub(crate) stop_after: Option<usize>,
}

/// What came of a run.
pub(crate) struct Finished<B: VictorBackend> {
    pub(crate) model: Model<B>,
    pub(crate) steps: usize,
    pub(crate) samples: usize,
    pub(crate) seconds: f64,
    pub(crate) loss: f64,
    pub(crate) validation_loss: Option<f64>,
}

impl Run<'_> {
    /// Trains from the last checkpoint, if asked to, to the last step.
    pub(crate) fn go<B: VictorBackend>(self, model: Model<B>) -> Result<Finished<B>, TrainError> {
        let config = self.config;
        let output = config.output.as_path();
        fs::create_dir_all(output).map_err(file_error(output, "make the output directory"))?;
        let per_epoch = self
            .order
            .batches_per_epoch()
            .div_ceil(config.gradient_accumulation);
        let total = config.max_steps.unwrap_or(config.epochs * per_epoch);
        let schedule = Schedule::new(total, config.warmup_ratio);
        let store = CheckpointStore {
            output,
            config,
            samples: self.loader.samples.len(),
        };
        let mut trainer = Trainer::<B>::new(config, &model);
        let (model, first) = match config.resume {
            true => store.load(model, &mut trainer.optimizers)?,
            false => (model, 0),
        };
        if !config.resume && store.exists() {
            return Err(TrainError::OutputInUse {
                path: output.into(),
            });
        }
        let mut log = MetricsLog::open(&output.join("metrics.jsonl"), first)?;
        let bar = self.progress.bar(total, "training");
        bar.set_position(first as u64);
        bar.reset_eta();
        let last = self.stop_after.unwrap_or(total).min(total);
        let started = Instant::now();
        let mut samples = 0;

        let model = std::thread::scope(|scope| {
            let mut model = model;
            let (sender, receiver) = sync_channel(2);
            let (loader, order) = (self.loader, &self.order);
            scope.spawn(move || {
                loader.run(order, config.gradient_accumulation, first..last, &sender);
            });
            for step in first..last {
                let batches = receiver.recv().map_err(|_| TrainError::LoaderGone)??;
                let (clock, factor) = (Instant::now(), schedule.factor(step));
                let outcome;
                (model, outcome) = trainer.step(model, &batches, factor)?;
                let seconds = clock.elapsed().as_secs_f64();
                if !outcome.loss.is_finite() || !outcome.grad_norm.is_finite() {
                    return Err(TrainError::Diverged {
                        step: step + 1,
                        loss: outcome.loss,
                    });
                }
                samples += outcome.samples;
                let step = step + 1;
                let due = |every: usize| every > 0 && step.is_multiple_of(every);
                let validation_loss = if due(config.evaluate_every) || step == total {
                    validate(&model, &self.validation)?
                } else {
                    None
                };
                let entry = Metrics {
                    step,
                    loss: outcome.loss,
                    lr: config.learning_rate * factor,
                    samples_per_s: outcome.samples as f64 / seconds,
                    tokens_per_s: outcome.rows as f64 / seconds,
                    grad_norm: outcome.grad_norm,
                    validation_loss,
                };
                bar.set_message(format!(
                    "loss {:.3}, {:.1} samples/s, {:.0} tokens/s",
                    entry.loss, entry.samples_per_s, entry.tokens_per_s
                ));
                bar.inc(1);
                log.push(entry)?;
                if due(config.checkpoint_every) {
                    store.save(&model, &trainer.optimizers, step)?;
                    curve::draw(&output.join("loss.svg"), &log.entries)?;
                }
            }
            Ok::<_, TrainError>(model)
        })?;
        bar.finish();
        curve::draw(&output.join("loss.svg"), &log.entries)?;
        Ok(Finished {
            model,
            steps: last,
            samples,
            seconds: started.elapsed().as_secs_f64(),
            loss: log.entries.last().map_or(f64::NAN, |entry| entry.loss),
            validation_loss: log.entries.iter().rev().find_map(|e| e.validation_loss),
        })
    }
}

fn validate<B: VictorBackend>(
    model: &Model<B>,
    batches: &[Batch],
) -> Result<Option<f64>, TrainError> {
    if batches.is_empty() {
        return Ok(None);
    }
    evaluate(&model.valid(), batches)
}
