//! Writes a model of any layout in ours.

use crate::{ModelFiles, ModelRef, VictorError};
use std::path::Path;
use victor_backend::{Device, DeviceTask, VictorBackend};
use victor_weights::SaveOptions;

/// Reads a model of any layout and writes it to `out` in ours, as `options` say, with the tower cut to
/// the layers that are used. `progress` is told of bytes written and bytes in all.
///
/// # Errors
/// If the model is not usable or `out` cannot be written; then `out` is as it was.
pub fn convert(
    model: &ModelRef,
    out: &Path,
    options: &SaveOptions,
    progress: &dyn Fn(u64, u64),
) -> Result<(), VictorError> {
    let files = ModelFiles::open(model)?;
    Device::best()?.run(Convert {
        files,
        out,
        options,
        progress,
    })?
}

struct Convert<'a> {
    files: ModelFiles,
    out: &'a Path,
    options: &'a SaveOptions,
    progress: &'a dyn Fn(u64, u64),
}

impl DeviceTask for Convert<'_> {
    type Output = Result<(), VictorError>;

    fn run<B: VictorBackend>(self, _device: B::Device) -> Self::Output {
        let files = &self.files;
        victor_weights::convert::<B, VictorError>(
            &files.source,
            files.config(),
            None,
            self.out,
            self.options,
            |_| Ok(()),
            self.progress,
        )
    }
}
