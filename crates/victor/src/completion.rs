//! What generation gives back.

use serde::Serialize;
use std::time::Duration;

/// One generated token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text it adds; empty while a character is unfinished or a stop string may have begun.
    pub text: String,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its answer.
    Stop,
    /// A stop string was produced; it is not part of the text.
    StopString,
    /// The limit on new tokens was reached.
    Length,
    /// The model's context is full.
    Context,
    /// It has not ended: nobody asked for the next token.
    Interrupted,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Completion {
    /// The answer's text, without special tokens.
    pub text: String,
    /// All generated ids, the stop token included.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Rows of the prompt before the drop, pictures and registers included.
    pub prompt_tokens: usize,
}

/// Where the time of a batch went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Pictures to pixels, prompts to ids; seconds.
    pub preprocess_s: f64,
    /// Pixels to visual tokens; seconds.
    pub vision_s: f64,
    /// The prompt through the decoder; seconds.
    pub prefill_s: f64,
    /// Choosing every token and computing all after the first; seconds.
    pub decode_s: f64,
    /// Decoding steps after the first token.
    pub decode_steps: usize,
    /// Bytes of cached keys and values at the end.
    pub kv_bytes: usize,
}

impl Timings {
    /// Adds those of another batch; of the two caches the larger counts.
    pub fn merge(&mut self, other: &Self) {
        self.preprocess_s += other.preprocess_s;
        self.vision_s += other.vision_s;
        self.prefill_s += other.prefill_s;
        self.decode_s += other.decode_s;
        self.decode_steps += other.decode_steps;
        self.kv_bytes = self.kv_bytes.max(other.kv_bytes);
    }

    pub(crate) fn add(field: &mut f64, since: Duration) {
        *field += since.as_secs_f64();
    }
}
