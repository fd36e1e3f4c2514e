//! Why a training run cannot start or go on.

use crate::Part;
use std::io;
use std::path::PathBuf;

/// Why a training run cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting has no usable value.
    #[error("`{field}` is {found}; expected {expected}")]
    Field {
        /// The setting.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// No recipe of that name is built in.
    #[error("no preset is called {name:?}; there are stage1 and stage2")]
    UnknownPreset {
        /// The name asked for.
        name: String,
    },
    /// The recipe is not valid TOML.
    #[error("{}: not a training recipe: {source}", path.display())]
    ParseConfig {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// A part is to be trained that the model does not have.
    #[error("`train` names {part}, which this model does not have")]
    MissingPart {
        /// The part.
        part: Part,
    },
    /// The model reads text only.
    #[error("{}: this model has no vision tower; training needs one", path.display())]
    TextOnly {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The model cuts pictures into tiles.
    #[error(
        "{}: LLaVA-NeXT models cannot be trained or probed here: a picture must give one tensor of one size, \
         and theirs give as many tiles as their shape asks for; take a LLaVA-1.5 checkpoint", path.display()
    )]
    Tiles {
        /// The checkpoint.
        path: PathBuf,
    },
    /// Nothing to train on.
    #[error("no sample is left of {records} records ({skipped} were skipped)")]
    NoSamples {
        /// Records read.
        records: usize,
        /// Records left out.
        skipped: usize,
    },
    /// A sample does not fit.
    #[error(
        "{}: record {id}: {length} rows, `max_length` is {limit}; raise it or set `skip_bad`", path.display()
    )]
    TooLong {
        /// The file of the record.
        path: PathBuf,
        /// The record's id.
        id: String,
        /// Its rows, visual tokens and registers included.
        length: usize,
        /// The most rows allowed.
        limit: usize,
    },
    /// No token of a sample carries loss.
    #[error("{}: record {id}: the assistant says nothing, so there is nothing to learn", path.display())]
    NoAnswer {
        /// The file of the record.
        path: PathBuf,
        /// The record's id.
        id: String,
    },
    /// The processor's picture size is not the tower's.
    #[error(
        "the image processor makes pictures of {found:?} (height, width), the tower takes {expected} each way"
    )]
    PictureSize {
        /// What the processor makes.
        found: (usize, usize),
        /// What the tower takes.
        expected: usize,
    },
    /// Too few pictures share what is said of them.
    #[error(
        "`{field}` needs {needed} or more first answers that several pictures share; the data has {groups}"
    )]
    NoGroups {
        /// The setting that needs them.
        field: &'static str,
        /// How many it needs.
        needed: usize,
        /// How many there are.
        groups: usize,
    },
    /// More visual tokens are to be seen than a picture has.
    #[error("`visual_sample` is {found}, but a picture has {all} visual tokens")]
    VisualSample {
        /// How many are asked for.
        found: usize,
        /// How many there are.
        all: usize,
    },
    /// The loss is not a number.
    #[error("the loss of step {step} is {loss}; lower the learning rate or set `max_grad_norm`")]
    Diverged {
        /// The step.
        step: usize,
        /// Its loss.
        loss: f64,
    },
    /// The output directory holds another run.
    #[error(
        "{}: holds the checkpoint of a run; go on from it with `resume`, or name another `output`",
        path.display()
    )]
    OutputInUse {
        /// The directory.
        path: PathBuf,
    },
    /// A token id is beyond the rows of the embedding.
    #[error(
        "{}, record {id}: the tokenizer gives the id {token}, but the model embeds only {rows} tokens; \
         the tokenizer belongs to another model", path.display()
    )]
    TokenBeyondVocabulary {
        /// The file of records.
        path: PathBuf,
        /// The record.
        id: String,
        /// The token.
        token: u32,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A checkpoint belongs to another run.
    #[error(
        "{}: this checkpoint was written under another recipe (`{field}` differs); \
         start without `resume`, or put the setting back", path.display()
    )]
    OtherRun {
        /// The checkpoint's directory.
        path: PathBuf,
        /// The first setting that differs.
        field: String,
    },
    /// A file cannot be read or written.
    #[error("{}: cannot {action}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of the run is not valid JSON.
    #[error("{}: not the JSON it should be: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Parameters or optimiser state could not be stored.
    #[error("{}: the training state cannot be stored or read", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What burn said.
        #[source]
        source: burn::record::RecorderError,
    },
    /// The loss curve cannot be drawn.
    #[error("{}: the loss curve cannot be drawn", path.display())]
    Curve {
        /// The file.
        path: PathBuf,
    },
    /// Pixels, text or records.
    #[error(transparent)]
    Data(#[from] victor_data::DataError),
    /// A batch cannot be laid out.
    #[error(transparent)]
    Layout(#[from] victor_model::LayoutError),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] victor_backend::DeviceError),
    /// Weights cannot be read or written.
    #[error(transparent)]
    Weights(#[from] victor_weights::WeightsError),
    /// The thread that prepares batches ended early.
    #[error("the thread that prepares batches ended early")]
    LoaderGone,
}

/// Names the file in an I/O error.
pub(crate) fn file_error(
    path: &std::path::Path,
    action: &'static str,
) -> impl FnOnce(io::Error) -> TrainError {
    let path = path.to_owned();
    move |source| TrainError::File {
        path,
        action,
        source,
    }
}
