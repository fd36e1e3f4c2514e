//! The Victor vision-language model: tensors only.
//!
//! Image → [`PictureEncoder`] ([`VisionTower`] → [`Projector`]) → spliced into the text embeddings with the visual
//! registers after each image → [`Decoder`], which loses all visual rows before `drop_layer`.
//! Method: arXiv 2410.14072. Names of modules and configuration fields are Hugging Face's.
//! This crate knows no files, strings or tokenizers.

mod cache;
mod config;
pub mod cost;
mod decoder;
mod interpolate;
mod layers;
mod layout;
pub mod parameters;
mod picture;
mod projector;
mod rope;
mod tiles;
mod vision;
mod vlm;

pub use cache::KvCache;
pub use config::{
    Activation, PictureConfig, PositionMode, ProjectorConfig, ReductionConfig, RopeConfig,
    RopeScaling, TextConfig, VisionConfig, VisionFamily, VisionSelect, VlmConfig,
};
pub use decoder::{Decoder, DecoderLayer, SelfAttention, SwiGluMlp};
pub use layers::{Embedding, LayerNorm, Linear, RmsNorm};
pub use layout::{BatchLayout, LayoutError, Row, Sequence};
pub use picture::PictureEncoder;
pub use projector::Projector;
pub use rope::{Rotary, RotaryTable};
pub use tiles::TileGrid;
pub use victor_backend::VictorBackend;
pub use vision::VisionTower;
pub use vlm::Vlm;
