//! A checkpoint on one backend: model, processor, tokenizer and template together.

use crate::answer::Ends;
use crate::pictures::Picture;
use crate::request::{Prompt, Request};
use crate::{GenerateOptions, ModelFiles, VictorError};
use burn::prelude::*;
use victor_backend::VictorBackend;
use victor_data::{ChatTemplate, ExpandedPrompt, ImageProcessor, Tokenizer, expand_image_tokens};
use victor_model::{BatchLayout, Row, Sequence, Vlm};
use victor_weights::{LoadOptions, LoadReport, WeightDtype};

/// How a model is opened.
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
    /// Pictures to pixels; `None` for a model that reads text only.
    pub processor: Option<ImageProcessor>,
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
    pub(crate) pictures: Vec<Picture>,
}

impl<B: VictorBackend> Engine<B> {
    /// Loads a model's numbers onto `device`.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, or is stored in a format that is not read, or the
    /// device does not take weights of `options.dtype`.
    pub fn load(
        files: ModelFiles,
        device: &B::Device,
        options: &OpenOptions,
    ) -> Result<Self, VictorError> {
        let (config, checkpoint) = (&files.source.config, &files.source.checkpoint);
        let options = LoadOptions {
            dtype: options.dtype,
            ..Default::default()
        };
        let (model, report) = victor_weights::load_from(checkpoint, config, device, &options)?;
        Ok(Self {
            model,
            processor: files.processor,
            tokenizer: files.tokenizer,
            template: files.template,
            report,
            stop_ids: files.stop_ids,
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
        let grids = self.grids(&request.images)?;
        let ids = match &request.prompt {
            Prompt::Raw(text) => self.encode(text, true)?,
            Prompt::Chat(messages) => self.encode_prompt(&self.template.render(messages, true)?)?,
        };
        let counts: Vec<usize> = grids.iter().map(|grid| self.visual_rows(grid)).collect();
        let context = config.text_config.max_position_embeddings;
        let rows = ids.len() + counts.iter().sum::<usize>();
        // Before room is made for them: a config may ask for any number.
        if rows > context.saturating_add(counts.len()) {
            return Err(VictorError::ContextLength { rows, context });
        }
        let sequence = self.sequence(&ids, &counts)?;
        let rows = self.rows(&sequence);
        if rows > context {
            return Err(VictorError::ContextLength { rows, context });
        }
        let images = request.images.iter().zip(grids);
        let pictures = images.map(|(image, grid)| self.picture(image, grid));
        Ok(Prepared {
            sequence,
            pictures: pictures.collect::<Result<_, _>>()?,
        })
    }

    /// The ids of a text, one for each picture's marker.
    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, VictorError> {
        Ok(match self.image_token() {
            Some(marker) => self.tokenizer.encode_with_images(text, special, marker)?,
            None => self.tokenizer.encode(text, special)?,
        })
    }

    /// The ids of a rendered chat template: special tokens are added unless it wrote the first itself.
    pub(crate) fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, VictorError> {
        self.encode(text, self.tokenizer.wants_special_tokens(text))
    }

    /// The id that marks a picture; `None` for a model that reads text only.
    pub(crate) fn image_token(&self) -> Option<u32> {
        let picture = self.model.config().picture.as_ref()?;
        Some(picture.image_token_index)
    }

    /// Makes room for the visual tokens of every picture.
    pub(crate) fn sequence(&self, ids: &[u32], counts: &[usize]) -> Result<Sequence, VictorError> {
        let config = self.model.config();
        let marker = self.image_token();
        let expanded = match marker {
            Some(marker) => expand_image_tokens(ids, marker, counts)?,
            None => ExpandedPrompt {
                ids: ids.into(),
                spans: Vec::new(),
            },
        };
        let rows = config.text_config.vocab_size;
        // A picture's id only holds a place: nothing embeds it.
        let mut embedded = expanded.ids.iter().filter(|id| Some(**id) != marker);
        if let Some(&id) = embedded.find(|id| **id as usize >= rows) {
            return Err(VictorError::TokenBeyondVocabulary { id, rows });
        }
        if expanded.ids.is_empty() {
            return Err(VictorError::EmptyPrompt);
        }
        Ok(Sequence {
            ids: expanded.ids,
            image_spans: expanded.spans,
        })
    }

    /// Rows of a sequence before the drop, registers included: the positions it takes.
    pub(crate) fn rows(&self, sequence: &Sequence) -> usize {
        let registers = self.model.config().num_registers();
        sequence.ids.len() + sequence.image_spans.len() * registers
    }

    /// When answers of this model end.
    pub(crate) fn ends<'a>(&'a self, options: &'a GenerateOptions) -> Ends<'a> {
        Ends {
            options,
            stop_ids: &self.stop_ids,
            context: self.model.config().text_config.max_position_embeddings,
        }
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

    /// Waits until everything asked of the device is done, so that a clock can be read.
    pub(crate) fn sync(&self) {
        // A device error surfaces at the next read of a tensor, with the same text.
        let _ = B::sync(&self.device);
    }
}
