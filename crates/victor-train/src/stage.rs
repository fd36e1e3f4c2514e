//! A whole stage from files to files.

use crate::batch::{Batch, Loader, PictureSource};
use crate::corpus::{Corpus, PictureTable, Reader};
use crate::discriminant::start_projector;
use crate::encode::{Cached, Files, fill, fingerprint};
use crate::optimizer::trainable;
use crate::order::{BatchOrder, Shape, random};
use crate::run::Run;
use crate::shifts::Shifts;
use crate::{FeatureCache, Progress, Sample, TrainConfig, TrainError};
use burn::module::AutodiffModule;
use std::path::{Path, PathBuf};
use victor_backend::{Device, DeviceTask};
use victor_data::{ChatTemplate, ImageProcessor, Tokenizer};
use victor_model::{PictureConfig, VictorBackend, Vlm, VlmConfig};
use victor_weights::{LoadOptions, SaveOptions, WeightDtype};

/// What a run did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TrainReport {
    /// Where the trained model is: a checkpoint that inference reads.
    pub model: PathBuf,
    /// Optimiser steps of the whole run, those before a resumption too.
    pub steps: usize,
    /// Samples trained on since the start or resumption.
    pub samples: usize,
    /// Records of the data that were left out (`skip_bad`).
    pub skipped: usize,
    /// Seconds of training since the start or resumption.
    pub seconds: f64,
    /// Samples a second since the start or resumption, validation and checkpoints included.
    pub samples_per_second: f64,
    /// Mean cross-entropy of the last step's loss tokens, nats.
    pub loss: f64,
    /// The last validation loss, if there is validation data.
    pub validation_loss: Option<f64>,
}

/// Trains one stage on a device.
///
/// Writes into `config.output`: `checkpoint/` (the state to resume from), `metrics.jsonl`, `loss.svg`
/// and at the end `model/`.
///
/// # Errors
/// If a setting has no usable value, a file or record is bad, or the loss stops being a number.
pub fn train(
    config: &TrainConfig,
    device: Device,
    progress: Progress,
) -> Result<TrainReport, TrainError> {
    config.validate()?;
    device.run(Stage { config, progress })?
}

struct Stage<'a> {
    config: &'a TrainConfig,
    progress: Progress,
}

impl DeviceTask for Stage<'_> {
    type Output = Result<TrainReport, TrainError>;

    fn run<B: VictorBackend>(self, device: B::Device) -> Self::Output {
        let config = self.config;
        let vlm = victor_weights::read_config(&config.model)?;
        let picture = &picture_config(&vlm, &config.model)?;
        let processor = ImageProcessor::from_dir(&config.model)?;
        let reader = reader(config, &vlm, picture)?;
        check_picture_size(&processor, picture)?;

        let mut pictures = PictureTable::default();
        let mut corpus = reader.read(&config.data, usize::MAX, &mut pictures)?;
        let limit = config.validation_records;
        let mut validation = reader.read(&config.validation, limit, &mut pictures)?;
        let pictures = pictures.paths;

        // Before fresh parts are drawn, so that they follow from the seed.
        B::seed(&device, config.seed);
        let options = LoadOptions {
            fresh: config
                .fresh
                .iter()
                .map(|part| part.module_name().into())
                .collect(),
            // An optimiser's steps are smaller than the spacing of halves.
            dtype: WeightDtype::F32,
        };
        let (mut model, _) = victor_weights::load::<B>(&config.model, &vlm, &device, &options)?;
        let missing = config.train.iter().find(|part| !part.is_in(&model));
        if let Some(part) = missing {
            return Err(TrainError::MissingPart { part: *part });
        }

        let all = vlm.visual_tokens();
        if let Some(found) = config.visual_sample.filter(|seen| *seen > all) {
            return Err(TrainError::VisualSample { found, all });
        }
        let mut cache = open_cache(config, picture, &model, &processor)?;
        if let Some(cache) = &mut cache {
            let (skip, progress) = (config.skip_bad, self.progress);
            let bad = fill(cache, &model, &processor, &pictures, skip, progress)?;
            corpus.without(|picture| bad.contains(&picture));
            validation.without(|picture| bad.contains(&picture));
        }
        if corpus.samples.is_empty() {
            return Err(TrainError::NoSamples {
                records: corpus.records,
                skipped: corpus.skipped,
            });
        }

        if let (true, Some(cache)) = (config.discriminant_projector, &mut cache) {
            model = start_projector(model, cache, &corpus.captioned(&pictures))?;
        }

        let width = picture.vision_config.hidden_size;
        let shifts = match (&mut cache, config.look_shift) {
            (Some(cache), scale) if scale > 0.0 => {
                let captioned = corpus.captioned(&pictures);
                Some(Shifts::new(cache, &captioned, width, scale)?)
            }
            _ => None,
        };

        let files = Sources {
            config,
            picture,
            processor: &processor,
            pictures: &pictures,
        };
        let validation = files.validation_batches(&validation, cache.as_mut())?;
        let order = order(&corpus, &reader, config);
        if order.batches_per_epoch() == 0 {
            return Err(TrainError::NoSamples {
                records: corpus.records,
                skipped: corpus.skipped,
            });
        }
        let mut loader = files.loader(&corpus.samples, cache.as_mut());
        loader.shifts = shifts;
        let run = Run {
            config,
            order,
            loader,
            validation,
            progress: self.progress,
            stop_after: None,
        };
        let done = run.go(trainable(model, &config.train))?;
        let out = config.output.join("model");
        victor_weights::save(
            &done.model.valid(),
            &config.model,
            &out,
            &SaveOptions::default(),
        )?;
        Ok(TrainReport {
            model: out,
            steps: done.steps,
            samples: done.samples,
            skipped: corpus.skipped,
            seconds: done.seconds,
            samples_per_second: done.samples as f64 / done.seconds,
            loss: done.loss,
            validation_loss: done.validation_loss,
        })
    }
}

/// The picture side, if it is one that can be trained with.
pub(crate) fn picture_config(vlm: &VlmConfig, model: &Path) -> Result<PictureConfig, TrainError> {
    let path = || model.to_owned();
    let Some(picture) = &vlm.picture else {
        return Err(TrainError::TextOnly { path: path() });
    };
    if picture.image_grid_pinpoints.is_some() {
        return Err(TrainError::Tiles { path: path() });
    }
    Ok(picture.clone())
}

fn reader(
    config: &TrainConfig,
    vlm: &VlmConfig,
    picture: &PictureConfig,
) -> Result<Reader, TrainError> {
    let tokenizer = Tokenizer::from_dir(&config.model)?;
    let template = match &config.chat_template {
        Some(name) => ChatTemplate::built_in(name)?,
        None => ChatTemplate::from_dir(&config.model)?,
    };
    Ok(Reader {
        template: template.with_tokens_of(&tokenizer),
        tokenizer,
        marker: picture.image_token_index,
        visual_tokens: picture.visual_tokens(),
        registers: vlm.num_registers(),
        vocab_size: vlm.text_config.vocab_size,
        max_length: config
            .max_length
            .min(vlm.text_config.max_position_embeddings),
        skip_bad: config.skip_bad,
    })
}

fn check_picture_size(
    processor: &ImageProcessor,
    picture: &PictureConfig,
) -> Result<(), TrainError> {
    let (found, side) = (processor.output_size(), picture.vision_config.image_size);
    if found == (side, side) {
        return Ok(());
    }
    Err(TrainError::PictureSize {
        found,
        expected: side,
    })
}

fn open_cache<B: VictorBackend>(
    config: &TrainConfig,
    picture: &PictureConfig,
    model: &Vlm<B>,
    processor: &ImageProcessor,
) -> Result<Option<FeatureCache>, TrainError> {
    let Some(directory) = &config.feature_cache else {
        return Ok(None);
    };
    let length = picture.visual_tokens() * picture.vision_config.hidden_size;
    FeatureCache::open(directory, fingerprint(model, processor), length).map(Some)
}

fn order(corpus: &Corpus, reader: &Reader, config: &TrainConfig) -> BatchOrder {
    let shape = |sample: &Sample| Shape {
        pictures: !sample.images.is_empty(),
        rows: sample.rows(reader.visual_tokens, reader.registers),
    };
    let shapes = corpus.samples.iter().map(shape).collect();
    BatchOrder::new(shapes, &corpus.sources, config.batch_size, config.seed)
}

/// Where the numbers of pictures come from.
struct Sources<'a> {
    config: &'a TrainConfig,
    picture: &'a PictureConfig,
    processor: &'a ImageProcessor,
    pictures: &'a [PathBuf],
}

impl<'a> Sources<'a> {
    fn loader<'b>(&self, samples: &'b [Sample], cache: Option<&'b mut FeatureCache>) -> Loader<'b>
    where
        'a: 'b,
    {
        let pictures: Box<dyn PictureSource + 'b> = match cache {
            Some(cache) => Box::new(Cached {
                cache,
                pictures: self.pictures,
            }),
            None => Box::new(Files {
                processor: self.processor,
                pictures: self.pictures,
            }),
        };
        Loader {
            samples,
            pictures,
            marker: self.picture.image_token_index,
            visual_tokens: self.picture.visual_tokens(),
            vision_hidden: self.picture.vision_config.hidden_size,
            skip_bad: self.config.skip_bad,
            seed: self.config.seed,
            feature_dropout: self.config.feature_dropout,
            feature_noise: self.config.feature_noise,
            visual_sample: self.config.visual_sample,
            shifts: None,
        }
    }

    /// The validation samples in their order, without random changes.
    fn validation_batches(
        &self,
        corpus: &Corpus,
        cache: Option<&mut FeatureCache>,
    ) -> Result<Vec<Batch>, TrainError> {
        let mut loader = self.loader(&corpus.samples, cache);
        loader.feature_dropout = 0.0;
        loader.feature_noise = 0.0;
        loader.visual_sample = None;
        let numbers: Vec<usize> = (0..corpus.samples.len()).collect();
        numbers
            .chunks(self.config.batch_size)
            .map(|entries| loader.batch(entries, &mut random(0, 0)))
            .collect()
    }
}
