//! Prefill once, then one token a step for every sequence of a batch.

use crate::VictorError;
use crate::answer::Answer;
use crate::completion::{Completion, Timings, Token};
use crate::engine::{Engine, Prepared};
use crate::pictures::Picture;
use crate::request::Request;
use crate::sampling::SamplingOptions;
use burn::prelude::*;
use std::time::Instant;
use victor_backend::VictorBackend;
use victor_model::KvCache;

/// How an answer is generated.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// At most so many new tokens.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// Text that ends an answer and is not part of it.
    pub stop_strings: Vec<String>,
    /// Ids that end an answer, besides the model's own.
    pub stop_ids: Vec<u32>,
    /// Goes on past the model's own stop ids.
    pub ignore_eos: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            sampling: SamplingOptions::default(),
            stop_strings: Vec::new(),
            stop_ids: Vec::new(),
            ignore_eos: false,
        }
    }
}

impl GenerateOptions {
    pub(crate) fn validate(&self) -> Result<(), VictorError> {
        if self.max_new_tokens == 0 {
            return Err(VictorError::Option {
                option: "max-new-tokens",
                found: "0".into(),
                expected: "at least 1",
            });
        }
        self.sampling.validate()
    }
}

/// Generation whatever the backend.
pub(crate) trait Decoding {
    /// The next token of every sequence, `None` for those that have ended; `None` when all have.
    fn step(&mut self) -> Result<Option<Vec<Option<Token>>>, VictorError>;

    /// What was generated so far.
    fn completions(&self) -> Vec<Completion>;

    /// Where the time went.
    fn timings(&self) -> Timings;
}

/// A batch being generated on backend `B`.
pub(crate) struct Batch<'a, B: Backend> {
    engine: &'a Engine<B>,
    options: GenerateOptions,
    cache: KvCache<B>,
    /// Logits of the next token, `[batch, vocab]`.
    logits: Tensor<B, 2>,
    sequences: Vec<Answer<'a>>,
    timings: Timings,
}

impl<'a, B: VictorBackend> Batch<'a, B> {
    pub(crate) fn start(
        engine: &'a Engine<B>,
        requests: &[Request],
        options: &GenerateOptions,
    ) -> Result<Self, VictorError> {
        options.validate()?;
        let mut timings = Timings::default();
        let clock = Instant::now();
        let prepared = engine.prepare(requests)?;
        let layout = engine.layout(&prepared)?;
        Timings::add(&mut timings.preprocess_s, clock.elapsed());

        let clock = Instant::now();
        let pictures: Vec<&Picture> = prepared
            .iter()
            .flat_map(|prepared| &prepared.pictures)
            .collect();
        let visual = engine.visual_tokens(&pictures);
        engine.sync();
        Timings::add(&mut timings.vision_s, clock.elapsed());

        let clock = Instant::now();
        let layers = engine.model.config().text_config.num_hidden_layers;
        let mut cache = KvCache::new(layers);
        let logits = engine.model.prefill(&layout, visual, &mut cache);
        engine.sync();
        Timings::add(&mut timings.prefill_s, clock.elapsed());

        let answer = |(index, prepared): (usize, &Prepared)| {
            let ids = &prepared.sequence.ids;
            let rows = engine.rows(&prepared.sequence);
            Answer::new(options, index as u64, &engine.tokenizer, ids, rows)
        };
        let sequences = prepared.iter().enumerate().map(answer).collect();
        Ok(Self {
            engine,
            options: options.clone(),
            cache,
            logits,
            sequences,
            timings,
        })
    }
}

impl<B: VictorBackend> Decoding for Batch<'_, B> {
    fn step(&mut self) -> Result<Option<Vec<Option<Token>>>, VictorError> {
        if self
            .sequences
            .iter()
            .all(|answer| answer.finished.is_some())
        {
            return Ok(None);
        }
        let clock = Instant::now();
        if let Some(last) = self.last_ids() {
            self.logits = self.engine.model.decode(&last, &mut self.cache);
            self.timings.decode_steps += 1;
        }
        let vocab = self.logits.dims()[1];
        let mut values = self.logits.clone().into_data().convert::<f32>();
        let values: &mut [f32] = values.as_mut_slice().unwrap_or_default();
        let ends = self.engine.ends(&self.options);
        let mut tokens = Vec::with_capacity(self.sequences.len());
        for (answer, logits) in self
            .sequences
            .iter_mut()
            .zip(values.chunks_exact_mut(vocab))
        {
            tokens.push(match answer.finished {
                Some(_) => None,
                None => Some(answer.next(logits, &ends)?),
            });
        }
        Timings::add(&mut self.timings.decode_s, clock.elapsed());
        Ok(Some(tokens))
    }

    fn completions(&self) -> Vec<Completion> {
        self.sequences.iter().map(Answer::completion).collect()
    }

    fn timings(&self) -> Timings {
        Timings {
            kv_bytes: self.cache.bytes(),
            ..self.timings
        }
    }
}

impl<B: VictorBackend> Batch<'_, B> {
    /// The last id of every sequence; `None` before the first token. Ended sequences repeat theirs:
    /// their rows are computed with the others and read by nobody.
    fn last_ids(&self) -> Option<Vec<u32>> {
        self.sequences
            .iter()
            .map(|answer| answer.ids.last().copied())
            .collect()
    }
}
