//! What can go wrong between files and tensors.

use crate::WeightDtype;
use crate::formats::pytorch::PytorchError;
use crate::gguf::GgufError;
use std::path::PathBuf;

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// A file or folder cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A weight file cannot be written whole.
    #[error("{path}: {source}: {bytes} bytes are to be written in all; nothing was replaced", path = path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Bytes of all weight files.
        bytes: u64,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folder holds no checkpoint.
    #[error(
        "{path} holds no checkpoint: expected config.json with model.safetensors or pytorch_model.bin, or an index of shards",
        path = path.display()
    )]
    NoCheckpoint {
        /// The folder.
        path: PathBuf,
    },
    /// A JSON file does not parse.
    #[error("{path}: not valid JSON: {source}", path = path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// Where it breaks.
        #[source]
        source: serde_json::Error,
    },
    /// A field of the config is missing or has a value that is not understood.
    #[error("{path}: `{field}` is {found}; expected {expected}", path = path.display())]
    Config {
        /// Which file.
        path: PathBuf,
        /// The field, with its parents.
        field: String,
        /// What stands there.
        found: String,
        /// What would be understood.
        expected: String,
    },
    /// The header of a safetensors file is cut off or lies about its content.
    #[error("{path}: damaged safetensors file ({source}): fetch it again", path = path.display())]
    Header {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A PyTorch file is damaged, or not a plain state dict.
    #[error("{path}: {source}", path = path.display())]
    Pytorch {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: PytorchError,
    },
    /// An adapter's config without its weights.
    #[error("{path} has adapter_config.json but neither adapter_model.safetensors nor adapter_model.bin: fetch it", path = path.display())]
    NoAdapter {
        /// The folder.
        path: PathBuf,
    },
    /// An adapter or a projector that does not say what it stands on.
    #[error("{path} holds only changes to a base model and does not name it: give it with --base", path = path.display())]
    NoBase {
        /// The folder.
        path: PathBuf,
    },
    /// A base for a model that holds all its weights.
    #[error("{path} holds all its weights and stands on no base: leave out --base {base}", path = path.display())]
    NeedlessBase {
        /// The folder.
        path: PathBuf,
        /// The base that was given.
        base: String,
    },
    /// A converted model would replace what it is made from.
    #[error("{path} holds the model that is converted: name another folder for the result", path = path.display())]
    OutIsSource {
        /// The folder.
        path: PathBuf,
    },
    /// An adapter changes parts in a way that is not computed.
    #[error("{path}: the adapter holds `{name}`, which is not computed: plain LoRA on linear layers is", path = path.display())]
    AdapterPart {
        /// The adapter's file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A number does not fit the type it is to be stored in.
    #[error("`{name}` holds numbers beyond those of {storage}: choose another --storage")]
    StorageOverflow {
        /// The tensor.
        name: String,
        /// What was asked for.
        storage: &'static str,
    },
    /// A model the checkpoint names is not to be found.
    #[error("{path} names its {what} {name}, which cannot be opened ({source}): put that folder beside the checkpoint under this name", path = path.display())]
    Elsewhere {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What the other model is for.
        what: &'static str,
        /// Its name.
        name: String,
        /// Why it cannot be opened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A GGUF file is damaged, or holds a model this engine does not build.
    #[error("{path}: {source}", path = path.display())]
    Gguf {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: GgufError,
    },
    /// A folder with more GGUF files than make one model.
    #[error("{path} holds several models ({names}): name one of the files, and its mmproj file with --mmproj", path = path.display(), names = file_names(files))]
    SeveralGguf {
        /// The folder.
        path: PathBuf,
        /// The files.
        files: Vec<PathBuf>,
    },
    /// A shard named by the index is not there.
    #[error("{index} names the shard {shard}, which is not in the folder: fetch it", index = index.display())]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The shard.
        shard: String,
    },
    /// Tensors the config calls for are not in the files.
    #[error("{path}: {count} tensors are missing: {names}", path = path.display(), count = names.len(), names = few(names))]
    Missing {
        /// The folder.
        path: PathBuf,
        /// Their names, as this engine spells them.
        names: Vec<String>,
    },
    /// A tensor has another shape than the config calls for.
    #[error("{path}: `{name}` has shape {found:?}; the config calls for {expected:?}", path = path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file spells it.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// What it should be.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a number format that is not read.
    #[error("{path}: `{name}` is stored as {found}; F32, F16, BF16 and I8 with a `{name}_scale` are read", path = path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its format.
        found: String,
    },
    /// The device does not take weights of the type asked for.
    #[error("{device} does not keep weights as {dtype}: choose auto or f32 (--dtype)")]
    HalfWeights {
        /// The backend and its device.
        device: String,
        /// What was asked for.
        dtype: WeightDtype,
    },
    /// A tensor holds numbers beyond the type asked for.
    #[error("{path}: `{name}` holds numbers beyond those of {dtype}: choose bf16, f32 or auto (--dtype)", path = path.display())]
    Overflow {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file spells it.
        name: String,
        /// What was asked for.
        dtype: WeightDtype,
    },
    /// A folder that holds something else stands where a checkpoint would be written.
    #[error("{path} holds other things than a checkpoint of ours and would be replaced: name another folder, or empty it", path = path.display())]
    NotReplaceable {
        /// The folder.
        path: PathBuf,
    },
}

impl WeightsError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn gguf(path: impl Into<PathBuf>) -> impl FnOnce(GgufError) -> Self {
        let path = path.into();
        move |source| Self::Gguf { path, source }
    }
}

fn file_names(files: &[PathBuf]) -> String {
    let name = |file: &PathBuf| {
        file.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into()
    };
    few(&files.iter().map(name).collect::<Vec<String>>())
}

/// The first names of a list, and how many follow.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
