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
        let Some(token) = self.tokenizer.id_to_token(id) else {
            return Ok(String::new());
        };
        // What is skipped neither ends a run of bytes nor adds text.
        let is_skipped = self.skip_special && self.tokenizer.is_special(&token);
        if is_skipped || (self.tokenizer.byte_fallback && is_byte(&token)) {
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
}

/// Whether a token stands for one byte, like `<0xE2>`.
fn is_byte(token: &str) -> bool {
    token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::tokenizer::tests::{byte_fallback, byte_level};
    use crate::{DataError, Tokenizer};

    fn deltas(tokenizer: &Tokenizer, ids: &[u32], skip: bool) -> Result<Vec<String>, DataError> {
        let mut stream = tokenizer.decode_stream(skip);
        let mut deltas = ids
            .iter()
            .map(|&id| stream.push(id))
            .collect::<Result<Vec<_>, _>>()?;
        deltas.push(stream.finish()?);
        Ok(deltas)
    }

    #[test]
    fn no_character_is_split() -> Result<(), DataError> {
        for tokenizer in [byte_level(), byte_fallback()] {
            let ids = tokenizer.encode("a 🦀é", false)?;
            let deltas = deltas(&tokenizer, &ids, true)?;
            assert_eq!(deltas.concat(), "a 🦀é");
            assert!(
                deltas.iter().all(|delta| !delta.contains('\u{FFFD}')),
                "{deltas:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn text_comes_as_soon_as_it_is_certain() -> Result<(), DataError> {
        let tokenizer = byte_level();
        let ids = tokenizer.encode("abc", false)?;
        assert_eq!(deltas(&tokenizer, &ids, true)?, ["a", "b", "c", ""]);
        Ok(())
    }

    proptest! {
        #[test]
        fn any_ids_stream_to_what_they_decode_to(
            ids in prop::collection::vec(0_u32..270, 0..40),
            skip: bool,
        ) {
            for tokenizer in [byte_level(), byte_fallback()] {
                let joined = deltas(&tokenizer, &ids, skip).expect("decodes").concat();
                prop_assert_eq!(joined, tokenizer.decode(&ids, skip).expect("decodes"));
            }
        }

        #[test]
        fn any_text_comes_back(text in "[ a-c\n🦀é≤]{0,12}") {
            for tokenizer in [byte_level(), byte_fallback()] {
                let ids = tokenizer.encode(&text, false).expect("encodes");
                let joined = deltas(&tokenizer, &ids, true).expect("decodes").concat();
                prop_assert_eq!(&joined, &tokenizer.decode(&ids, true).expect("decodes"));
                prop_assert_eq!(&joined, &text);
            }
        }
    }
}
