//! GGUF files: llama.cpp's decoders and its `mmproj` files with a vision tower and a projector.
//!
//! [`GgufFile`] maps a file and checks its head; [`text_config`] and [`vision`] say which model it is,
//! [`tensors`] gives its tensors by our names, and [`Vocabulary`] the tokenizer's tables.
//! Versions 2 and 3, little-endian, in one part.

mod blocks;
mod cursor;
mod decoder;
mod error;
mod file;
mod header;
mod k_blocks;
mod kind;
mod metadata;
mod mmproj;
mod names;
mod tensor;
#[cfg(test)]
mod testing;
mod value;
mod vocabulary;

pub use decoder::text_config;
pub use error::GgufError;
pub use file::GgufFile;
pub(crate) use kind::READ_KINDS;
pub use kind::TensorKind;
pub use metadata::Metadata;
pub use mmproj::{Vision, vision};
pub use names::{canonical, tensors};
pub use tensor::{GgufTensor, RowOrder};
pub use value::{Array, Value};
pub use vocabulary::Vocabulary;
