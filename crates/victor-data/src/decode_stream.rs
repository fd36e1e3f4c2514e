//! Ids to text one token at a time, never splitting a character.

use crate::{DataError, Tokenizer};

const REPLACEMENT: char = '\u{FFFD}';

/// Turns ids into text as they come; the deltas, with that of [`finish`](Self::finish), join into what
/// [`Tokenizer::decode`] gives for all of them.
///
/// Text is held back while it may still change: bytes that do not yet make a character and, with byte-fallback
/// vocabularies, a run of byte tokens, whose decoding depends on the whole run.
#[derive(Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    ids: Vec<u32>,
    /// From here on ids are decoded again at each step: those before `decoded` only give context.
    context: usize,
    /// Ids before this have been turned into text.
    decoded: usize,
    /// Bytes of text given out so far.
    given: usize,
}

impl<'a> DecodeStream<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self {
            tokenizer,
            skip_special,
            ids: Vec::new(),
            context: 0,
            decoded: 0,
            given: 0,
        }
    }

    /// Takes one id and returns the text that has become certain, often empty.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String, DataError> {
        self.ids.push(id);
        if self.tokenizer.byte_fallback && self.is_byte(id) {
            return Ok(String::new());
        }
        let before = self
            .tokenizer
            .decode(&self.ids[self.context..self.decoded], self.skip_special)?;
        let after = self
            .tokenizer
            .decode(&self.ids[self.context..], self.skip_special)?;
        let Some(delta) = after.strip_prefix(before.as_str()) else {
            return Ok(String::new());
        };
        if delta.is_empty() || delta.ends_with(REPLACEMENT) {
            return Ok(String::new());
        }
        self.context = self.decoded;
        self.decoded = self.ids.len();
        self.given += delta.len();
        Ok(delta.to_owned())
    }

    /// Returns what was held back to the last, and ends the stream.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String, DataError> {
        let whole = self.tokenizer.decode(&self.ids, self.skip_special)?;
        Ok(whole.get(self.given..).unwrap_or_default().to_owned())
    }

    fn is_byte(&self, id: u32) -> bool {
        self.tokenizer.id_to_token(id).is_some_and(|token| {
            token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
        })
    }
}
