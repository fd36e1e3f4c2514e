//! What can go wrong when a device is named.

use crate::Device;

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The name is none of those known.
    #[error(
        "unknown device `{name}`: expected flex (or cpu), ndarray, wgpu, vulkan, metal, or cuda[:n]"
    )]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The index after the colon is not a number, or the device takes none.
    #[error("device `{name}`: only cuda takes an index, written as cuda:0, cuda:1, …")]
    Index {
        /// What was asked for.
        name: String,
    },
    /// The backend exists but this binary was built without it.
    #[error(
        "device `{device}` is not in this binary: build with `--features {feature}` (compiled in: {available})"
    )]
    NotCompiled {
        /// What was asked for.
        device: Device,
        /// The cargo feature that adds it.
        feature: &'static str,
        /// The devices that are there.
        available: String,
    },
    /// The backend is there, the hardware or its driver is not.
    #[error("device `{device}` does not start: {reason}; `--device cpu` needs no GPU")]
    Unavailable {
        /// What was asked for.
        device: Device,
        /// What the driver's side said.
        reason: String,
    },
    /// No backend at all was compiled in.
    #[error(
        "no backend is in this binary: build with `--features flex` (or cuda, wgpu, vulkan, metal, ndarray)"
    )]
    NoBackend,
}
