//! Writes a checkpoint in another storage.

use crate::VictorError;
use crate::engine::read_config;
use std::path::Path;
use victor_backend::{Device, DeviceTask, VictorBackend};
use victor_weights::{LoadOptions, SaveOptions};

/// Reads the checkpoint in `source` and writes it to `out` as `options` say, with the tower cut to the
/// layers that are used.
///
/// # Errors
/// If the checkpoint is not usable or `out` cannot be written; then `out` is as it was.
pub fn convert(
    source: &Path,
    out: &Path,
    options: &SaveOptions,
    device: Device,
) -> Result<(), VictorError> {
    device.run(Convert {
        source,
        out,
        options,
    })?
}

struct Convert<'a> {
    source: &'a Path,
    out: &'a Path,
    options: &'a SaveOptions,
}

impl DeviceTask for Convert<'_> {
    type Output = Result<(), VictorError>;

    fn run<B: VictorBackend>(self, device: B::Device) -> Self::Output {
        let config = read_config(self.source)?;
        let load = LoadOptions::default();
        let (model, _) = victor_weights::load::<B>(self.source, &config, &device, &load)?;
        Ok(victor_weights::save(
            &model,
            self.source,
            self.out,
            self.options,
        )?)
    }
}
