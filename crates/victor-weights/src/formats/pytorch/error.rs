//! What can be wrong with a PyTorch file.

/// Why a PyTorch file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PytorchError {
    /// Neither a zip archive nor the stream of pickles PyTorch wrote before 1.6.
    #[error("not a PyTorch file")]
    NotPytorch,
    /// The archive is damaged.
    #[error("damaged archive ({0}): fetch it again")]
    Archive(#[source] zip::result::ZipError),
    /// An entry of the archive is compressed, so nothing in it can be used in place.
    #[error("`{entry}` is compressed: save the file again with torch.save")]
    Compressed {
        /// The entry.
        entry: String,
    },
    /// The archive has no pickle.
    #[error("the archive holds no data.pkl: not written by torch.save")]
    NoPickle,
    /// Written on a big-endian machine.
    #[error("numbers are big-endian: save the file again on a little-endian machine")]
    BigEndian,
    /// The pickle ends in the middle.
    #[error("the pickle is cut off at byte {at}: fetch the file again")]
    CutOff {
        /// Where, from the start of the pickle.
        at: usize,
    },
    /// An instruction that no state dict needs.
    #[error(
        "instruction {code:#04x} at byte {at} of the pickle is not read: save a plain state dict"
    )]
    Instruction {
        /// The instruction.
        code: u8,
        /// Where, from the start of the pickle.
        at: usize,
    },
    /// The pickle asks for a function that is not one of those that make a tensor.
    #[error("the pickle calls `{function}`, which is not run: save a plain state dict")]
    Function {
        /// Its name.
        function: String,
    },
    /// Values are combined in a way no state dict needs.
    #[error("the pickle is not a state dict: at byte {at}, {expected} was expected")]
    Value {
        /// Where, from the start of the pickle.
        at: usize,
        /// What should have stood there.
        expected: &'static str,
    },
    /// A tensor's numbers are not in the file.
    #[error("the numbers of `{tensor}` are not in the file: fetch it again")]
    OutOfFile {
        /// The tensor.
        tensor: String,
    },
}
