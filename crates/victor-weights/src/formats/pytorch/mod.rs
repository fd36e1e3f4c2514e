//! PyTorch's `.bin` and `.pt` files: where each tensor lies in them.
//!
//! A pickle is a program for a small stack machine. Here it is data: `pickle.rs` builds values from
//! it, calls nothing, and knows only the few functions a state dict names. Source: `torch/serialization.py`
//! and Python's `pickletools.py`.
//!
//! burn-store's reader is not used: it gives zeros for data that is not there, ignores strides, and
//! copies a value whenever a pickle refers to it again, so that a small file can ask for any amount of
//! memory.

mod archive;
mod error;
mod pickle;
mod state;

pub use error::PytorchError;

use super::Span;
use std::collections::BTreeMap;

/// Where the tensors of a PyTorch file lie, by the names of its state dict.
///
/// # Errors
/// If the bytes are not such a file, or a tensor does not lie in them.
pub fn spans(bytes: &[u8]) -> Result<BTreeMap<String, Span>, PytorchError> {
    let archive = archive::read(bytes)?;
    state::tensors(&archive)
}

#[cfg(test)]
mod tests;
