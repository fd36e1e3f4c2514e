//! Tests of text around pictures: pieces, spans, tokenizers that do not fit.

use super::*;
use crate::tokenizer::tests::{byte_fallback, byte_level};

/// An id that neither tokenizer has.
const IMAGE: u32 = 1000;
// Ids of the byte-fallback tokenizer.
const BOS: u32 = 0;
const EOS: u32 = 1;
const B: u32 = 261;
const SPACE_A: u32 = 263;
const SPACE_B: u32 = 264;

#[test]
fn every_piece_is_a_text_of_its_own_with_one_beginning() -> Result<(), DataError> {
    let tokenizer = byte_fallback();
    let ids = |text, special| tokenizer.encode_with_images(text, special, IMAGE);
    assert_eq!(ids("a<image>b", true)?, [BOS, SPACE_A, IMAGE, SPACE_B]);
    assert_eq!(ids("<image>b", true)?, [BOS, IMAGE, SPACE_B]);
    assert_eq!(ids("<image><image>", true)?, [BOS, IMAGE, IMAGE]);
    assert_eq!(
        ids("a<image>b</s>b", false)?,
        [SPACE_A, IMAGE, SPACE_B, EOS, SPACE_B]
    );
    // A template's own beginning of sequence stays, and one in the middle that the text spells out too.
    assert_eq!(ids("<s>a<image>b", false)?, [BOS, SPACE_A, IMAGE, SPACE_B]);
    assert_eq!(ids("ab", true)?, [BOS, SPACE_A, B]);
    assert_eq!(ids("", true)?, [BOS]);
    Ok(())
}

#[test]
fn the_whole_text_is_encoded_where_the_tokenizer_knows_pictures() -> Result<(), DataError> {
    let mut tokenizer = byte_level();
    assert_eq!(tokenizer.image_marking(IMAGE)?, ImageMarking::Pieces);
    let id = tokenizer.add_special_token("<image>");
    assert_eq!(tokenizer.image_marking(id)?, ImageMarking::Token);
    let text = "a<image> a b";
    assert_eq!(
        tokenizer.encode_with_images(text, true, id)?,
        tokenizer.encode(text, true)?
    );
    let spans = [8..9, 9..10];
    assert_eq!(
        tokenizer.encode_with_images_and_spans(text, true, id, &spans)?,
        tokenizer.encode_with_spans(text, true, &spans)?
    );
    Ok(())
}

#[test]
fn spans_are_followed_through_the_pieces() -> Result<(), DataError> {
    for tokenizer in [byte_level(), byte_fallback()] {
        let text = "a<image>\nb a</s>b<image> b</s>";
        let answer = text.find(" a</s>").expect("the first");
        let last = text.rfind(" b</s>").expect("the last");
        let spans = [answer..answer + 6, last..text.len()];
        let (ids, mask) = tokenizer.encode_with_images_and_spans(text, true, IMAGE, &spans)?;
        assert_eq!(ids, tokenizer.encode_with_images(text, true, IMAGE)?);
        let learned: Vec<u32> = ids
            .iter()
            .zip(&mask)
            .filter(|(_, learned)| **learned)
            .map(|(id, _)| *id)
            .collect();
        let answers = [" a</s>", " b</s>"].map(|answer| {
            // A piece's first word has its own space in a metaspace vocabulary.
            let ids = tokenizer.encode(answer, false).expect("encodes");
            ids[ids.len() - 2..].to_vec()
        });
        assert_eq!(
            learned.len(),
            mask.iter().filter(|learned| **learned).count()
        );
        assert!(learned.starts_with(&answers[0]), "{learned:?}");
        assert!(learned.ends_with(&answers[1]), "{learned:?}");
        assert_eq!(ids.iter().filter(|id| **id == IMAGE).count(), 2);
    }
    let (_, mask) =
        byte_fallback().encode_with_images_and_spans("a<image>b", true, IMAGE, &[0..0, 3..4])?;
    assert_eq!(mask, [false, false, true, false]);
    let outside =
        byte_fallback().encode_with_images_and_spans("a<image>b", true, IMAGE, &[0..0, 3..44]);
    assert!(matches!(outside, Err(DataError::SpanOutsideText { .. })));
    Ok(())
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let mut tokenizer = byte_level();
    let text = tokenizer.image_marking(5).expect_err("a word").to_string();
    assert!(text.contains("the id 5"), "{text}");
    let id = tokenizer.add_special_token("<image>");
    let text = tokenizer
        .encode_with_images("a", true, IMAGE)
        .expect_err("another id")
        .to_string();
    assert!(
        text.contains(&id.to_string()) && text.contains("1000"),
        "{text}"
    );
}
