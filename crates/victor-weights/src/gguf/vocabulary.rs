//! The tables of a tokenizer, as they stand under `tokenizer.` in the metadata.
//!
//! Source: llama.cpp's `docs/gguf.md` and `src/llama-vocab.cpp`. Nothing is interpreted here.

use super::{GgufError, GgufFile};

/// A tokenizer's tables; absent keys are `None`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Vocabulary<'a> {
    /// The kind: `llama` (SentencePiece BPE), `gpt2` (byte-level BPE), …
    pub model: &'a str,
    /// How text is cut before byte-level BPE: `llama-bpe`, `qwen2`, `smollm`, …
    pub pre: Option<&'a str>,
    /// The tokens by id.
    pub tokens: Vec<&'a str>,
    /// Scores by id (SentencePiece).
    pub scores: Option<Vec<f64>>,
    /// Types by id: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Option<Vec<i64>>,
    /// Merges by rank, two pieces with a space between.
    pub merges: Option<Vec<&'a str>>,
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends a text.
    pub eos: Option<u32>,
    /// Ends a turn.
    pub eot: Option<u32>,
    /// Stands for what has no token.
    pub unknown: Option<u32>,
    /// Fills up batches.
    pub padding: Option<u32>,
    /// Whether `bos` is put before a text.
    pub add_bos: Option<bool>,
    /// Whether `eos` is put behind a text.
    pub add_eos: Option<bool>,
    /// Whether a space is put before a text (SentencePiece).
    pub add_space_prefix: Option<bool>,
    /// The chat template, in Jinja.
    pub chat_template: Option<&'a str>,
}

impl<'a> Vocabulary<'a> {
    /// Reads the tables of a file; `None` if it has no tokenizer, as `mmproj` files.
    ///
    /// # Errors
    /// If a value has the wrong type, an id names no token, or scores and types are not one a token.
    pub fn from_file(file: &'a GgufFile) -> Result<Option<Self>, GgufError> {
        let metadata = file.metadata();
        let Some(model) = metadata.text("tokenizer.ggml.model")? else {
            return Ok(None);
        };
        let Some(tokens) = metadata.texts("tokenizer.ggml.tokens")? else {
            return Err(metadata.wrong("tokenizer.ggml.tokens", "an array of UTF-8 strings"));
        };
        let id = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match metadata.natural(&key)? {
                Some(id) if id >= tokens.len() as u64 => {
                    Err(metadata.wrong(&key, "an id below the number of tokens"))
                }
                id => Ok(id.map(|id| id as u32)),
            }
        };
        let one_each = |key: &str, found: Option<usize>| {
            if found.is_some_and(|found| found != tokens.len()) {
                return Err(metadata.wrong(key, "one element a token"));
            }
            Ok(())
        };
        let scores = metadata.numbers("tokenizer.ggml.scores")?;
        one_each("tokenizer.ggml.scores", scores.as_ref().map(Vec::len))?;
        let token_types = metadata.integers("tokenizer.ggml.token_type")?;
        one_each(
            "tokenizer.ggml.token_type",
            token_types.as_ref().map(Vec::len),
        )?;
        Ok(Some(Self {
            model,
            pre: metadata.text("tokenizer.ggml.pre")?,
            scores,
            token_types,
            merges: metadata.texts("tokenizer.ggml.merges")?,
            bos: id("bos")?,
            eos: id("eos")?,
            eot: id("eot")?,
            unknown: id("unknown")?,
            padding: id("padding")?,
            add_bos: metadata.boolean("tokenizer.ggml.add_bos_token")?,
            add_eos: metadata.boolean("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: metadata.boolean("tokenizer.ggml.add_space_prefix")?,
            chat_template: metadata.text("tokenizer.chat_template")?,
            tokens,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::testing::{Writer, tiny_mmproj};

    fn writer() -> Writer {
        Writer::new("llama")
            .text("tokenizer.ggml.model", "gpt2")
            .text("tokenizer.ggml.pre", "smollm")
            .texts("tokenizer.ggml.tokens", &["<eos>", "Ġa", "b"])
            .i32s("tokenizer.ggml.token_type", &[3, 1, 1])
            .texts("tokenizer.ggml.merges", &["Ġ a"])
            .u32("tokenizer.ggml.eos_token_id", 0)
            .bool("tokenizer.ggml.add_bos_token", false)
            .text("tokenizer.chat_template", "{{ messages }}")
    }

    #[test]
    fn tables_are_read_as_they_stand() {
        let file = writer().file();
        let found = Vocabulary::from_file(&file).expect("tables").expect("one");
        assert_eq!((found.model, found.pre), ("gpt2", Some("smollm")));
        assert_eq!(found.tokens, ["<eos>", "Ġa", "b"]);
        assert_eq!(found.token_types, Some(vec![3, 1, 1]));
        assert_eq!(found.merges, Some(vec!["Ġ a"]));
        assert_eq!((found.eos, found.bos, found.scores), (Some(0), None, None));
        assert_eq!((found.add_bos, found.add_eos), (Some(false), None));
        assert_eq!(found.chat_template, Some("{{ messages }}"));
        let without = tiny_mmproj().file();
        assert_eq!(Vocabulary::from_file(&without), Ok(None));
    }

    #[test]
    fn tables_that_do_not_fit_are_errors() {
        let cases = [
            (
                writer().u32("tokenizer.ggml.bos_token_id", 3),
                "bos_token_id` is `3`",
            ),
            (
                writer().f32s("tokenizer.ggml.scores", &[0.0]),
                "`tokenizer.ggml.scores` is `an array of 1`",
            ),
            (
                writer().without("tokenizer.ggml.tokens"),
                "tokenizer.ggml.tokens",
            ),
            (
                writer().u32("tokenizer.ggml.merges", 1),
                "an array of UTF-8 strings",
            ),
        ];
        for (writer, expected) in cases {
            let file = writer.file();
            let message = Vocabulary::from_file(&file)
                .expect_err(expected)
                .to_string();
            assert!(message.contains(expected), "{message} ({expected})");
        }
    }
}
