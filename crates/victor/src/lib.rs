//! The Victor engine: open a checkpoint, ask it about pictures.
//!
//! ```no_run
//! use victor::{Device, GenerateOptions, Request, Victor};
//!
//! # fn main() -> Result<(), victor::VictorError> {
//! let model = Victor::from_pretrained(victor::default_weights()?, Device::best()?)?;
//! let picture = victor::decode_image("photo.jpg".as_ref())?;
//! for token in model.generate(&Request::caption(picture), &GenerateOptions::default())? {
//!     eprint!("{}", token?.text);
//! }
//! # Ok(())
//! # }
//! ```

mod answer;
mod chat;
mod completion;
mod convert;
mod defaults;
mod engine;
mod error;
mod generate;
mod gguf_files;
mod info;
mod model_files;
mod model_ref;
mod pictures;
mod registers;
mod request;
mod runner;
mod sampling;
pub mod score;
mod stop;
mod trace;

pub use chat::{Chat, ChatOptions, ChatUsage, Turn};
pub use completion::{Completion, FinishReason, Timings, Token};
pub use convert::convert;
pub use defaults::{DEFAULT_MODEL, default_weights};
pub use engine::{Engine, OpenOptions};
pub use error::VictorError;
pub use generate::GenerateOptions;
pub use info::{Cost, Info, PartSize};
pub use model_files::{ModelFiles, read_config};
pub use model_ref::ModelRef;
pub use registers::{AddRegisters, RegisterInit};
pub use request::{CAPTION_PROMPT, Prompt, Request};
pub use runner::{Generation, Victor};
pub use sampling::{Sampler, SamplingOptions};
pub use trace::{Trace, TraceTensor, TraceValues};

pub use victor_backend::{Device, DeviceError, DeviceTask};
pub use victor_data::{
    ChatTemplate, Content, DataError, ImageProcessor, Message, RgbImage, Role, Tokenizer,
    decode_image,
};
pub use victor_hub::{Event as FetchEvent, HubError, Progress as FetchProgress, Silent};
pub use victor_model::VlmConfig;
pub use victor_weights::{LoadReport, SaveOptions, Storage, WeightDtype, WeightsError};

/// The crates below, for those who build on parts of the engine.
pub mod parts {
    pub use victor_backend as backend;
    pub use victor_data as data;
    pub use victor_model as model;
    pub use victor_weights as weights;
}
