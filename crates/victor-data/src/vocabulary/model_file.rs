//! SentencePiece's `tokenizer.model`, a protobuf: the few fields of `sentencepiece_model.proto` that decide ids.

use prost::Message;

use super::{SpacePrefix, TokenType, Vocabulary, VocabularyKind, VocabularyProblem};

/// The longest file that is read, in bytes; Gemma's, with eight times Llama-2's pieces, has 4 MB.
pub(crate) const MAX_LENGTH: u64 = 16 << 20;

const BPE: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer_spec: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    normalizer_spec: Option<NormalizerSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerSpec {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    treat_whitespace_as_suffix: Option<bool>,
    #[prost(int32, optional, tag = "40")]
    unk_id: Option<i32>,
    #[prost(int32, optional, tag = "41")]
    bos_id: Option<i32>,
    #[prost(int32, optional, tag = "42")]
    eos_id: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerSpec {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    escape_whitespaces: Option<bool>,
}

impl Vocabulary {
    /// Reads a SentencePiece model of type BPE.
    ///
    /// # Errors
    /// If the bytes are no such model, or it has a setting that is not computed.
    pub fn from_sentencepiece(bytes: &[u8]) -> Result<Self, VocabularyProblem> {
        let length = bytes.len() as u64;
        if length > MAX_LENGTH {
            let limit = MAX_LENGTH;
            return Err(VocabularyProblem::TooLarge { length, limit });
        }
        let model = ModelProto::decode(bytes)
            .map_err(|source| VocabularyProblem::NotSentencePiece { source })?;
        let trainer = model.trainer_spec.unwrap_or_default();
        let normalizer = model.normalizer_spec.unwrap_or_default();
        trainer.check()?;
        normalizer.check()?;

        let id = |id: Option<i32>, default: i32| u32::try_from(id.unwrap_or(default)).ok();
        let mut scores = Vec::with_capacity(model.pieces.len());
        let mut tokens = Vec::with_capacity(model.pieces.len());
        let mut token_types = Vec::with_capacity(model.pieces.len());
        for piece in model.pieces {
            scores.push(piece.score.unwrap_or_default());
            token_types.push(TokenType::from(piece.kind.unwrap_or(1)));
            tokens.push(piece.piece.unwrap_or_default());
        }
        Ok(Self {
            kind: VocabularyKind::SentencePiece {
                scores,
                space_prefix: if normalizer.add_dummy_prefix.unwrap_or(true) {
                    SpacePrefix::Sections
                } else {
                    SpacePrefix::Never
                },
                remove_extra_whitespaces: normalizer.remove_extra_whitespaces.unwrap_or(true),
            },
            tokens,
            token_types,
            bos: id(trainer.bos_id, 1),
            eos: id(trainer.eos_id, 2),
            unk: id(trainer.unk_id, 0),
            eot: None,
            add_bos: true,
            add_eos: false,
        })
    }
}

impl TrainerSpec {
    fn check(&self) -> Result<(), VocabularyProblem> {
        let found = self.model_type.unwrap_or(1);
        if found != BPE {
            let found = match found {
                1 => "unigram".to_owned(),
                3 => "word".to_owned(),
                4 => "char".to_owned(),
                number => number.to_string(),
            };
            return Err(VocabularyProblem::ModelType { found });
        }
        if self.treat_whitespace_as_suffix == Some(true) {
            return Err(VocabularyProblem::Setting {
                field: "treat_whitespace_as_suffix",
                found: "true".to_owned(),
                expected: "false",
            });
        }
        Ok(())
    }
}

impl NormalizerSpec {
    fn check(&self) -> Result<(), VocabularyProblem> {
        // An identity's table is empty; every other one rewrites characters.
        if self
            .precompiled_charsmap
            .as_ref()
            .is_some_and(|map| !map.is_empty())
        {
            return Err(VocabularyProblem::Setting {
                field: "normalizer_spec.name",
                found: self.name.clone().unwrap_or_default(),
                expected: "`identity`",
            });
        }
        if self.escape_whitespaces == Some(false) {
            return Err(VocabularyProblem::Setting {
                field: "escape_whitespaces",
                found: "false".to_owned(),
                expected: "true",
            });
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "model_file_tests.rs"]
mod tests;
