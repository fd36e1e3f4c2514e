//! Training recipes, batches, loss and checkpoints.
//!
//! [`train`] runs one stage as a [`TrainConfig`] describes it: records become samples, a frozen
//! tower's features come from a cache, the loss is taken on the assistant's words alone, and a run
//! that was killed goes on where its last checkpoint stands, bit for bit.
//! Autodiff lives here and nowhere in inference.

mod batch;
mod checkpoint;
mod config;
mod corpus;
mod curve;
mod discriminant;
mod eigen;
mod encode;
mod error;
mod features;
mod loss;
mod metrics;
mod optimizer;
mod order;
mod parts;
mod probe;
mod progress;
mod run;
mod sample;
mod schedule;
mod shifts;
mod stage;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trainer;

pub use config::{DataSource, TrainConfig};
pub use error::TrainError;
pub use features::FeatureCache;
pub use loss::cross_entropy;
pub use metrics::Metrics;
pub use order::{BatchOrder, Shape};
pub use parts::Part;
pub use probe::{ProbeConfig, ProbeReport, probe};
pub use progress::Progress;
pub use sample::{LossRows, Sample};
pub use schedule::Schedule;
pub use stage::{TrainReport, train};
