//! File formats and foreign key names: the only place that knows them.
//!
//! [`read_config`] turns a `config.json` with whatever it omits into a [`VlmConfig`]; [`load`] fills a
//! [`Vlm`](victor_model::Vlm) from the safetensors beside it; [`save`] writes both back.

mod checkpoint;
mod config;
mod config_json;
mod convert;
mod dtype;
mod error;
pub mod formats;
pub mod gguf;
mod hf_defaults;
mod load;
mod lora;
mod names;
mod open;
mod original;
mod replace;
mod save;
mod section;
mod write;

pub use checkpoint::{Checkpoint, TensorView};
pub use config::{parse_config, read_config};
pub use convert::{NewRegisters, convert};
pub use dtype::WeightDtype;
pub use error::WeightsError;
pub use load::{LoadOptions, LoadReport, load, load_from};
pub use open::{
    GgufParts, Layout, LocalOnly, Locate, Source, gguf_pair, needs_more_than_config, open,
    open_gguf,
};
pub use original::parse_original_config;
pub use save::{SaveOptions, save};
pub use victor_model::VlmConfig;
pub use write::Storage;
