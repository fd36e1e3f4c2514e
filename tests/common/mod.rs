//! What the integration tests share.

use std::path::{Path, PathBuf};
use victor::Device;

/// The devices these tests run on: all that are compiled in, or those of `VICTOR_TEST_DEVICES`
/// (comma-separated).
pub(crate) fn devices() -> Vec<Device> {
    match std::env::var("VICTOR_TEST_DEVICES") {
        Ok(names) => names
            .split(',')
            .map(|name| {
                name.parse()
                    .unwrap_or_else(|error| panic!("VICTOR_TEST_DEVICES: {error}"))
            })
            .collect(),
        Err(_) => Device::compiled(),
    }
}

/// The folder of the reference cases: `VICTOR_GOLDEN`, or that of this checkout.
#[allow(dead_code, reason = "not every test reads the cases")]
pub(crate) fn golden() -> PathBuf {
    let packed = std::env::var_os("VICTOR_GOLDEN").map(PathBuf::from);
    packed.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"))
}

/// The root of this checkout.
#[allow(dead_code, reason = "not every test reads from it")]
pub(crate) fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}
