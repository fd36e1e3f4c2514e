//! One answer in the making: which token comes next, what it shows, and whether it was the last.

use crate::VictorError;
use crate::completion::{Completion, FinishReason, Token};
use crate::generate::GenerateOptions;
use crate::sampling::Sampler;
use crate::stop::StopStrings;
use victor_data::{DecodeStream, Tokenizer};

/// When an answer ends.
pub(crate) struct Ends<'a> {
    pub(crate) options: &'a GenerateOptions,
    /// The model's own stop ids.
    pub(crate) stop_ids: &'a [u32],
    /// Positions of the model.
    pub(crate) context: usize,
}

/// An answer as far as it has come.
pub(crate) struct Answer<'a> {
    sampler: Sampler,
    stream: Option<DecodeStream<'a>>,
    stops: StopStrings,
    pub(crate) ids: Vec<u32>,
    /// The text that was given out.
    pub(crate) text: String,
    pub(crate) prompt_tokens: usize,
    pub(crate) finished: Option<FinishReason>,
}

impl Ends<'_> {
    fn is_stop(&self, id: u32) -> bool {
        let own = !self.options.ignore_eos && self.stop_ids.contains(&id);
        own || self.options.stop_ids.contains(&id)
    }
}

impl<'a> Answer<'a> {
    /// An answer to `prompt`, which takes `prompt_tokens` positions; `sequence` tells the random
    /// streams of a batch apart.
    pub(crate) fn new(
        options: &GenerateOptions,
        sequence: u64,
        tokenizer: &'a Tokenizer,
        prompt: &[u32],
        prompt_tokens: usize,
    ) -> Self {
        Self {
            sampler: Sampler::new(options.sampling, sequence, prompt),
            stream: Some(tokenizer.decode_stream(true)),
            stops: StopStrings::new(&options.stop_strings),
            ids: Vec::new(),
            text: String::new(),
            prompt_tokens,
            finished: None,
        }
    }

    /// Chooses the next token and decides whether it is the last. `logits` is used as scratch space.
    pub(crate) fn next(
        &mut self,
        logits: &mut [f32],
        ends: &Ends<'_>,
    ) -> Result<Token, VictorError> {
        let id = self.sampler.sample(logits);
        let stop = ends.is_stop(id);
        self.ids.push(id);
        if stop {
            self.finished = Some(FinishReason::Stop);
        } else if self.ids.len() >= ends.options.max_new_tokens {
            self.finished = Some(FinishReason::Length);
        } else if self.prompt_tokens + self.ids.len() > ends.context {
            self.finished = Some(FinishReason::Context);
        }
        let mut text = match (&mut self.stream, stop) {
            (Some(stream), false) => stream.push(id)?,
            _ => String::new(),
        };
        if self.finished.is_some()
            && let Some(stream) = self.stream.take()
        {
            text.push_str(&stream.finish()?);
        }
        let (mut shown, stopped) = self.stops.push(&text);
        if stopped {
            self.finished = Some(FinishReason::StopString);
        } else if self.finished.is_some() {
            shown.push_str(&self.stops.finish());
        }
        self.text.push_str(&shown);
        Ok(Token { id, text: shown })
    }

    pub(crate) fn completion(&self) -> Completion {
        Completion {
            text: self.text.clone(),
            ids: self.ids.clone(),
            finish_reason: self.finished.unwrap_or(FinishReason::Interrupted),
            prompt_tokens: self.prompt_tokens,
        }
    }
}
