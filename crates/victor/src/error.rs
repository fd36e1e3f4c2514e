//! What can go wrong between a request and its answer.

use std::path::PathBuf;

/// Why a model cannot be opened or a request cannot be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VictorError {
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] victor_backend::DeviceError),
    /// A picture, prompt or tokenizer is not usable.
    #[error(transparent)]
    Data(#[from] victor_data::DataError),
    /// The checkpoint is not usable.
    #[error(transparent)]
    Weights(#[from] victor_weights::WeightsError),
    /// A model cannot be had from the Hub.
    #[error(transparent)]
    Hub(#[from] victor_hub::HubError),
    /// No folder of that name.
    #[error("{path}: no such folder; expected a checkpoint with config.json and weights, or a GGUF file", path = path.display())]
    NoSuchModel {
        /// What was asked for.
        path: PathBuf,
    },
    /// No model was named and the default weights are not to be found.
    #[error(
        "the default weights are not to be found (looked in {places}): name a checkpoint, or run from a checkout"
    )]
    NoDefaultWeights {
        /// Where they were looked for.
        places: String,
    },
    /// A GGUF file without a tokenizer, or with one of a kind that is not read.
    #[error("{path}: its tokenizer is of the kind `{kind}`; `llama` and `gpt2` are read", path = path.display())]
    GgufTokenizer {
        /// The file.
        path: PathBuf,
        /// The kind it names.
        kind: String,
    },
    /// A token id is beyond the rows of the embedding.
    #[error(
        "the tokenizer gave the id {id}, but the model embeds only {rows} tokens: the tokenizer belongs to another model"
    )]
    TokenBeyondVocabulary {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
    /// The processor gives pictures of another size than the tower takes.
    #[error(
        "the processor gives {found:?} pixels, but the vision tower takes {expected}×{expected}: preprocessor_config.json belongs to another model"
    )]
    PictureSize {
        /// Height and width given.
        found: (usize, usize),
        /// Side expected.
        expected: usize,
    },
    /// The processor cuts pictures into other tiles than the model puts together.
    #[error(
        "the processor fits pictures into {found:?}, but config.json's image_grid_pinpoints are {expected:?}: preprocessor_config.json belongs to another model"
    )]
    Pinpoints {
        /// `[height, width]` of the processor's grid resolutions.
        found: Vec<[usize; 2]>,
        /// Those of the model; none for one that takes a picture whole.
        expected: Vec<[usize; 2]>,
    },
    /// A picture for a model that reads text only.
    #[error(
        "this model reads text only (its config has no vision tower), but the request has {pictures} pictures: ask without them, or open a model with a vision tower"
    )]
    TextOnly {
        /// Pictures of the request.
        pictures: usize,
    },
    /// Registers for a model that reads text only.
    #[error("this model reads text only: registers summarise visual tokens, and it has none")]
    NoPicturesToReduce,
    /// The prompt does not fit.
    #[error(
        "the prompt takes {rows} positions (pictures and registers included), the model has {context}: shorten the prompt or use fewer pictures"
    )]
    ContextLength {
        /// Rows of the prompt.
        rows: usize,
        /// Positions of the model.
        context: usize,
    },
    /// The next turn of a conversation does not fit.
    #[error(
        "the turn takes {rows} more positions (pictures and registers included), but {left} of the model's {context} are left: say less, use fewer pictures, or start a new conversation"
    )]
    ConversationFull {
        /// Rows of the turn.
        rows: usize,
        /// Positions not yet taken.
        left: usize,
        /// Positions of the model.
        context: usize,
    },
    /// The prompt has no tokens.
    #[error("the prompt is empty: give it at least one word or picture")]
    EmptyPrompt,
    /// A generation option is out of its range.
    #[error("{option} is {found}; expected {expected}")]
    Option {
        /// Which option.
        option: &'static str,
        /// What was given.
        found: String,
        /// Its range.
        expected: &'static str,
    },
}
