//! Pixels, text and records: preprocessing, tokenizer, prompt templates, data sets.
//!
//! Nothing here knows tensors; what leaves this crate is bytes, numbers in rows, and ids.

mod built_in;
mod dataset;
mod decode;
mod decode_stream;
mod error;
mod image_text;
mod message;
mod processor;
mod processor_config;
mod prompt;
mod resize;
mod save;
mod template;
mod template_functions;
mod tiles;
mod tokenizer;
mod tokenizer_config;
mod tokenizer_file;
mod vocabulary;

pub use built_in::BUILT_IN_TEMPLATES;
pub use dataset::{ConversationSet, Record, RecordProblem, Turn};
pub use decode::{MAX_MEGAPIXELS, decode_image, decode_image_bytes};
pub use decode_stream::DecodeStream;
pub use error::DataError;
pub use image::RgbImage;
pub use image_text::ImageMarking;
pub use message::{Content, IMAGE_MARKER, Message, Role, split_at_markers};
pub use processor::{ImageProcessor, PixelValues, ResizeTo, Size};
pub use prompt::{ExpandedPrompt, expand_image_tokens};
pub use resize::{Filter, resize};
pub use template::ChatTemplate;
pub use tiles::{TiledPixels, select_best_resolution};
pub use tokenizer::Tokenizer;
pub use vocabulary::{
    PRE_TOKENIZERS, SpacePrefix, TokenType, Vocabulary, VocabularyKind, VocabularyProblem,
};
