//! Text with pictures in it, for tokenizers that have a token for a picture and for those that have none.

use std::ops::Range;

use crate::{DataError, IMAGE_MARKER, Tokenizer};

/// How the places of pictures come into the ids of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageMarking {
    /// The tokenizer has a special token of the picture's id, and finds it in the text.
    Token,
    /// It has none: the text between the `<image>` markers is encoded piece by piece, and the id is put between.
    Pieces,
}

impl Tokenizer {
    /// How pictures with this id, the config's `image_token_index`, are marked in text.
    ///
    /// # Errors
    /// If the tokenizer has an `<image>` of another id, or the id is an ordinary word's.
    pub fn image_marking(&self, image_token_id: u32) -> Result<ImageMarking, DataError> {
        if let Some(token) = self.id_to_token(image_token_id) {
            let added = self.inner.get_added_vocabulary().get_vocab();
            return if added.contains_key(&token) {
                Ok(ImageMarking::Token)
            } else {
                Err(DataError::ImageTokenIsText {
                    id: image_token_id,
                    token,
                })
            };
        }
        match self.token_to_id(IMAGE_MARKER) {
            Some(found) => Err(DataError::ImageTokenId {
                expected: image_token_id,
                found,
            }),
            None => Ok(ImageMarking::Pieces),
        }
    }

    /// The ids of `text`, with `image_token_id` once for each picture's marker.
    ///
    /// Where the tokenizer has no token for pictures this is LLaVA's `tokenizer_image_token` (`llava/mm_utils.py`): every
    /// piece between `<image>` markers is encoded as a text of its own, so that its first word gets its space, and of the
    /// beginnings of sequence only the first is kept.
    ///
    /// # Errors
    /// As [`image_marking`](Self::image_marking) and [`encode`](Self::encode).
    pub fn encode_with_images(
        &self,
        text: &str,
        add_special_tokens: bool,
        image_token_id: u32,
    ) -> Result<Vec<u32>, DataError> {
        if self.image_marking(image_token_id)? == ImageMarking::Token {
            return self.encode(text, add_special_tokens);
        }
        let mut ids = Vec::new();
        let mut beginning = None;
        for (index, piece) in text.split(IMAGE_MARKER).enumerate() {
            let piece = self.encode(piece, add_special_tokens)?;
            if index == 0 {
                beginning = self.beginning_of(&piece);
            } else {
                ids.push(image_token_id);
            }
            ids.extend(&piece[repeated(index, beginning, &piece)..]);
        }
        Ok(ids)
    }

    /// [`encode_with_images`](Self::encode_with_images), and for each id whether it covers a byte of one of `byte_spans`.
    ///
    /// # Errors
    /// As [`encode_with_images`](Self::encode_with_images) and [`encode_with_spans`](Self::encode_with_spans).
    pub fn encode_with_images_and_spans(
        &self,
        text: &str,
        add_special_tokens: bool,
        image_token_id: u32,
        byte_spans: &[Range<usize>],
    ) -> Result<(Vec<u32>, Vec<bool>), DataError> {
        if self.image_marking(image_token_id)? == ImageMarking::Token {
            return self.encode_with_spans(text, add_special_tokens, byte_spans);
        }
        check_spans(text, byte_spans)?;
        let (mut ids, mut covered) = (Vec::new(), Vec::new());
        let mut beginning = None;
        let mut start = 0;
        for (index, piece) in text.split(IMAGE_MARKER).enumerate() {
            let spans = within(start..start + piece.len(), byte_spans);
            let (piece_ids, mask) = self.encode_with_spans(piece, add_special_tokens, &spans)?;
            if index == 0 {
                beginning = self.beginning_of(&piece_ids);
            } else {
                let marker = start - IMAGE_MARKER.len()..start;
                ids.push(image_token_id);
                covered.push(!within(marker, byte_spans).is_empty());
            }
            let from = repeated(index, beginning, &piece_ids);
            ids.extend(&piece_ids[from..]);
            covered.extend(&mask[from..]);
            start += piece.len() + IMAGE_MARKER.len();
        }
        Ok((ids, covered))
    }

    /// The beginning of a sequence, if the ids begin with it.
    fn beginning_of(&self, ids: &[u32]) -> Option<u32> {
        let bos = self.token_to_id(self.bos()?)?;
        (ids.first() == Some(&bos)).then_some(bos)
    }
}

/// Refuses spans that lie outside the text or split a character.
pub(crate) fn check_spans(text: &str, byte_spans: &[Range<usize>]) -> Result<(), DataError> {
    let outside = |span: &&Range<usize>| text.get((*span).clone()).is_none();
    match byte_spans.iter().find(outside) {
        Some(span) => Err(DataError::SpanOutsideText {
            start: span.start,
            end: span.end,
            length: text.len(),
        }),
        None => Ok(()),
    }
}

/// How many ids of a later piece only repeat the beginning of the first.
fn repeated(index: usize, beginning: Option<u32>, ids: &[u32]) -> usize {
    let repeats = index > 0 && beginning.is_some() && ids.first().copied() == beginning;
    usize::from(repeats)
}

/// The parts of spans that lie in a range, counted from its start.
fn within(range: Range<usize>, spans: &[Range<usize>]) -> Vec<Range<usize>> {
    spans
        .iter()
        .map(|span| span.start.max(range.start)..span.end.min(range.end))
        .filter(|span| span.start < span.end)
        .map(|span| span.start - range.start..span.end - range.start)
        .collect()
}

#[cfg(test)]
#[path = "image_text_tests.rs"]
mod tests;
