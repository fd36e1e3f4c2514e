//! Which model: a folder, a file or an id, and what goes with it.

use std::path::{Path, PathBuf};

/// Names a model and how it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelRef {
    /// A folder of any layout that is read, a GGUF file, or a Hub id: `owner/name`, with `@revision`
    /// for another than main and `:FILE` for a GGUF file of it.
    pub model: String,
    /// The GGUF file of tower and projector beside a decoder's.
    pub mmproj: Option<String>,
    /// What an adapter or a projector of the model stands on, in place of what it names itself.
    pub base: Option<String>,
    /// A built-in chat template, or a file of Jinja, in place of the model's own.
    pub chat_template: Option<String>,
    /// Whether the Hub is left alone: what is not in its cache is an error.
    pub offline: bool,
}

impl ModelRef {
    /// A model by its folder or id alone.
    pub fn new(model: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            ..Self::default()
        }
    }
}

impl From<&Path> for ModelRef {
    fn from(path: &Path) -> Self {
        Self::new(path.to_string_lossy())
    }
}

impl From<PathBuf> for ModelRef {
    fn from(path: PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

impl From<&PathBuf> for ModelRef {
    fn from(path: &PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

impl From<&str> for ModelRef {
    fn from(model: &str) -> Self {
        Self::new(model)
    }
}

impl From<String> for ModelRef {
    fn from(model: String) -> Self {
        Self::new(model)
    }
}
