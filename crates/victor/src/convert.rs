//! Writes a model of any layout in ours.

use crate::{AddRegisters, ModelFiles, VictorError};
use std::path::Path;
use victor_backend::{Device, DeviceTask, VictorBackend};
use victor_weights::SaveOptions;

/// Writes a model of any layout to `out` in ours, as `options` say, with the tower cut to
/// the layers that are used, and with new registers if they are asked for. `progress` is told of bytes
/// written and bytes in all.
///
/// # Errors
/// If the model is not usable or `out` cannot be written; then `out` is as it was.
pub fn convert(
    files: ModelFiles,
    out: &Path,
    options: &SaveOptions,
    registers: Option<&AddRegisters>,
    progress: &dyn Fn(u64, u64),
) -> Result<(), VictorError> {
    Device::best()?.run(Convert {
        files,
        out,
        options,
        registers,
        progress,
    })?
}

struct Convert<'a> {
    files: ModelFiles,
    out: &'a Path,
    options: &'a SaveOptions,
    registers: Option<&'a AddRegisters>,
    progress: &'a dyn Fn(u64, u64),
}

impl DeviceTask for Convert<'_> {
    type Output = Result<(), VictorError>;

    fn run<B: VictorBackend>(self, device: B::Device) -> Self::Output {
        let files = &self.files;
        let (config, registers) = match self.registers {
            None => (files.config().clone(), None),
            Some(registers) => (
                registers.config(files)?,
                Some(registers.values::<B>(files, &device)?),
            ),
        };
        victor_weights::convert::<B, VictorError>(
            &files.source,
            &config,
            registers.as_ref(),
            self.out,
            self.options,
            |folder| files.save_companions(folder),
            self.progress,
        )
    }
}
