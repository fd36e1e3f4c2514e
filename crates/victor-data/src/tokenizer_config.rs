//! What stands beside a tokenizer: `tokenizer_config.json` and its kin, as transformers writes them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use tokenizers::AddedToken;

use crate::vocabulary::MAX_MODEL_LENGTH;
use crate::{DataError, SpacePrefix, Tokenizer, Vocabulary, VocabularyKind, VocabularyProblem};

/// The error of a vocabulary; `origin` is its file.
pub(crate) fn bad_vocabulary(origin: &str, reason: VocabularyProblem) -> DataError {
    DataError::BadVocabulary {
        origin: origin.to_owned(),
        reason,
    }
}

/// `tokenizer_config.json`; what concerns SentencePiece is read where there is no `tokenizer.json`.
#[derive(Default, Deserialize)]
pub(crate) struct TokenizerConfig {
    pub(crate) bos_token: Option<TokenName>,
    pub(crate) eos_token: Option<TokenName>,
    #[serde(default)]
    pub(crate) added_tokens_decoder: BTreeMap<u32, ListedToken>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    /// Whether every section of text gets a space in front, or only the first.
    legacy: Option<bool>,
}

impl TokenizerConfig {
    /// Reads SentencePiece's file with the settings that transformers keeps beside it.
    pub(crate) fn read_model(&self, path: &Path) -> Result<Tokenizer, DataError> {
        let origin = path.display().to_string();
        let read = |source| DataError::ReadFile {
            path: path.to_owned(),
            source,
        };
        let length = std::fs::metadata(path).map_err(read)?.len();
        if length > MAX_MODEL_LENGTH {
            let limit = MAX_MODEL_LENGTH;
            let reason = VocabularyProblem::TooLarge { length, limit };
            return Err(bad_vocabulary(&origin, reason));
        }
        let bytes = std::fs::read(path).map_err(read)?;
        let mut vocabulary = Vocabulary::from_sentencepiece(&bytes)
            .map_err(|reason| bad_vocabulary(&origin, reason))?;

        let named = |name: &Option<TokenName>| {
            let name = name.as_ref()?;
            vocabulary.id(name.as_str())
        };
        let (bos, eos) = (named(&self.bos_token), named(&self.eos_token));
        vocabulary.bos = bos.or(vocabulary.bos);
        vocabulary.eos = eos.or(vocabulary.eos);
        vocabulary.add_bos = self.add_bos_token.unwrap_or(vocabulary.add_bos);
        vocabulary.add_eos = self.add_eos_token.unwrap_or(vocabulary.add_eos);
        if let VocabularyKind::SentencePiece { space_prefix, .. } = &mut vocabulary.kind
            && self.legacy == Some(false)
            && *space_prefix == SpacePrefix::Sections
        {
            *space_prefix = SpacePrefix::Text;
        }
        Tokenizer::from_vocabulary(vocabulary, &origin)
    }
}

/// A token's name, bare or as an object with its stripping rules.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum TokenName {
    Bare(String),
    Object { content: String },
}

impl TokenName {
    fn as_str(&self) -> &str {
        match self {
            Self::Bare(content) | Self::Object { content } => content,
        }
    }

    pub(crate) fn content(self) -> String {
        match self {
            Self::Bare(content) | Self::Object { content } => content,
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct ListedToken {
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
