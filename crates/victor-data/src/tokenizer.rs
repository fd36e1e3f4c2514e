//! Text to ids and back, as a checkpoint's `tokenizer.json` and its companion files say.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tokenizers::AddedToken;

use crate::image_text::check_spans;
use crate::processor_config::read_json_if_there;
use crate::tokenizer_config::{TokenName, TokenizerConfig, bad_vocabulary};
use crate::tokenizer_file;
use crate::{DataError, DecodeStream, Vocabulary};

/// A checkpoint's tokenizer.
///
/// Text that spells a special token becomes that token, as in transformers: chat templates rely on it, and a user who
/// writes `<image>` or `</s>` in a question gets the same. What a picture's marker may not do, stand where no picture
/// is given, is refused by [`expand_image_tokens`](crate::expand_image_tokens).
#[derive(Debug, Clone)]
pub struct Tokenizer {
    pub(crate) inner: tokenizers::Tokenizer,
    bos: Option<String>,
    eos: Option<String>,
    /// The end of a turn, where it is another token than the end of a sequence.
    eot: Option<u32>,
    /// Whether characters unknown to the vocabulary are spelled as tokens like `<0xE2>`.
    pub(crate) byte_fallback: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, or else SentencePiece's `tokenizer.model`, then adds what `tokenizer_config.json` and
    /// `added_tokens.json` list beyond it.
    ///
    /// # Errors
    /// If both are missing or the one is unreadable, or an added token's id is taken.
    pub fn from_dir(dir: &Path) -> Result<Self, DataError> {
        let config_path = dir.join("tokenizer_config.json");
        let mut config: TokenizerConfig =
            read_json_if_there(&config_path, "a tokenizer")?.unwrap_or_default();
        let path = dir.join("special_tokens_map.json");
        if let Some(map) = read_json_if_there::<TokenizerConfig>(&path, "a map of special tokens")?
        {
            config.bos_token = config.bos_token.or(map.bos_token);
            config.eos_token = config.eos_token.or(map.eos_token);
        }

        let path = dir.join("tokenizer.json");
        let model_path = dir.join("tokenizer.model");
        let mut tokenizer = if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(|source| DataError::ReadFile {
                path: path.clone(),
                source,
            })?;
            Self::around(tokenizer_file::read(&path, &text)?)
        } else if model_path.exists() {
            config.read_model(&model_path)?
        } else {
            return Err(DataError::NoSuchFile {
                path,
                expected: "the tokenizer (`tokenizer.json`, or SentencePiece's `tokenizer.model`); copy it from the \
                           checkpoint's page",
            });
        };

        let path = dir.join("added_tokens.json");
        if let Some(listed) =
            read_json_if_there::<BTreeMap<String, u32>>(&path, "a map of added tokens")?
        {
            let tokens = listed
                .into_iter()
                .map(|(content, id)| (id, AddedToken::from(content, false)))
                .map(|(id, token)| (id, token.normalized(!tokenizer.byte_fallback)))
                .collect();
            tokenizer.add_listed(&path, tokens)?;
        }
        tokenizer.bos = config.bos_token.map(TokenName::content);
        tokenizer.eos = config.eos_token.map(TokenName::content);
        let tokens = config
            .added_tokens_decoder
            .into_iter()
            .map(|(id, token)| (id, token.into()))
            .collect();
        tokenizer.add_listed(&config_path, tokens)?;
        Ok(tokenizer)
    }

    /// Builds the tokenizer of a vocabulary; `origin` is what errors call it, for instance its file.
    ///
    /// # Errors
    /// If the vocabulary is damaged, or of a kind that is not computed.
    pub fn from_vocabulary(vocabulary: Vocabulary, origin: &str) -> Result<Self, DataError> {
        let (bos, eos, eot) = (
            vocabulary.name(vocabulary.bos),
            vocabulary.name(vocabulary.eos),
            vocabulary.end_of_turn(),
        );
        let inner = vocabulary
            .build()
            .map_err(|reason| bad_vocabulary(origin, reason))?;
        Ok(Self {
            bos,
            eos,
            eot,
            ..Self::around(inner)
        })
    }

    /// Builds the tokenizer of a SentencePiece model, the bytes of a `tokenizer.model`.
    ///
    /// # Errors
    /// If the bytes are no such model, it is not of type BPE, or as [`from_vocabulary`](Self::from_vocabulary).
    pub fn from_sentencepiece(bytes: &[u8], origin: &str) -> Result<Self, DataError> {
        let vocabulary = Vocabulary::from_sentencepiece(bytes)
            .map_err(|reason| bad_vocabulary(origin, reason))?;
        Self::from_vocabulary(vocabulary, origin)
    }

    fn around(inner: tokenizers::Tokenizer) -> Self {
        Self {
            byte_fallback: decodes_bytes(&inner),
            inner,
            bos: None,
            eos: None,
            eot: None,
        }
    }

    /// The ids of `text`; `add_special_tokens` puts the tokenizer's own around them, for instance a beginning-of-sequence.
    ///
    /// # Errors
    /// If the tokenizer's model cannot represent the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, DataError> {
        let encoding = self
            .inner
            .encode_fast(text, add_special_tokens)
            .map_err(|source| DataError::Encode {
                length: text.len(),
                source,
            })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of a rendered chat template: special tokens are added unless the template wrote the first one itself.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.encode(text, self.wants_special_tokens(text))
    }

    /// Whether special tokens are still to be added to a rendered chat template.
    pub fn wants_special_tokens(&self, text: &str) -> bool {
        !self
            .bos
            .as_ref()
            .is_some_and(|bos| text.starts_with(bos.as_str()))
    }

    /// The ids of `text`, and for each whether it covers a byte of one of `byte_spans`.
    ///
    /// Special tokens that the tokenizer adds cover no byte; those written out in the text do.
    ///
    /// # Errors
    /// If a span lies outside the text or splits a character, or as [`encode`](Self::encode).
    pub fn encode_with_spans(
        &self,
        text: &str,
        add_special_tokens: bool,
        byte_spans: &[Range<usize>],
    ) -> Result<(Vec<u32>, Vec<bool>), DataError> {
        check_spans(text, byte_spans)?;
        let encoding = self
            .inner
            .encode(text, add_special_tokens)
            .map_err(|source| DataError::Encode {
                length: text.len(),
                source,
            })?;
        let mut covered = 0;
        let mask = encoding
            .get_offsets()
            .iter()
            .map(|&(start, end)| {
                // Byte-level tokenizers report a token's place without its leading space; it begins where the last ended.
                let start = start.min(covered);
                covered = covered.max(end);
                byte_spans
                    .iter()
                    .any(|span| start.max(span.start) < end.min(span.end))
            })
            .collect();
        Ok((encoding.get_ids().to_vec(), mask))
    }

    /// The text of `ids`, without special tokens if `skip_special`.
    ///
    /// Bytes that are no UTF-8 become U+FFFD; ids outside the vocabulary are left out.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, DataError> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|source| DataError::Decode {
                count: ids.len(),
                source,
            })
    }

    /// A decoder that takes ids one at a time.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream::new(self, skip_special)
    }

    /// The id of a token, spelled as in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A token as the vocabulary spells it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// How many tokens there are, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The highest id a text can have: a model needs one embedding row more than this.
    pub fn max_id(&self) -> u32 {
        let ids = self.inner.get_vocab(true).into_values();
        ids.max().unwrap_or_default()
    }

    /// The ids that end an answer as far as the vocabulary says: the end of a sequence and that of a turn.
    pub fn end_ids(&self) -> Vec<u32> {
        let eos = self.eos.as_deref().and_then(|eos| self.token_to_id(eos));
        let mut ids: Vec<u32> = eos.into_iter().chain(self.eot).collect();
        ids.dedup();
        ids
    }

    /// The beginning-of-sequence token, as `tokenizer_config.json` or the vocabulary names it.
    pub fn bos(&self) -> Option<&str> {
        self.bos.as_deref()
    }

    /// The end-of-sequence token, as `tokenizer_config.json` or the vocabulary names it.
    pub fn eos(&self) -> Option<&str> {
        self.eos.as_deref()
    }

    /// The id of `token`, which becomes a new special token if the vocabulary lacks it.
    ///
    /// The original LLaVA's vocabulary has no `<image>`, for instance.
    pub fn add_special_token(&mut self, token: &str) -> u32 {
        self.inner
            .add_special_tokens(&[AddedToken::from(token, true)]);
        self.inner
            .token_to_id(token)
            .unwrap_or(self.vocab_size() as u32)
    }

    pub(crate) fn is_special(&self, token: &str) -> bool {
        self.inner.get_added_vocabulary().is_special_token(token)
    }

    /// Adds tokens in the order of their ids, and checks that they get these ids.
    fn add_listed(
        &mut self,
        path: &Path,
        tokens: BTreeMap<u32, AddedToken>,
    ) -> Result<(), DataError> {
        for (expected, token) in tokens {
            let name = token.content.clone();
            if self.inner.token_to_id(&name).is_none() {
                if token.special {
                    self.inner.add_special_tokens(&[token]);
                } else {
                    self.inner.add_tokens(&[token]);
                }
            }
            let found = self.inner.token_to_id(&name).unwrap_or(u32::MAX);
            if found != expected {
                return Err(DataError::AddedTokenId {
                    path: PathBuf::from(path),
                    token: name,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }
}

/// Whether the decoder joins tokens like `<0xE2>` into characters.
fn decodes_bytes(tokenizer: &tokenizers::Tokenizer) -> bool {
    tokenizer
        .get_decoder()
        .and_then(|decoder| serde_json::to_string(decoder).ok())
        .is_some_and(|json| json.contains("\"ByteFallback\""))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn from_json(tokenizer: &Value, config: &Value) -> Result<Tokenizer, DataError> {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, json: &Value| {
            std::fs::write(dir.path().join(name), json.to_string()).expect("written");
        };
        write("tokenizer.json", tokenizer);
        write("tokenizer_config.json", config);
        Tokenizer::from_dir(dir.path())
    }

    fn special(id: usize, content: &str) -> Value {
        json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false})
    }

    fn config() -> Value {
        json!({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "add_bos_token": true})
    }

    fn adds_bos() -> Value {
        json!({"type": "TemplateProcessing",
               "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
               "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
               "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}})
    }

    /// A byte-level tokenizer like Llama-3's: every byte is a token, ` a` and ` b` are merged.
    pub(crate) fn byte_level() -> Tokenizer {
        let mut vocab = serde_json::Map::new();
        vocab.insert("<s>".to_owned(), json!(0));
        vocab.insert("</s>".to_owned(), json!(1));
        let mut symbols: Vec<char> = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet()
            .into_iter()
            .collect();
        symbols.sort_unstable();
        for symbol in symbols {
            let id = vocab.len();
            vocab.insert(symbol.to_string(), json!(id));
        }
        for merged in ["Ġa", "Ġb"] {
            let id = vocab.len();
            vocab.insert(merged.to_owned(), json!(id));
        }
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let tokenizer = json!({"version": "1.0", "added_tokens": [special(0, "<s>"), special(1, "</s>")],
            "normalizer": null, "pre_tokenizer": level, "decoder": level,
            "post_processor": {"type": "Sequence", "processors": [level, adds_bos()]},
            "model": {"type": "BPE", "vocab": vocab, "merges": [["Ġ", "a"], ["Ġ", "b"]]}});
        from_json(&tokenizer, &config()).expect("a tokenizer")
    }

    /// A tokenizer like Llama-2's: metaspace, and bytes as tokens for what the vocabulary lacks.
    pub(crate) fn byte_fallback() -> Tokenizer {
        let mut vocab = serde_json::Map::new();
        for token in ["<s>", "</s>", "<unk>"] {
            let id = vocab.len();
            vocab.insert(token.to_owned(), json!(id));
        }
        for byte in 0..256 {
            vocab.insert(format!("<0x{byte:02X}>"), json!(byte + 3));
        }
        for token in ["▁", "a", "b", "c", "▁a", "▁b", "é"] {
            let id = vocab.len();
            vocab.insert(token.to_owned(), json!(id));
        }
        let tokenizer = json!({"version": "1.0",
            "added_tokens": [special(0, "<s>"), special(1, "</s>"), special(2, "<unk>")],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": null, "post_processor": adds_bos(),
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "vocab": vocab, "merges": [["▁", "a"], ["▁", "b"]], "unk_token": "<unk>",
                      "byte_fallback": true, "fuse_unk": true}});
        from_json(&tokenizer, &config()).expect("a tokenizer")
    }

    /// The tokens that carry loss, for text in which the answers stand between brackets.
    fn learned(tokenizer: &Tokenizer, marked: &str) -> Vec<String> {
        let mut text = String::new();
        let mut spans = Vec::new();
        let mut start = 0;
        for symbol in marked.chars() {
            match symbol {
                '[' => start = text.len(),
                ']' => spans.push(start..text.len()),
                other => text.push(other),
            }
        }
        let (ids, mask) = tokenizer
            .encode_with_spans(&text, true, &spans)
            .expect("encodes");
        assert_eq!(ids, tokenizer.encode(&text, true).expect("encodes"));
        let kept = ids.iter().zip(mask).filter(|(_, kept)| *kept);
        kept.map(|(&id, _)| tokenizer.id_to_token(id).expect("a token"))
            .collect()
    }

    #[test]
    fn exactly_the_answers_carry_loss() {
        let (level, fallback) = (byte_level(), byte_fallback());
        assert_eq!(
            learned(&level, "ab:[ a b</s>]c[a</s>]\n"),
            ["Ġa", "Ġb", "</s>", "a", "</s>"]
        );
        assert_eq!(
            learned(&fallback, "ab:[ a b</s>]c[a</s>]\n"),
            ["▁a", "▁b", "</s>", "a", "</s>"]
        );
        // Of a character spelled by several tokens, each carries loss.
        assert_eq!(learned(&level, "🦀[🦀]🦀").len(), 4);
        assert_eq!(learned(&fallback, "a🦀[🦀]🦀").len(), 4);
        assert!(learned(&level, "abc").is_empty());
        // Spaces alone, whose reported place is empty in a byte-level tokenizer.
        assert_eq!(learned(&level, "c[  ]\n"), ["Ġ", "Ġ"]);
    }

    #[test]
    fn spans_outside_the_text_are_refused() {
        for span in [0..9, 1..2] {
            let error = byte_level()
                .encode_with_spans("é", false, &[span])
                .expect_err("outside");
            assert!(
                matches!(error, DataError::SpanOutsideText { .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn a_prompt_gets_one_beginning() -> Result<(), DataError> {
        let tokenizer = byte_level();
        assert_eq!(
            (tokenizer.bos(), tokenizer.eos()),
            (Some("<s>"), Some("</s>"))
        );
        assert_eq!(
            tokenizer.encode_prompt("a")?,
            tokenizer.encode_prompt("<s>a")?
        );
        assert_eq!(tokenizer.encode("a", true)?[0], 0);
        assert_eq!(
            tokenizer.decode(&tokenizer.encode_prompt("a b")?, true)?,
            "a b"
        );
        Ok(())
    }

    #[test]
    fn added_tokens_must_have_their_ids() -> Result<(), DataError> {
        let mut tokenizer = byte_level();
        let size = tokenizer.vocab_size() as u32;
        assert_eq!(tokenizer.add_special_token("<image>"), size);
        assert_eq!(tokenizer.add_special_token("<image>"), size);
        assert_eq!(tokenizer.encode("a<image>", false)?.last(), Some(&size));

        let plain = json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}});
        let listed = |id: &str| json!({"added_tokens_decoder": {id: {"content": "<image>", "special": true}}});
        assert_eq!(
            from_json(&plain, &listed("1"))?.token_to_id("<image>"),
            Some(1)
        );
        let error = from_json(&plain, &listed("5"))
            .expect_err("a hole")
            .to_string();
        assert!(
            error.contains("should have id 5") && error.contains("gives it 1"),
            "{error}"
        );
        Ok(())
    }

    #[test]
    fn a_missing_tokenizer_says_what_to_do() {
        let error = Tokenizer::from_dir(Path::new("/nowhere"))
            .expect_err("no file")
            .to_string();
        assert!(error.contains("tokenizer.model"), "{error}");
    }
}
