//! Pixels, text and records: preprocessing, tokenizer, prompt templates, data sets.
//!
//! Nothing here knows tensors; what leaves this crate is bytes, numbers in rows, and ids.

mod dataset;
mod decode;
mod decode_stream;
mod error;
mod processor;
mod processor_config;
mod prompt;
mod resize;
mod tokenizer;

pub use dataset::RecordProblem;
pub use decode::{MAX_MEGAPIXELS, decode_image, decode_image_bytes};
pub use decode_stream::DecodeStream;
pub use error::DataError;
pub use image::RgbImage;
pub use processor::{ImageProcessor, PixelValues, ResizeTo, Size};
pub use prompt::{ExpandedPrompt, expand_image_tokens};
pub use resize::{Filter, resize};
pub use tokenizer::Tokenizer;
