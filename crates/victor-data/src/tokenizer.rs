//! Text to ids and back, as a checkpoint's `tokenizer.json` and its companion files say.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::AddedToken;

use crate::processor_config::read_json_if_there;
use crate::{DataError, DecodeStream};

/// A checkpoint's tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<String>,
    eos: Option<String>,
    /// Whether characters unknown to the vocabulary are spelled as tokens like `<0xE2>`.
    pub(crate) byte_fallback: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, then adds what `tokenizer_config.json` and `added_tokens.json` list beyond it.
    ///
    /// # Errors
    /// If `tokenizer.json` is missing or unreadable, or an added token's id is taken.
    pub fn from_dir(dir: &Path) -> Result<Self, DataError> {
        let path = dir.join("tokenizer.json");
        if !path.exists() {
            return Err(DataError::NoSuchFile {
                path,
                expected: "the tokenizer; where a checkpoint has only `tokenizer.model`, convert it with \
                           `AutoTokenizer.from_pretrained(dir).save_pretrained(dir)`",
            });
        }
        let inner = tokenizers::Tokenizer::from_file(&path)
            .map_err(|source| DataError::LoadTokenizer { path, source })?;
        let mut tokenizer = Self {
            byte_fallback: decodes_bytes(&inner),
            inner,
            bos: None,
            eos: None,
        };

        let path = dir.join("added_tokens.json");
        if let Some(listed) =
            read_json_if_there::<BTreeMap<String, u32>>(&path, "a map of added tokens")?
        {
            let tokens = listed
                .into_iter()
                .map(|(content, id)| (id, AddedToken::from(content, false)))
                .collect();
            tokenizer.add_listed(&path, tokens)?;
        }
        let path = dir.join("tokenizer_config.json");
        if let Some(config) = read_json_if_there::<TokenizerConfig>(&path, "a tokenizer")? {
            tokenizer.bos = config.bos_token.map(TokenName::content);
            tokenizer.eos = config.eos_token.map(TokenName::content);
            let tokens = config
                .added_tokens_decoder
                .into_iter()
                .map(|(id, token)| (id, token.into()))
                .collect();
            tokenizer.add_listed(&path, tokens)?;
        }
        Ok(tokenizer)
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
        if let Some(span) = byte_spans
            .iter()
            .find(|span| text.get((*span).clone()).is_none())
        {
            return Err(DataError::SpanOutsideText {
                start: span.start,
                end: span.end,
                length: text.len(),
            });
        }
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

    /// The beginning-of-sequence token, as `tokenizer_config.json` names it.
    pub fn bos(&self) -> Option<&str> {
        self.bos.as_deref()
    }

    /// The end-of-sequence token, as `tokenizer_config.json` names it.
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

#[derive(Deserialize)]
struct TokenizerConfig {
    bos_token: Option<TokenName>,
    eos_token: Option<TokenName>,
    #[serde(default)]
    added_tokens_decoder: BTreeMap<u32, ListedToken>,
}

/// A token's name, bare or as an object with its stripping rules.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenName {
    Bare(String),
    Object { content: String },
}

impl TokenName {
    fn content(self) -> String {
        match self {
            Self::Bare(content) | Self::Object { content } => content,
        }
    }
}

#[derive(Deserialize)]
struct ListedToken {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

impl From<ListedToken> for AddedToken {
    fn from(token: ListedToken) -> Self {
        AddedToken::from(token.content, token.special)
            .lstrip(token.lstrip)
            .rstrip(token.rstrip)
            .single_word(token.single_word)
            .normalized(token.normalized)
    }
}
