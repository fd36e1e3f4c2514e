//! What can be wrong inside a GGUF file.

use super::TensorKind;

/// Why a GGUF file cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it does not begin with `GGUF`")]
    Magic,
    /// The file was written for a big-endian machine.
    #[error(
        "a big-endian GGUF file, which is not read: convert it with gguf's `gguf_convert_endian.py FILE little`"
    )]
    BigEndian,
    /// The format has a version that is not read.
    #[error(
        "GGUF version {found}; 2 and 3 are read: convert the model again with a current llama.cpp"
    )]
    Version {
        /// The version.
        found: u32,
    },
    /// A part goes past the end of the file.
    #[error(
        "cut off or damaged: {what} at byte {offset} goes past the end of the file: fetch it again"
    )]
    Truncated {
        /// Which part.
        what: &'static str,
        /// Where it begins.
        offset: usize,
    },
    /// A count is larger than the file or any model calls for.
    #[error(
        "damaged: it announces {count} {what}, of which at most {most} are read: fetch it again"
    )]
    Count {
        /// What is counted.
        what: &'static str,
        /// How many are announced.
        count: u64,
        /// How many could be.
        most: u64,
    },
    /// Arrays of arrays of arrays … go deeper than is read.
    #[error("`{key}` nests arrays more than {most} deep")]
    Nesting {
        /// The metadata key.
        key: String,
        /// The limit.
        most: usize,
    },
    /// A value has a type the format does not define.
    #[error(
        "damaged: the value of `{key}` has type {found}, which GGUF does not define: fetch it again"
    )]
    ValueType {
        /// The metadata key.
        key: String,
        /// The number of the type.
        found: u32,
    },
    /// A name is not UTF-8.
    #[error("damaged: {what} at byte {offset} is not UTF-8: fetch it again")]
    Utf8 {
        /// What it names.
        what: &'static str,
        /// Where it begins.
        offset: usize,
    },
    /// Two metadata entries or two tensors have one name.
    #[error("damaged: `{name}` occurs twice: fetch it again")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// `general.alignment` is no alignment.
    #[error("`general.alignment` is {found}; expected a power of two")]
    Alignment {
        /// The value.
        found: u32,
    },
    /// A tensor's shape has too many axes, an empty one, or more elements than can be counted.
    #[error("damaged: `{name}` has shape {shape:?} (innermost first): fetch it again")]
    Shape {
        /// The tensor.
        name: String,
        /// Its axes as the file has them, innermost first.
        shape: Vec<u64>,
    },
    /// The rows of a tensor do not divide into the blocks of its type.
    #[error(
        "damaged: `{name}` is {kind} in blocks of {block} with rows of {width}: fetch it again"
    )]
    Blocks {
        /// The tensor.
        name: String,
        /// Its type.
        kind: TensorKind,
        /// Elements of a block.
        block: usize,
        /// Elements of a row.
        width: usize,
    },
    /// A tensor's bytes lie outside the file or are not aligned.
    #[error(
        "cut off or damaged: `{name}` takes {bytes} bytes at {offset} of {available} bytes of tensors: fetch it again"
    )]
    Range {
        /// The tensor.
        name: String,
        /// Where it begins, counted from the first tensor byte.
        offset: u64,
        /// Its size.
        bytes: u64,
        /// The bytes there are.
        available: u64,
    },
    /// Two tensors share bytes.
    #[error("damaged: `{first}` and `{second}` share bytes: fetch it again")]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The other.
        second: String,
    },
    /// A tensor has a type of no known name.
    #[error(
        "`{name}` has tensor type {id}, which is not known; {read} are read: requantise with `llama-quantize --allow-requantize IN OUT Q8_0`",
        read = super::READ_KINDS
    )]
    UnknownKind {
        /// The tensor.
        name: String,
        /// The number of the type.
        id: u32,
    },
    /// A tensor has a type that is not dequantised.
    #[error(
        "`{name}` is stored as {kind}; {read} are read: requantise with `llama-quantize --allow-requantize IN OUT Q8_0`",
        read = super::READ_KINDS
    )]
    UnreadKind {
        /// The tensor.
        name: String,
        /// Its type.
        kind: TensorKind,
    },
    /// The model is none this engine builds.
    #[error("a GGUF file of architecture `{found}`; {expected}")]
    Architecture {
        /// What the file says.
        found: String,
        /// What is read here.
        expected: &'static str,
    },
    /// A metadata entry is missing or has a value that is not understood.
    #[error("metadata `{key}` is {found}; expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// What stands there.
        found: String,
        /// What would be understood.
        expected: &'static str,
    },
    /// A tensor the configuration is read from is not there.
    #[error("there is no tensor `{name}`: the file is cut off or of another model")]
    NoTensor {
        /// Its name.
        name: String,
    },
    /// A tensor holds something this engine does not compute.
    #[error("`{name}`: {what}, which is not built")]
    Unbuilt {
        /// The tensor.
        name: String,
        /// What it is.
        what: &'static str,
    },
}
