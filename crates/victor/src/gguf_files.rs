//! Tokenizer, template and processor from llama.cpp's files.

use crate::VictorError;
use victor_data::{
    ChatTemplate, ImageProcessor, SpacePrefix, TokenType, Tokenizer, Vocabulary, VocabularyKind,
};
use victor_model::VisionFamily;
use victor_weights::gguf::{self, Vision};
use victor_weights::{GgufParts, WeightsError};

/// The tokenizer the decoder's file holds.
///
/// # Errors
/// If it holds none, or one of a kind that is not read.
pub(crate) fn tokenizer(parts: &GgufParts) -> Result<Tokenizer, VictorError> {
    let tables = tables(parts)?;
    let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
    let tokens = owned(&tables.tokens);
    let mut vocabulary = match tables.model {
        "llama" => {
            let scores = tables.scores.iter().flatten();
            Vocabulary::sentence_piece(tokens, scores.map(|score| *score as f32).collect())
        }
        "gpt2" => {
            let pre = tables.pre.unwrap_or("default").to_string();
            let merges = owned(tables.merges.as_deref().unwrap_or_default());
            Vocabulary::byte_level(pre, tokens, merges)
        }
        other => {
            return Err(VictorError::GgufTokenizer {
                path: parts.decoder.path().into(),
                kind: other.into(),
            });
        }
    };
    if let (VocabularyKind::SentencePiece { space_prefix, .. }, Some(false)) =
        (&mut vocabulary.kind, tables.add_space_prefix)
    {
        *space_prefix = SpacePrefix::Never;
    }
    let types = tables.token_types.iter().flatten();
    vocabulary.token_types = types.map(|kind| TokenType::from(*kind as i32)).collect();
    vocabulary.bos = tables.bos.or(vocabulary.bos);
    vocabulary.eos = tables.eos.or(vocabulary.eos);
    vocabulary.unk = tables.unknown.or(vocabulary.unk);
    vocabulary.eot = tables.eot;
    vocabulary.add_bos = tables.add_bos.unwrap_or(vocabulary.add_bos);
    vocabulary.add_eos = tables.add_eos.unwrap_or(vocabulary.add_eos);
    let origin = parts.decoder.path().display().to_string();
    Ok(Tokenizer::from_vocabulary(vocabulary, &origin)?)
}

/// The chat template the decoder's file holds, if it holds one.
///
/// # Errors
/// If it does not compile.
pub(crate) fn template(
    parts: &GgufParts,
    tokenizer: &Tokenizer,
) -> Result<Option<ChatTemplate>, VictorError> {
    let Some(source) = tables(parts)?.chat_template else {
        return Ok(None);
    };
    let origin = parts.decoder.path().display().to_string();
    let template = ChatTemplate::from_source(source, &origin)?;
    Ok(Some(template.with_tokens_of(tokenizer)))
}

fn tables(parts: &GgufParts) -> Result<gguf::Vocabulary<'_>, VictorError> {
    let path = parts.decoder.path();
    let error = |source| WeightsError::Gguf {
        path: path.into(),
        source,
    };
    let tables = gguf::Vocabulary::from_file(&parts.decoder).map_err(error)?;
    tables.ok_or_else(|| VictorError::GgufTokenizer {
        path: path.into(),
        kind: "none".into(),
    })
}

/// How pictures are prepared for the tower of an `mmproj` file, as llama.cpp does it: padded to a
/// square with the mean colour, unless the file says otherwise.
pub(crate) fn processor(vision: &Vision) -> ImageProcessor {
    let side = vision.config.image_size as u32;
    let tiles = vision.unpad && !vision.image_grid_pinpoints.is_empty();
    let aspect = vision.image_aspect_ratio.as_deref().unwrap_or("pad");
    let plain = match vision.config.family {
        VisionFamily::Siglip => ImageProcessor::siglip(side),
        _ => ImageProcessor::clip(side),
    };
    ImageProcessor {
        pad_to_square: aspect == "pad" && !tiles,
        mean: vision.image_mean,
        std: vision.image_std,
        image_grid_pinpoints: if tiles {
            vision.image_grid_pinpoints.clone()
        } else {
            Vec::new()
        },
        ..plain
    }
}
