//! A conversation on one backend: its cache, its pictures, and the text they stand for.

use super::seam::{ids_behind, ids_of, seam};
use super::{ChatOptions, ChatUsage, Talk};
use crate::VictorError;
use crate::answer::Answer;
use crate::completion::{Completion, FinishReason, Timings, Token};
use crate::engine::{Engine, Prepared};
use crate::pictures::Picture;
use burn::prelude::*;
use std::time::Instant;
use victor_backend::VictorBackend;
use victor_data::{Message, RgbImage, Role};
use victor_model::{KvCache, Sequence};

/// What the turns so far have left behind.
pub(super) struct Conversation<'a, B: Backend> {
    engine: &'a Engine<B>,
    options: ChatOptions,
    messages: Vec<Message>,
    /// Visual tokens of every picture in `messages`, `[visual tokens, hidden]`.
    pictures: Vec<Tensor<B, 2>>,
    /// Pictures of the next turn.
    waiting: Vec<Picture>,
    cache: KvCache<B>,
    /// The text of the last prompt; the cache holds it and the answer to it. `None` if the cache is
    /// empty or must be filled anew.
    prompt: Option<String>,
    /// All ids that stand in the cache, and `unfed`.
    ids: Vec<u32>,
    /// The last id of an answer that the model did not end: chosen, but not yet in the cache.
    unfed: Option<u32>,
    answer: Option<Answering<'a, B>>,
    usage: ChatUsage,
}

/// The answer in the making.
struct Answering<'a, B: Backend> {
    answer: Answer<'a>,
    /// Logits of the next token, `[1, vocab]`.
    logits: Tensor<B, 2>,
    timings: Timings,
}

/// The rows a turn adds.
struct Addition {
    /// Whether they are the whole conversation, for an empty cache.
    anew: bool,
    sequence: Sequence,
    rows: usize,
}

impl<'a, B: VictorBackend> Conversation<'a, B> {
    pub(super) fn new(engine: &'a Engine<B>, options: ChatOptions) -> Result<Self, VictorError> {
        options.generate.validate()?;
        let system = options.system.as_deref();
        let messages: Vec<Message> = system
            .map(|text| Message::text(Role::System, text))
            .into_iter()
            .collect();
        if let Some(system) = messages.first() {
            let probe = [system.clone(), Message::user(0, "?")];
            engine.template.render(&probe, true)?;
        }
        let text = &engine.model.config().text_config;
        Ok(Self {
            engine,
            options,
            messages,
            pictures: Vec::new(),
            waiting: Vec::new(),
            cache: KvCache::new(text.num_hidden_layers),
            prompt: None,
            ids: Vec::new(),
            unfed: None,
            answer: None,
            usage: ChatUsage {
                context: text.max_position_embeddings,
                ..Default::default()
            },
        })
    }

    /// Positions taken, the token not yet in the cache included.
    fn taken(&self) -> usize {
        let cached = self.cache.positions().first().copied().unwrap_or(0);
        cached + usize::from(self.unfed.is_some())
    }

    fn check_room(&self, rows: usize) -> Result<(), VictorError> {
        let context = self.usage.context;
        let left = context.saturating_sub(self.taken());
        if rows > left {
            return Err(VictorError::ConversationFull {
                rows,
                left,
                context,
            });
        }
        Ok(())
    }

    fn visual_rows(&self, picture: &Picture) -> usize {
        self.engine.visual_rows(&picture.grid)
    }

    /// The rows that lead from the cache to the end of `whole`.
    fn addition(&self, whole: &str) -> Result<Addition, VictorError> {
        let new: Vec<usize> = self.waiting.iter().map(|p| self.visual_rows(p)).collect();
        if let Some(ids) = self.continuation(whole, new.len())? {
            let mut sequence = self.engine.sequence(&ids, &new)?;
            if let Some(id) = self.unfed {
                sequence.ids.insert(0, id);
                for span in &mut sequence.image_spans {
                    *span = span.start + 1..span.end + 1;
                }
            }
            let rows = self.engine.rows(&sequence) - usize::from(self.unfed.is_some());
            return Ok(Addition {
                anew: false,
                sequence,
                rows,
            });
        }
        let ids = self.engine.encode_prompt(whole)?;
        let mut counts: Vec<usize> = self.pictures.iter().map(|p| p.dims()[0]).collect();
        counts.extend(new);
        let sequence = self.engine.sequence(&ids, &counts)?;
        let rows = self.engine.rows(&sequence).saturating_sub(self.taken());
        Ok(Addition {
            anew: true,
            sequence,
            rows,
        })
    }

    /// The ids that follow those in the cache; `None` if the text does not go on from them.
    fn continuation(
        &self,
        whole: &str,
        new_pictures: usize,
    ) -> Result<Option<Vec<u32>>, VictorError> {
        let (Some(prompt), Some(said)) = (&self.prompt, self.messages.last()) else {
            return Ok(None);
        };
        let Some(seam) = seam(whole, prompt, &said.words()) else {
            return Ok(None);
        };
        let ids = ids_behind(|text| self.engine.encode_prompt(text), whole, seam)?;
        let image = self.engine.image_token();
        let markers = |ids: &Vec<u32>| ids.iter().filter(|id| Some(**id) == image).count();
        Ok(ids.filter(|ids| !ids.is_empty() && markers(ids) == new_pictures))
    }

    /// Encodes the waiting pictures, and keeps their visual tokens.
    fn encode_waiting(&mut self) {
        let pictures = std::mem::take(&mut self.waiting);
        let counts = pictures.iter().map(|picture| self.visual_rows(picture));
        let counts: Vec<usize> = counts.collect();
        let visual = self
            .engine
            .visual_tokens(&pictures.iter().collect::<Vec<_>>());
        if let Some(visual) = visual {
            self.pictures.extend(visual.split_with_sizes(counts, 0));
        }
        self.usage.encoded_pictures += pictures.len();
    }
}

impl<B: VictorBackend> Talk for Conversation<'_, B> {
    fn add_image(&mut self, image: &RgbImage) -> Result<(), VictorError> {
        let grid = self.engine.grids(std::slice::from_ref(image))?;
        let Some(grid) = grid.into_iter().next() else {
            return Ok(());
        };
        let picture = self.engine.picture(image, grid)?;
        let registers = self.engine.model.config().num_registers();
        let rows = |picture| self.visual_rows(picture) + registers;
        let waiting: usize = self.waiting.iter().map(rows).sum();
        self.check_room(waiting + rows(&picture))?;
        self.waiting.push(picture);
        Ok(())
    }

    fn start(&mut self, text: &str) -> Result<(), VictorError> {
        self.settle();
        let mut timings = Timings::default();
        let clock = Instant::now();
        let mut messages = self.messages.clone();
        messages.push(Message::user(self.waiting.len(), text));
        let whole = self.engine.template.render(&messages, true)?;
        let addition = self.addition(&whole)?;
        self.check_room(addition.rows)?;
        let prepared = [Prepared {
            sequence: addition.sequence,
            pictures: Vec::new(),
        }];
        let layout = self.engine.layout(&prepared)?;
        let [Prepared { sequence, .. }] = prepared;
        Timings::add(&mut timings.preprocess_s, clock.elapsed());

        let clock = Instant::now();
        let known = self.pictures.len();
        self.encode_waiting();
        self.engine.sync();
        Timings::add(&mut timings.vision_s, clock.elapsed());

        let clock = Instant::now();
        let mut shown = &self.pictures[known..];
        if addition.anew {
            shown = &self.pictures;
            let layers = self.engine.model.config().text_config.num_hidden_layers;
            self.usage.restarts += usize::from(!self.cache.is_empty());
            self.cache = KvCache::new(layers);
            self.ids.clear();
        }
        let visual = (!shown.is_empty()).then(|| Tensor::cat(shown.to_vec(), 0));
        let logits = self.engine.model.prefill(&layout, visual, &mut self.cache);
        self.engine.sync();
        Timings::add(&mut timings.prefill_s, clock.elapsed());

        self.usage.prefilled_rows += layout.len();
        let known = usize::from(self.unfed.take().is_some() && !addition.anew);
        self.ids.extend_from_slice(&sequence.ids[known..]);
        self.messages = messages;
        self.prompt = Some(whole);
        let options = &self.options.generate;
        let tokenizer = &self.engine.tokenizer;
        let answer = Answer::new(options, 0, tokenizer, &self.ids, self.taken());
        self.answer = Some(Answering {
            answer,
            logits,
            timings,
        });
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Token>, VictorError> {
        let Some(Answering {
            answer,
            logits,
            timings,
        }) = &mut self.answer
        else {
            return Ok(None);
        };
        if answer.finished.is_some() {
            return Ok(None);
        }
        let clock = Instant::now();
        if let Some(last) = answer.ids.last() {
            *logits = self.engine.model.decode(&[*last], &mut self.cache);
            timings.decode_steps += 1;
        }
        let mut values = logits.clone().into_data().convert::<f32>();
        let values: &mut [f32] = values.as_mut_slice().unwrap_or_default();
        let token = answer.next(values, &self.engine.ends(&self.options.generate))?;
        Timings::add(&mut timings.decode_s, clock.elapsed());
        Ok(Some(token))
    }

    fn settle(&mut self) {
        let Some(Answering { answer, .. }) = self.answer.take() else {
            return;
        };
        let cached = self.taken() - answer.prompt_tokens;
        let mut ids = answer.ids;
        // What closes a turn is left to the template.
        if answer.finished == Some(FinishReason::Stop) {
            ids.pop();
        }
        match ids_of(&self.engine.tokenizer, &ids, &answer.text) {
            Some(count) => {
                ids.truncate(count);
                self.cache.truncate(cached.saturating_sub(count));
                self.unfed = ids.get(cached).copied();
                self.ids.extend(ids);
            }
            None => self.prompt = None,
        }
        let said = Message::text(Role::Assistant, answer.text);
        self.messages.push(said);
    }

    fn clear(&mut self) {
        self.settle();
        let layers = self.engine.model.config().text_config.num_hidden_layers;
        self.messages.retain(|message| message.role == Role::System);
        self.pictures.clear();
        self.waiting.clear();
        self.cache = KvCache::new(layers);
        self.prompt = None;
        self.ids.clear();
        self.unfed = None;
    }

    fn completion(&self) -> Completion {
        match &self.answer {
            Some(answering) => answering.answer.completion(),
            None => Completion {
                text: String::new(),
                ids: Vec::new(),
                finish_reason: FinishReason::Interrupted,
                prompt_tokens: self.taken(),
            },
        }
    }

    fn timings(&self) -> Timings {
        let timings = self.answer.as_ref().map(|answering| answering.timings);
        Timings {
            kv_bytes: self.cache.bytes(),
            ..timings.unwrap_or_default()
        }
    }

    fn messages(&self) -> &[Message] {
        &self.messages
    }

    fn ids(&self) -> &[u32] {
        &self.ids
    }

    fn waiting_images(&self) -> usize {
        self.waiting.len()
    }

    fn usage(&self) -> ChatUsage {
        ChatUsage {
            rows: self.taken(),
            ..self.usage
        }
    }
}
