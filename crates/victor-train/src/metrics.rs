//! What happened in every step, one JSON object a line.

use crate::TrainError;
use crate::error::file_error;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The optimiser step, from 1.
    pub step: usize,
    /// Mean cross-entropy of the step's loss tokens, nats.
    pub loss: f64,
    /// The default learning rate in this step.
    pub lr: f64,
    /// Samples a second in this step.
    pub samples_per_s: f64,
    /// Rows of the decoder a second, visual tokens and registers included and padding not.
    pub tokens_per_s: f64,
    /// The norm of all gradients before clipping.
    pub grad_norm: f64,
    /// Mean cross-entropy on the validation samples after this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
}

/// The file they are written to.
pub(crate) struct MetricsLog {
    path: PathBuf,
    file: File,
    /// All steps so far, those before a resumption too.
    pub(crate) entries: Vec<Metrics>,
}

impl MetricsLog {
    /// Opens the log of a run whose first `steps` steps count; what it holds beyond them is dropped.
    pub(crate) fn open(path: &Path, steps: usize) -> Result<Self, TrainError> {
        let entries = if steps > 0 { read(path)? } else { Vec::new() };
        let entries: Vec<Metrics> = entries
            .into_iter()
            .filter(|entry| entry.step <= steps)
            .collect();
        let new = path.with_extension("jsonl.new");
        let file = File::create(&new).map_err(file_error(&new, "write metrics"))?;
        let mut log = Self {
            path: path.to_owned(),
            file,
            entries: Vec::new(),
        };
        for entry in entries {
            log.push(entry)?;
        }
        // Renamed while it is open: what a killed resumption leaves is the old log or the new one.
        fs::rename(&new, path).map_err(file_error(path, "write metrics"))?;
        Ok(log)
    }

    /// Appends a step.
    pub(crate) fn push(&mut self, entry: Metrics) -> Result<(), TrainError> {
        let json = |source| TrainError::Json {
            path: self.path.clone(),
            source,
        };
        let mut line = serde_json::to_string(&entry).map_err(json)?;
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .map_err(file_error(&self.path, "write metrics"))?;
        self.entries.push(entry);
        Ok(())
    }
}

/// The steps of a log; a last line that was cut short is left out.
fn read(path: &Path) -> Result<Vec<Metrics>, TrainError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.map_err(file_error(path, "read metrics"))?,
    };
    Ok(text
        .lines()
        .map_while(|line| serde_json::from_str(line).ok())
        .collect())
}
