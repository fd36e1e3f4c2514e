//! File formats and foreign key names: the only place that knows them.
//!
//! [`read_config`] turns a `config.json` with whatever it omits into a [`VlmConfig`]; [`load`] fills a
//! [`Vlm`](victor_model::Vlm) from the safetensors beside it; [`save`] writes both back.

mod checkpoint;
mod config;
mod dtype;
mod error;
mod hf_defaults;
mod load;
mod names;
mod save;

pub use checkpoint::{Checkpoint, TensorView};
pub use config::{parse_config, read_config};
pub use dtype::WeightDtype;
pub use error::WeightsError;
pub use load::{LoadOptions, LoadReport, load};
pub use save::{SaveOptions, Storage, save};
pub use victor_model::VlmConfig;
