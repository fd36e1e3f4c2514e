//! A checkpoint on one backend: model, processor, tokenizer and template together.

use crate::VictorError;
use crate::request::{Prompt, Request};
use burn::prelude::*;
use std::path::Path;
use victor_backend::VictorBackend;
use victor_data::{
    ChatTemplate, ImageProcessor, PixelValues, RgbImage, Tokenizer, expand_image_tokens,
};
use victor_model::{BatchLayout, Row, Sequence, VisionFamily, Vlm, VlmConfig};
use victor_weights::{LoadOptions, LoadReport, WeightDtype};

/// Pictures the tower computes at once; more would only cost memory.
const VISION_BATCH: usize = 16;

/// How a checkpoint is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// What the large matrices are kept in.
    pub dtype: WeightDtype,
}

/// A loaded checkpoint on backend `B`.
#[derive(Debug)]
pub struct Engine<B: Backend> {
    /// The model.
    pub model: Vlm<B>,
    /// Pictures to pixels.
    pub processor: ImageProcessor,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Conversations to text.
    pub template: ChatTemplate,
    /// What loading found.
    pub report: LoadReport,
    /// Ids that end an answer.
    pub(crate) stop_ids: Vec<u32>,
    pub(crate) device: B::Device,
}

/// A request as numbers.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) sequence: Sequence,
    pub(crate) pixels: Vec<PixelValues>,
}

impl<B: VictorBackend> Engine<B> {
    /// Opens the checkpoint in `dir`.
    ///
    /// # Errors
    /// If a file is missing or damaged, the files do not belong together, or the device does not take
    /// weights of `options.dtype`.
    pub fn load(
        dir: &Path,
        device: &B::Device,
        options: &OpenOptions,
    ) -> Result<Self, VictorError> {
        let config = read_config(dir)?;
        let tokenizer = Tokenizer::from_dir(dir)?;
        let processor = ImageProcessor::from_dir(dir)?;
        let template = ChatTemplate::from_dir(dir)?;
        check_parts(dir, &config, &tokenizer, &processor)?;
        let stop_ids = stop_ids(dir, &tokenizer);
        let options = LoadOptions {
            dtype: options.dtype,
            ..Default::default()
        };
        let (model, report) = victor_weights::load(dir, &config, device, &options)?;
        Ok(Self {
            model,
            processor,
            tokenizer,
            template,
            report,
            stop_ids,
            device: device.clone(),
        })
    }

    /// Turns requests into ids and pixels and checks that they fit, before anything is computed.
    pub(crate) fn prepare(&self, requests: &[Request]) -> Result<Vec<Prepared>, VictorError> {
        requests
            .iter()
            .map(|request| self.prepare_one(request))
            .collect()
    }

    fn prepare_one(&self, request: &Request) -> Result<Prepared, VictorError> {
        let config = self.model.config();
        let ids = match &request.prompt {
            Prompt::Raw(text) => self.tokenizer.encode(text, true)?,
            Prompt::Chat(messages) => {
                let text = self.template.render(messages, true)?;
                self.tokenizer.encode_prompt(&text)?
            }
        };
        let (height, width) = self.processor.output_size();
        let counts = vec![config.visual_tokens_of(height, width); request.images.len()];
        let expanded = expand_image_tokens(&ids, config.image_token_index, &counts)?;
        let rows = config.text_config.vocab_size;
        if let Some(&id) = expanded.ids.iter().find(|id| **id as usize >= rows) {
            return Err(VictorError::TokenBeyondVocabulary { id, rows });
        }
        if expanded.ids.is_empty() {
            return Err(VictorError::EmptyPrompt);
        }
        let sequence = Sequence {
            ids: expanded.ids,
            image_spans: expanded.spans,
        };
        let rows = sequence.ids.len() + sequence.image_spans.len() * config.num_registers();
        let context = config.text_config.max_position_embeddings;
        if rows > context {
            return Err(VictorError::ContextLength { rows, context });
        }
        let pixels = request.images.iter().map(|image| self.pixels(image));
        Ok(Prepared {
            sequence,
            pixels: pixels.collect::<Result<_, _>>()?,
        })
    }

    fn pixels(&self, image: &RgbImage) -> Result<PixelValues, VictorError> {
        Ok(self.processor.preprocess(image)?)
    }

    /// The rows of prepared requests.
    pub(crate) fn layout(&self, prepared: &[Prepared]) -> Result<BatchLayout, VictorError> {
        let sequences: Vec<Sequence> = prepared
            .iter()
            .map(|prepared| prepared.sequence.clone())
            .collect();
        let layout = self
            .model
            .layout(&sequences)
            .map_err(|_| VictorError::EmptyPrompt)?;
        // Without text and registers nothing is left after the drop.
        let survives = |rows: &Vec<Row>| rows.iter().any(|row| *row != Row::Padding);
        if !self.model.output_rows(&layout).iter().all(survives) {
            return Err(VictorError::EmptyPrompt);
        }
        Ok(layout)
    }

    /// The selected hidden state of every picture, `[images, visual_tokens, vision_hidden]`;
    /// `None` without pictures.
    pub(crate) fn features(&self, pixels: &[&PixelValues]) -> Option<Tensor<B, 3>> {
        let batches = pixels.chunks(VISION_BATCH).map(|batch| {
            let (channels, height, width) = (batch[0].channels, batch[0].height, batch[0].width);
            let values: Vec<f32> = batch
                .iter()
                .flat_map(|image| &image.values)
                .copied()
                .collect();
            let shape = [batch.len(), channels, height, width];
            self.model.encode_images(Tensor::from_data(
                TensorData::new(values, shape),
                &self.device,
            ))
        });
        let batches: Vec<_> = batches.collect();
        (!batches.is_empty()).then(|| Tensor::cat(batches, 0))
    }

    /// Waits until everything asked of the device is done, so that a clock can be read.
    pub(crate) fn sync(&self) {
        // A device error surfaces at the next read of a tensor, with the same text.
        let _ = B::sync(&self.device);
    }
}

/// Reads a checkpoint's config and nothing else.
///
/// # Errors
/// If there is no such folder, or its config is not understood.
pub fn read_config(dir: &Path) -> Result<VlmConfig, VictorError> {
    if !dir.is_dir() {
        return Err(VictorError::NoSuchModel { path: dir.into() });
    }
    Ok(victor_weights::read_config(dir)?)
}

/// Files of one folder may come from several models: better said before the weights are read.
fn check_parts(
    dir: &Path,
    config: &VlmConfig,
    tokenizer: &Tokenizer,
    processor: &ImageProcessor,
) -> Result<(), VictorError> {
    let id = config.image_token_index;
    if tokenizer.id_to_token(id).is_none() {
        return Err(VictorError::NoImageToken {
            path: dir.into(),
            id,
        });
    }
    let expected = config.vision_config.image_size;
    let found = processor.output_size();
    let fits = match config.vision_config.family {
        VisionFamily::Clip => found == (expected, expected),
        // DINOv2's position table is resampled to the picture.
        VisionFamily::Dinov2 => found.0.min(found.1) >= config.vision_config.patch_size,
    };
    if !fits {
        return Err(VictorError::PictureSize { found, expected });
    }
    Ok(())
}

/// The ids that end an answer: those of `generation_config.json`, else the tokenizer's.
fn stop_ids(dir: &Path, tokenizer: &Tokenizer) -> Vec<u32> {
    let named = std::fs::read_to_string(dir.join("generation_config.json"))
        .ok()
        .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
        .and_then(|config| config.get("eos_token_id").cloned());
    let number = |value: &serde_json::Value| value.as_u64().map(|id| id as u32);
    let ids: Vec<u32> = match &named {
        Some(serde_json::Value::Array(ids)) => ids.iter().filter_map(number).collect(),
        Some(id) => number(id).into_iter().collect(),
        None => Vec::new(),
    };
    if ids.is_empty() {
        return tokenizer
            .eos()
            .and_then(|eos| tokenizer.token_to_id(eos))
            .into_iter()
            .collect();
    }
    ids
}
