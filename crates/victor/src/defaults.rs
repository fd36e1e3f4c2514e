//! Where the default weights are.

use crate::VictorError;
use std::path::PathBuf;

/// The folder of the default weights below `weights/`.
pub const DEFAULT_MODEL: &str = "victor-pictograms";

/// The folder of the default weights.
///
/// Looked for in `$VICTOR_WEIGHTS`, in `weights/` of the working directory and its parents, in
/// `share/victor/` beside the binary's folder, and in the checkout the binary was built from.
///
/// # Errors
/// If none of them is there.
pub fn default_weights() -> Result<PathBuf, VictorError> {
    let mut places = Vec::new();
    places.extend(std::env::var_os("VICTOR_WEIGHTS").map(PathBuf::from));
    if let Ok(here) = std::env::current_dir() {
        places.extend(
            here.ancestors()
                .map(|dir| dir.join("weights").join(DEFAULT_MODEL)),
        );
    }
    if let Some(prefix) = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.parent()?.to_path_buf()))
    {
        places.push(prefix.join("share/victor").join(DEFAULT_MODEL));
    }
    let checkout = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../weights");
    places.push(checkout.join(DEFAULT_MODEL));
    let found = places
        .iter()
        .find(|place| place.join("config.json").is_file());
    found.cloned().ok_or_else(|| VictorError::NoDefaultWeights {
        places: "$VICTOR_WEIGHTS, weights/, share/victor/".into(),
    })
}
