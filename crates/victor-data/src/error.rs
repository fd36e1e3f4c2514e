//! Everything that can be wrong with a picture, a tokenizer, a template or a record.
//!
//! Each message names the thing at fault, what was expected, what was found and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::{RecordProblem, VocabularyProblem};

/// Why pixels, text or records could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file that should be there is not.
    #[error("{}: no such file; expected {expected}", path.display())]
    NoSuchFile {
        /// Where it was looked for.
        path: PathBuf,
        /// What the file would have been, and how to come by it.
        expected: &'static str,
    },
    /// A file is there and could not be read.
    #[error("{}: cannot be read; check its permissions and that it is a file", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written", path.display())]
    WriteFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A tokenizer cannot be written.
    #[error("{}: the tokenizer cannot be written", path.display())]
    SaveTokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizers crate said.
        #[source]
        source: tokenizers::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{}: not valid JSON; expected {expected}", path.display())]
    ParseJson {
        /// The file.
        path: PathBuf,
        /// What the file should have described.
        expected: &'static str,
        /// Where and why parsing stopped.
        #[source]
        source: serde_json::Error,
    },

    /// The bytes begin like no picture format this engine reads.
    #[error(
        "{name}: not a picture; expected PNG, JPEG, WebP, GIF, BMP or TIFF bytes, found {length} bytes that begin {head:02x?}"
    )]
    NotAnImage {
        /// The picture's file or given name.
        name: String,
        /// How many bytes there are.
        length: usize,
        /// The first bytes.
        head: Vec<u8>,
    },
    /// The picture ends before its pixels do.
    #[error(
        "{name}: the picture is cut short ({length} bytes, and its data goes on); fetch the whole file again"
    )]
    TruncatedImage {
        /// The picture's file or given name.
        name: String,
        /// How many bytes there are.
        length: usize,
        /// What the decoder said, where it noticed.
        #[source]
        source: Option<image::ImageError>,
    },
    /// The picture's format is known and its content is not valid.
    #[error(
        "{name}: the picture is damaged or of an unsupported kind; save it as an ordinary PNG or JPEG"
    )]
    CorruptImage {
        /// The picture's file or given name.
        name: String,
        /// What the decoder said.
        #[source]
        source: image::ImageError,
    },
    /// The picture's header announces more pixels than are decoded.
    #[error(
        "{name}: the picture is {width} × {height} = {} megapixels, the limit is {limit_megapixels}; shrink it first",
        (u64::from(*width) * u64::from(*height)).div_ceil(1_000_000)
    )]
    ImageTooLarge {
        /// The picture's file or given name.
        name: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The most megapixels that are decoded.
        limit_megapixels: u64,
    },
    /// The picture holds no pixel.
    #[error("the picture is {width} × {height}; it needs at least one pixel each way")]
    EmptyImage {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },

    /// An image processor setting this engine does not compute.
    #[error("{}: `{field}` is {found}; expected {expected}", path.display())]
    ProcessorField {
        /// The processor's file.
        path: PathBuf,
        /// The setting.
        field: &'static str,
        /// Its value in the file.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A processor that cuts pictures into tiles was asked for a single view.
    #[error(
        "this checkpoint's image processor cuts pictures into tiles ({pinpoints} grid resolutions); use `preprocess_tiles` instead of `preprocess`"
    )]
    TilesExpected {
        /// How many resolutions it chooses from.
        pinpoints: usize,
    },
    /// A single-view processor was asked for tiles.
    #[error(
        "this checkpoint's image processor has no `image_grid_pinpoints`; use `preprocess` instead of `preprocess_tiles`"
    )]
    NoPinpoints,

    /// `tokenizer.json` could not be turned into a tokenizer.
    #[error("{}: not a tokenizer this engine reads (expected the `tokenizer.json` of the `tokenizers` library)", path.display())]
    LoadTokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizers library said.
        #[source]
        source: tokenizers::Error,
    },
    /// `tokenizer.json` has a part that no model of the LLaVA family has.
    #[error("{}: `{part}` is {found}, this engine computes {expected}", path.display())]
    TokenizerPart {
        /// The file.
        path: PathBuf,
        /// The part's field.
        part: &'static str,
        /// What stands there, its beginning.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// A `tokenizer.model`, or the vocabulary of a GGUF file, gives no tokenizer.
    #[error("{origin}: {reason}")]
    BadVocabulary {
        /// The file.
        origin: String,
        /// What is wrong.
        reason: VocabularyProblem,
    },
    /// The tokenizer and the model mean different tokens by a picture.
    #[error(
        "the tokenizer's `<image>` has the id {found}, the model's config says {expected}; the tokenizer belongs to another model"
    )]
    ImageTokenId {
        /// The id in the model's config.
        expected: u32,
        /// The tokenizer's.
        found: u32,
    },
    /// The id that should mark pictures is a word's.
    #[error(
        "the model's config marks pictures by the id {id}, which the tokenizer gives to the text {token:?}; the tokenizer belongs to another model"
    )]
    ImageTokenIsText {
        /// The id in the model's config.
        id: u32,
        /// The tokenizer's token of that id.
        token: String,
    },
    /// An added token cannot have the id its file gives it.
    #[error("{}: added token {token:?} should have id {expected}, the tokenizer gives it {found}; tokenizer.json and its companion files do not belong together", path.display())]
    AddedTokenId {
        /// The file that lists the token.
        path: PathBuf,
        /// The token.
        token: String,
        /// The id in the file.
        expected: u32,
        /// The id it came to have.
        found: u32,
    },
    /// Text could not be encoded.
    #[error("the text of {length} bytes could not be encoded")]
    Encode {
        /// The text's length in bytes.
        length: usize,
        /// What the tokenizers library said.
        #[source]
        source: tokenizers::Error,
    },
    /// Ids could not be decoded.
    #[error("the {count} token ids could not be decoded")]
    Decode {
        /// How many ids there were.
        count: usize,
        /// What the tokenizers library said.
        #[source]
        source: tokenizers::Error,
    },
    /// A byte range lies outside the text or splits a character.
    #[error("the byte range {start}..{end} does not lie on characters of a text of {length} bytes")]
    SpanOutsideText {
        /// Where the range begins.
        start: usize,
        /// Where it ends.
        end: usize,
        /// The text's length in bytes.
        length: usize,
    },
    /// The prompt's markers and the pictures do not pair up.
    #[error(
        "the prompt has {markers} `<image>` markers and there are {pictures} pictures; write one marker for each picture"
    )]
    ImageCount {
        /// Markers in the prompt.
        markers: usize,
        /// Pictures given.
        pictures: usize,
    },

    /// No chat template of that name is built in.
    #[error("no built-in chat template is called {name:?}; there are {}", available.join(", "))]
    UnknownTemplate {
        /// The name asked for.
        name: String,
        /// The names that exist.
        available: &'static [&'static str],
    },
    /// A directory holds no chat template.
    #[error(
        "{}: no chat template in chat_template.jinja, chat_template.json or tokenizer_config.json; choose a built-in one ({})",
        dir.display(),
        available.join(", ")
    )]
    NoChatTemplate {
        /// The directory.
        dir: PathBuf,
        /// The names that exist.
        available: &'static [&'static str],
    },
    /// The template is not valid Jinja.
    #[error("{origin}: the chat template does not compile")]
    CompileTemplate {
        /// The file or built-in name.
        origin: String,
        /// Where and why.
        #[source]
        source: minijinja::Error,
    },
    /// The template failed on these messages.
    #[error("{origin}: the chat template failed on {messages} messages")]
    RenderTemplate {
        /// The file or built-in name.
        origin: String,
        /// How many messages were rendered.
        messages: usize,
        /// Where and why; what `raise_exception` said is in here.
        #[source]
        source: minijinja::Error,
    },
    /// The template ran on and on.
    #[error(
        "{origin}: the chat template was stopped after {limit} instructions; it loops without end, so mend it or choose a built-in one"
    )]
    RunawayTemplate {
        /// The file or built-in name.
        origin: String,
        /// How many instructions it may take.
        limit: u64,
        /// What the template engine said.
        #[source]
        source: minijinja::Error,
    },
    /// Rendering one message more changes what was rendered before.
    #[error(
        "{origin}: the text up to message {message} is not a prefix of the whole conversation's, so the answer's place cannot be told; train with a built-in template instead"
    )]
    NotPrefixStable {
        /// The file or built-in name.
        origin: String,
        /// The index of the first message whose rendering differs, from 0.
        message: usize,
    },

    /// A record of a data set is not usable.
    #[error("{}: record {record} (line {line}, id {id}): {reason}", path.display())]
    BadRecord {
        /// The data set's file.
        path: PathBuf,
        /// The record's number, from 1.
        record: usize,
        /// The line it begins on, from 1.
        line: usize,
        /// Its id, or `?` where it has none.
        id: String,
        /// What is wrong.
        reason: RecordProblem,
    },
}
