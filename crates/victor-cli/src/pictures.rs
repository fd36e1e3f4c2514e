//! Picture files: all are looked at before the model is, none is held longer than its batch.

use rayon::prelude::*;
use std::path::{Path, PathBuf};
use victor::{DataError, RgbImage, decode_image};

/// Decodes pictures, in order; the error is that of the first bad one.
pub(crate) fn decode<P: AsRef<Path> + Sync>(paths: &[P]) -> Result<Vec<RgbImage>, DataError> {
    let pictures: Vec<_> = paths
        .par_iter()
        .map(|path| decode_image(path.as_ref()))
        .collect();
    pictures.into_iter().collect()
}

/// Decodes pictures only to see that they are whole: the header of a picture cut short looks fine.
pub(crate) fn check(paths: &[PathBuf]) -> Result<(), DataError> {
    let found: Vec<_> = paths
        .par_iter()
        .map(|path| decode_image(path).map(drop))
        .collect();
    found.into_iter().collect()
}
