//! A SentencePiece `tokenizer.model` written from a vocabulary, with the settings of Llama-2's.

use anyhow::{Context, Result, ensure};
use prost::Message;
use serde_json::{Map, Value};

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
    #[prost(string, tag = "1")]
    piece: String,
    #[prost(float, tag = "2")]
    score: f32,
    #[prost(int32, tag = "3")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerSpec {
    #[prost(int32, tag = "3")]
    model_type: i32,
    #[prost(int32, tag = "4")]
    vocab_size: i32,
    #[prost(bool, tag = "35")]
    byte_fallback: bool,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerSpec {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
}

/// The bytes of a BPE model with these tokens, scores and types.
pub(super) fn model_file(metadata: &Map<String, Value>) -> Result<Vec<u8>> {
    let list = |key: &str| {
        let value = metadata.get(key).and_then(Value::as_array);
        value.with_context(|| format!("no {key}"))
    };
    let tokens = list("tokenizer.ggml.tokens")?;
    let scores = list("tokenizer.ggml.scores")?;
    let kinds = list("tokenizer.ggml.token_type")?;
    ensure!(
        tokens.len() == scores.len() && tokens.len() == kinds.len(),
        "the lists of tokens, scores and types differ in length"
    );
    let pieces = tokens.iter().zip(scores).zip(kinds);
    let pieces = pieces.map(|((token, score), kind)| {
        Some(Piece {
            piece: token.as_str()?.to_owned(),
            score: score.as_f64()? as f32,
            kind: i32::try_from(kind.as_i64()?).ok()?,
        })
    });
    let pieces = pieces.collect::<Option<Vec<_>>>();
    let model = ModelProto {
        pieces: pieces.context("a list holds what it should not")?,
        trainer_spec: Some(TrainerSpec {
            model_type: 2,
            vocab_size: i32::try_from(tokens.len())?,
            byte_fallback: true,
        }),
        normalizer_spec: Some(NormalizerSpec {
            name: "identity".to_owned(),
            add_dummy_prefix: Some(true),
            remove_extra_whitespaces: Some(false),
        }),
    };
    Ok(model.encode_to_vec())
}
