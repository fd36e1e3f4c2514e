//! What can be wrong with a vocabulary.

/// Why a vocabulary gives no tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VocabularyProblem {
    /// There are no tokens.
    #[error("the vocabulary holds no token; the file is not whole, fetch it again")]
    Empty,
    /// A list that should say something of each token does not.
    #[error(
        "there are {found} {what} for {count} tokens; expected as many, so the file is damaged"
    )]
    Length {
        /// The list.
        what: &'static str,
        /// How long it is.
        found: usize,
        /// How many tokens there are.
        count: usize,
    },
    /// Two tokens have one spelling.
    #[error(
        "token {token:?} is there twice, as {first} and as {second}; expected every token once"
    )]
    Duplicate {
        /// The token.
        token: String,
        /// Its first id.
        first: usize,
        /// Its second id.
        second: usize,
    },
    /// A special token's id is none.
    #[error("the {what} token has the id {id}, and there are {count} tokens")]
    IdOutside {
        /// The special token.
        what: &'static str,
        /// Its id.
        id: u32,
        /// How many tokens there are.
        count: usize,
    },
    /// A token is to be added to every text, and there is none.
    #[error(
        "a {what} token is to be added to texts, and the vocabulary names none; give its id or switch it off"
    )]
    NoSuchToken {
        /// The special token.
        what: &'static str,
    },
    /// Characters outside the vocabulary could not be spelled.
    #[error(
        "the vocabulary has neither an unknown token nor the 256 tokens `<0x00>` to `<0xFF>`; texts could not be spelled"
    )]
    NoUnknown,
    /// The words of a byte-level vocabulary are cut in a way this engine does not compute.
    #[error("the pre-tokenizer {name:?} is not one this engine has; it has {}", available.join(", "))]
    PreTokenizer {
        /// The name in the file.
        name: String,
        /// The names that are understood.
        available: &'static [&'static str],
    },
    /// A merge is not two tokens.
    #[error("merge {index} is {text:?}; expected two tokens with a space between them")]
    Merge {
        /// Its place, from 0.
        index: usize,
        /// What stands there.
        text: String,
    },
    /// Merges name tokens that the vocabulary lacks.
    #[error("the merges and the tokens do not belong together")]
    Merges {
        /// What the tokenizers library said.
        #[source]
        source: tokenizers::Error,
    },
    /// A part of a tokenizer could not be made.
    #[error("the tokenizers library refuses a part of this tokenizer")]
    Part {
        /// What it said.
        #[source]
        source: serde_json::Error,
    },
    /// A piece is longer than any real one.
    #[error("piece {id} is {length} bytes long, the limit is {limit}; the file is damaged")]
    PieceLength {
        /// Its id.
        id: usize,
        /// Its length in bytes.
        length: usize,
        /// The longest that is read.
        limit: usize,
    },
    /// Pieces can be put together in more ways than those of any real vocabulary.
    #[error("more than {limit} merges make {count} pieces; the file is damaged")]
    TooManyMerges {
        /// How many pieces there are.
        count: usize,
        /// The most merges that are listed.
        limit: usize,
    },
    /// A `tokenizer.model` is larger than any real one.
    #[error(
        "a SentencePiece model of {length} bytes, the limit is {limit}; this is another kind of file"
    )]
    TooLarge {
        /// Its length in bytes.
        length: u64,
        /// The longest that is read.
        limit: u64,
    },
    /// A `tokenizer.model` is not the protobuf it should be.
    #[error(
        "not a SentencePiece model ({source}); expected the `tokenizer.model` of a Llama-family checkpoint, fetch it again"
    )]
    NotSentencePiece {
        /// Where and why decoding stopped.
        #[source]
        source: prost::DecodeError,
    },
    /// A SentencePiece model of another algorithm.
    #[error(
        "a SentencePiece model of type {found}; this engine reads BPE, so convert it with `AutoTokenizer.from_pretrained(dir).save_pretrained(dir)`"
    )]
    ModelType {
        /// The type's name, or its number.
        found: String,
    },
    /// A SentencePiece model with a setting that is not computed.
    #[error(
        "SentencePiece's `{field}` is {found}, this engine computes {expected}; convert the model with `AutoTokenizer.from_pretrained(dir).save_pretrained(dir)`"
    )]
    Setting {
        /// The setting.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
}
