//! A vocabulary apart from the file it came in: what a `tokenizer.model` and a GGUF file's metadata both say.

mod byte_level;
mod model_file;
mod problem;
mod sentence_piece;

use std::collections::HashMap;

use serde_json::{Value, json};
use tokenizers::models::bpe;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

pub use byte_level::PRE_TOKENIZERS;
pub(crate) use model_file::MAX_LENGTH as MAX_MODEL_LENGTH;
pub use problem::VocabularyProblem;

/// Everything that decides which ids a text has.
///
/// A token's id is its place in [`tokens`](Self::tokens). [`Vocabulary::sentence_piece`] and
/// [`Vocabulary::byte_level`] fill what a file may leave unsaid as llama.cpp does; fields that the file does say are
/// set afterwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    /// How text is cut and merged.
    pub kind: VocabularyKind,
    /// The tokens as the file spells them: `▁` or byte-level characters for spaces. A nameless token becomes `[EMPTY_i]`.
    pub tokens: Vec<String>,
    /// What each token is for; empty where all are [`TokenType::Normal`].
    pub token_types: Vec<TokenType>,
    /// The beginning of a sequence.
    pub bos: Option<u32>,
    /// The end of a sequence.
    pub eos: Option<u32>,
    /// What stands for a character that nothing else can spell.
    pub unk: Option<u32>,
    /// The end of a turn, where it is another token than [`eos`](Self::eos). Unless set it is looked for among the control
    /// tokens, by the names that chat models use.
    pub eot: Option<u32>,
    /// Whether `bos` goes in front of an encoded text.
    pub add_bos: bool,
    /// Whether `eos` goes behind it.
    pub add_eos: bool,
}

/// The two kinds of byte-pair encoding in the LLaVA family.
#[derive(Debug, Clone, PartialEq)]
pub enum VocabularyKind {
    /// SentencePiece's, GGUF's `llama`: of all neighbours that make a token, those with the highest score merge first.
    SentencePiece {
        /// One for each token, as a rule minus its rank.
        scores: Vec<f32>,
        /// Where a space is put in front of text.
        space_prefix: SpacePrefix,
        /// Whether runs of spaces count as one, and spaces at the ends as none.
        remove_extra_whitespaces: bool,
    },
    /// GPT-2's, GGUF's `gpt2`: words are cut out by a regular expression, and merged by rank.
    ByteLevel {
        /// GGUF's name of the regular expression, one of [`PRE_TOKENIZERS`].
        pre_tokenizer: String,
        /// `left right`, the most frequent first.
        merges: Vec<String>,
    },
}

/// Where SentencePiece's "dummy prefix" goes, so that a word has one id wherever it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpacePrefix {
    /// Nowhere.
    Never,
    /// In front of the whole text: transformers' `legacy: false`.
    Text,
    /// In front of the text and after every special token: llama.cpp, and transformers' `legacy: true`.
    Sections,
}

/// What a token is for; SentencePiece and GGUF number the types alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// A piece of text.
    Normal,
    /// What cannot be spelled.
    Unknown,
    /// A special token, such as the beginning of a sequence.
    Control,
    /// A piece of text that is never cut nor merged.
    UserDefined,
    /// A place that holds nothing.
    Unused,
    /// One byte, `<0xE2>`.
    Byte,
}

impl From<i32> for TokenType {
    /// The type of a number in a file; numbers that none has are ordinary tokens.
    fn from(number: i32) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// Names of the end of a turn, for files that do not say which token it is.
const END_OF_TURN: [&str; 4] = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"];

impl Vocabulary {
    /// A SentencePiece vocabulary with Llama-2's settings: ids 0, 1, 2 are `unk`, `bos` and `eos`, `bos` is added, and
    /// every section of text gets a space.
    pub fn sentence_piece(tokens: Vec<String>, scores: Vec<f32>) -> Self {
        Self {
            kind: VocabularyKind::SentencePiece {
                scores,
                space_prefix: SpacePrefix::Sections,
                remove_extra_whitespaces: false,
            },
            tokens,
            token_types: Vec::new(),
            bos: Some(1),
            eos: Some(2),
            unk: Some(0),
            eot: None,
            add_bos: true,
            add_eos: false,
        }
    }

    /// A byte-level vocabulary; Llama-3's pre-tokenizer adds `bos`, the others add nothing.
    pub fn byte_level(pre_tokenizer: String, tokens: Vec<String>, merges: Vec<String>) -> Self {
        Self {
            add_bos: byte_level::adds_bos(&pre_tokenizer),
            kind: VocabularyKind::ByteLevel {
                pre_tokenizer,
                merges,
            },
            tokens,
            token_types: Vec::new(),
            bos: None,
            eos: None,
            unk: None,
            eot: None,
            add_eos: false,
        }
    }

    /// The id of a token, spelled as in [`tokens`](Self::tokens).
    pub fn id(&self, token: &str) -> Option<u32> {
        let place = self.tokens.iter().position(|other| other == token)?;
        u32::try_from(place).ok()
    }

    /// The end of a turn, as the file says it or by its name.
    pub(crate) fn end_of_turn(&self) -> Option<u32> {
        self.eot.or_else(|| {
            END_OF_TURN
                .iter()
                .filter_map(|name| self.id(name))
                .find(|&id| self.token_type(id) == TokenType::Control)
        })
    }

    /// The name of an id.
    pub(crate) fn name(&self, id: Option<u32>) -> Option<String> {
        self.tokens.get(id? as usize).cloned()
    }

    /// A tokenizer that gives the ids that llama.cpp and transformers give.
    pub(crate) fn build(mut self) -> Result<Tokenizer, VocabularyProblem> {
        for (id, token) in self.tokens.iter_mut().enumerate() {
            if token.is_empty() {
                *token = format!("[EMPTY_{id}]");
            }
        }
        self.check()?;
        let added = self.added_tokens();
        let frame = self.post_processor();
        let ids = self.tokens.iter().cloned().zip(0..).collect();

        let mut tokenizer = match &self.kind {
            VocabularyKind::SentencePiece { .. } => sentence_piece::build(&self, ids)?,
            VocabularyKind::ByteLevel {
                pre_tokenizer,
                merges,
            } => byte_level::build(pre_tokenizer, merges, ids)?,
        };
        if let Some(frame) = frame {
            tokenizer.with_post_processor(Some(part::<tokenizers::PostProcessorWrapper>(frame)?));
        }
        let (special, ordinary): (Vec<_>, Vec<_>) =
            added.into_iter().partition(|token| token.special);
        tokenizer.add_special_tokens(&special);
        tokenizer.add_tokens(&ordinary);
        Ok(tokenizer)
    }

    fn check(&self) -> Result<(), VocabularyProblem> {
        let count = self.tokens.len();
        if count == 0 {
            return Err(VocabularyProblem::Empty);
        }
        let mut lengths = vec![("token types", self.token_types.len())];
        lengths.retain(|(_, found)| *found > 0);
        if let VocabularyKind::SentencePiece { scores, .. } = &self.kind {
            lengths.push(("scores", scores.len()));
        }
        if let Some(&(what, found)) = lengths.iter().find(|(_, found)| *found != count) {
            return Err(VocabularyProblem::Length { what, found, count });
        }
        let ids = [
            ("beginning-of-sequence", self.bos),
            ("end-of-sequence", self.eos),
            ("unknown", self.unk),
            ("end-of-turn", self.eot),
        ];
        for (what, id) in ids {
            if let Some(id) = id.filter(|id| *id as usize >= count) {
                return Err(VocabularyProblem::IdOutside { what, id, count });
            }
        }
        for (what, wanted, id) in [
            ("beginning-of-sequence", self.add_bos, self.bos),
            ("end-of-sequence", self.add_eos, self.eos),
        ] {
            if wanted && id.is_none() {
                return Err(VocabularyProblem::NoSuchToken { what });
            }
        }
        let mut places = HashMap::with_capacity(count);
        for (second, token) in self.tokens.iter().enumerate() {
            if let Some(first) = places.insert(token, second) {
                return Err(VocabularyProblem::Duplicate {
                    token: token.clone(),
                    first,
                    second,
                });
            }
        }
        Ok(())
    }

    fn token_type(&self, id: u32) -> TokenType {
        let id = id as usize;
        self.token_types
            .get(id)
            .copied()
            .unwrap_or(TokenType::Normal)
    }

    /// Tokens that are found in the text before it is cut.
    fn added_tokens(&self) -> Vec<AddedToken> {
        let frame = [self.bos, self.eos, self.unk];
        let tokens = self.tokens.iter().zip(0..);
        tokens
            .filter_map(|(token, id)| {
                let special = match self.token_type(id) {
                    TokenType::Control | TokenType::Unknown => true,
                    TokenType::UserDefined => false,
                    _ if frame.contains(&Some(id)) => true,
                    _ => return None,
                };
                Some(AddedToken::from(token.clone(), special).normalized(false))
            })
            .collect()
    }

    /// What puts `bos` and `eos` around a text, in the form of `tokenizer.json`.
    fn post_processor(&self) -> Option<Value> {
        let mut single = vec![json!({"Sequence": {"id": "A", "type_id": 0}})];
        let mut names = serde_json::Map::new();
        let mut special = |id: u32| {
            let name = &self.tokens[id as usize];
            names.insert(
                name.clone(),
                json!({"id": name, "ids": [id], "tokens": [name]}),
            );
            json!({"SpecialToken": {"id": name, "type_id": 0}})
        };
        if let Some(bos) = self.bos.filter(|_| self.add_bos) {
            single.insert(0, special(bos));
        }
        if let Some(eos) = self.eos.filter(|_| self.add_eos) {
            single.push(special(eos));
        }
        let pair = [
            single.clone(),
            vec![json!({"Sequence": {"id": "B", "type_id": 1}})],
        ]
        .concat();
        (single.len() > 1).then(|| {
            json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": names})
        })
    }
}

/// A part of a tokenizer, from the form it has in `tokenizer.json`.
fn part<T: serde::de::DeserializeOwned>(json: Value) -> Result<T, VocabularyProblem> {
    serde_json::from_value(json).map_err(|source| VocabularyProblem::Part { source })
}

/// A tokenizer around a byte-pair model.
fn around(model: bpe::BPE) -> Tokenizer {
    Tokenizer::new(ModelWrapper::BPE(model))
}

/// Builds the byte-pair model.
fn finish(builder: bpe::BpeBuilder) -> Result<bpe::BPE, VocabularyProblem> {
    builder
        .build()
        .map_err(|source| VocabularyProblem::Merges { source })
}

#[cfg(test)]
#[path = "vocabulary_tests.rs"]
mod tests;
