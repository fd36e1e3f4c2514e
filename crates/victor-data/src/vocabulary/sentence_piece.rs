//! SentencePiece's byte-pair encoding as merges with ranks, in the way of Hugging Face's `convert_slow_tokenizer.py`
//! (`LlamaConverter`).

use std::collections::HashMap;

use serde_json::{Value, json};
use tokenizers::models::bpe::{self, Vocab};
use tokenizers::{DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

use super::{
    SpacePrefix, TokenType, Vocabulary, VocabularyKind, VocabularyProblem, around, finish, part,
};

/// What stands for a space.
const SPACE: &str = "\u{2581}";
/// The longest piece that is merged, in bytes; Llama-2's longest has 48.
const MAX_PIECE: usize = 512;
/// In how many ways a piece can be put together, on average; Llama-2's have two.
const MOST_MERGES_A_PIECE: usize = 16;

/// Builds the tokenizer without its special tokens. Only called for SentencePiece vocabularies.
pub(super) fn build(vocabulary: &Vocabulary, ids: Vocab) -> Result<Tokenizer, VocabularyProblem> {
    let VocabularyKind::SentencePiece {
        scores,
        space_prefix,
        remove_extra_whitespaces,
    } = &vocabulary.kind
    else {
        return Err(VocabularyProblem::Empty);
    };
    let byte_fallback = (0..=u8::MAX).all(|byte| ids.contains_key(&format!("<0x{byte:02X}>")));
    if !byte_fallback && vocabulary.unk.is_none() {
        return Err(VocabularyProblem::NoUnknown);
    }
    let mut builder = bpe::BPE::builder()
        .vocab_and_merges(ids, merges(vocabulary, scores)?)
        .byte_fallback(byte_fallback)
        .fuse_unk(true);
    if let Some(unk) = vocabulary.name(vocabulary.unk) {
        builder = builder.unk_token(unk);
    }
    let mut tokenizer = around(finish(builder)?);

    let normalizer = normalizer(*space_prefix, *remove_extra_whitespaces);
    tokenizer.with_normalizer(Some(part::<NormalizerWrapper>(normalizer)?));
    if *space_prefix == SpacePrefix::Text {
        let metaspace = json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": false});
        tokenizer.with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(metaspace)?));
    }
    tokenizer.with_decoder(Some(part::<DecoderWrapper>(decoder(*space_prefix))?));
    Ok(tokenizer)
}

/// Every way to put a piece together from two others, the best first.
///
/// Of equal scores the longer left half comes first, as in the converter. Special pieces take no part: SentencePiece
/// never finds them in text.
fn merges(
    vocabulary: &Vocabulary,
    scores: &[f32],
) -> Result<Vec<(String, String)>, VocabularyProblem> {
    let merged: HashMap<&str, usize> = vocabulary
        .tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| {
            let kind = vocabulary.token_types.get(*id);
            !matches!(
                kind,
                Some(TokenType::Control | TokenType::Unknown | TokenType::Byte)
            )
        })
        .map(|(id, token)| (token.as_str(), id))
        .collect();

    let most = MOST_MERGES_A_PIECE * vocabulary.tokens.len() + MAX_PIECE;
    let mut found = Vec::new();
    for (id, (token, &score)) in vocabulary.tokens.iter().zip(scores).enumerate() {
        if token.len() > MAX_PIECE {
            let length = token.len();
            return Err(VocabularyProblem::PieceLength {
                id,
                length,
                limit: MAX_PIECE,
            });
        }
        if !merged.contains_key(token.as_str()) {
            continue;
        }
        let characters = token.chars().count();
        for (left_characters, (at, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (merged.get(left), merged.get(right)) {
                let right_characters = characters - left_characters;
                let order = (left_characters, right_characters);
                found.push((score, order, (id, left_id, right_id), (left, right)));
                if found.len() > most {
                    let count = vocabulary.tokens.len();
                    return Err(VocabularyProblem::TooManyMerges { count, limit: most });
                }
            }
        }
    }
    found.sort_unstable_by(|one, other| {
        let best_first = other.0.total_cmp(&one.0).then(other.1.cmp(&one.1));
        best_first.then(one.2.cmp(&other.2))
    });
    let pairs = found.into_iter().map(|(_, _, _, pair)| pair);
    Ok(pairs
        .map(|(left, right)| (left.to_owned(), right.to_owned()))
        .collect())
}

/// Spaces become `▁`, and each section of text gets one in front where it should.
fn normalizer(space_prefix: SpacePrefix, remove_extra_whitespaces: bool) -> Value {
    let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let mut steps = Vec::new();
    if remove_extra_whitespaces {
        steps.push(replace(json!({"Regex": "^ +| +$"}), ""));
        steps.push(replace(json!({"Regex": " {2,}"}), " "));
    }
    if space_prefix == SpacePrefix::Sections {
        steps.push(json!({"type": "Prepend", "prepend": SPACE}));
    }
    steps.push(replace(json!({"String": " "}), SPACE));
    json!({"type": "Sequence", "normalizers": steps})
}

/// Undoes it: `▁` are spaces, runs of byte tokens are characters, and the space in front goes.
fn decoder(space_prefix: SpacePrefix) -> Value {
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if space_prefix != SpacePrefix::Never {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": steps})
}
