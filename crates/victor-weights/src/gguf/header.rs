//! The head of a GGUF file: versions, counts, metadata and where tensors are.
//!
//! Source: llama.cpp's `docs/gguf.md`. Everything a file says is held against its size before it is
//! believed.

use super::cursor::Cursor;
use super::value::{Slot, locate};
use super::{GgufError, Metadata, TensorKind};
use std::collections::BTreeMap;
use std::ops::Range;

/// More entries or tensors than any model has; real files stay under three thousand.
const MOST: u64 = 1 << 16;
/// Axes of a tensor.
const MOST_AXES: u32 = 4;
/// Key length, value type and the smallest value.
const SMALLEST_ENTRY: u64 = 8 + 4 + 1;
/// Name length, axis count, one axis, type and offset.
const SMALLEST_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;

/// What the head of a file says, checked against the file's size.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) slots: BTreeMap<String, Slot>,
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
}

/// Where a tensor is.
#[derive(Clone, Debug)]
pub(crate) struct TensorInfo {
    /// Row-major: the innermost axis last.
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: TensorKind,
    /// In the file.
    pub(crate) range: Range<usize>,
}

/// A tensor entry before the place of the tensor bytes is known.
struct Entry {
    name: String,
    shape: Vec<usize>,
    kind: TensorKind,
    offset: u64,
    bytes: u64,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(bytes);
        let magic = cursor.skip(4, "the magic").map_err(|_| GgufError::Magic)?;
        if &bytes[magic] != b"GGUF" {
            return Err(GgufError::Magic);
        }
        let version = cursor.u32("the version")?;
        if version != 0 && version.trailing_zeros() >= 16 {
            return Err(GgufError::BigEndian);
        }
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version { found: version });
        }
        let tensors = cursor.u64("the tensor count")?;
        let entries = cursor.u64("the metadata count")?;
        check_count("metadata entries", entries, &cursor, SMALLEST_ENTRY)?;
        let mut slots = BTreeMap::new();
        for _ in 0..entries {
            let key = cursor.name("a metadata key")?;
            let slot = locate(&mut cursor, &key)?;
            if slots.insert(key.clone(), slot).is_some() {
                return Err(GgufError::Duplicate { name: key });
            }
        }
        check_count("tensors", tensors, &cursor, SMALLEST_TENSOR)?;
        let entries = (0..tensors)
            .map(|_| entry(&mut cursor))
            .collect::<Result<Vec<_>, _>>()?;
        let metadata = Metadata {
            bytes,
            slots: &slots,
        };
        let alignment = alignment(&metadata)?;
        // A file without tensors need not be padded to the alignment.
        let start = cursor
            .position()
            .checked_next_multiple_of(alignment)
            .unwrap_or(usize::MAX);
        let tensors = place(entries, start, alignment, bytes.len())?;
        Ok(Self {
            version,
            slots,
            tensors,
        })
    }
}

fn check_count(
    what: &'static str,
    count: u64,
    cursor: &Cursor,
    smallest: u64,
) -> Result<(), GgufError> {
    let most = MOST.min(cursor.remaining() / smallest);
    if count > most {
        return Err(GgufError::Count { what, count, most });
    }
    Ok(())
}

fn alignment(metadata: &Metadata) -> Result<usize, GgufError> {
    let found = metadata.natural("general.alignment")?.unwrap_or(32);
    let found = u32::try_from(found).unwrap_or(u32::MAX);
    if !found.is_power_of_two() {
        return Err(GgufError::Alignment { found });
    }
    Ok(found as usize)
}

fn entry(cursor: &mut Cursor) -> Result<Entry, GgufError> {
    const WHAT: &str = "a tensor entry";
    let name = cursor.name("a tensor name")?;
    let axes = cursor.u32(WHAT)?;
    // No more axes are read than the limit, whatever the count says.
    let mut sizes = Vec::new();
    for _ in 0..axes.min(MOST_AXES) {
        sizes.push(cursor.u64(WHAT)?);
    }
    let elements = (1..=MOST_AXES).contains(&axes).then(|| {
        let product = |product: u64, size: &u64| product.checked_mul(*size);
        sizes.iter().try_fold(1, product)
    });
    // As many elements as addresses, so that four bytes for each can be counted too.
    let elements = elements
        .flatten()
        .filter(|count| (1..=1 << 48).contains(count));
    let Some(elements) = elements else {
        return Err(GgufError::Shape { name, shape: sizes });
    };
    let id = cursor.u32(WHAT)?;
    let offset = cursor.u64(WHAT)?;
    let Some(kind) = TensorKind::from_id(id) else {
        return Err(GgufError::UnknownKind { name, id });
    };
    let block = kind.block_elements();
    let width = sizes[0] as usize;
    if !width.is_multiple_of(block) {
        return Err(GgufError::Blocks {
            name,
            kind,
            block,
            width,
        });
    }
    Ok(Entry {
        name,
        shape: sizes.iter().rev().map(|size| *size as usize).collect(),
        kind,
        offset,
        bytes: elements / block as u64 * kind.block_bytes() as u64,
    })
}

/// Puts tensors at their places and checks that each has its own.
fn place(
    mut entries: Vec<Entry>,
    start: usize,
    alignment: usize,
    file: usize,
) -> Result<BTreeMap<String, TensorInfo>, GgufError> {
    let available = file.saturating_sub(start) as u64;
    entries.sort_by_key(|entry| entry.offset);
    let mut end = 0;
    let mut previous = String::new();
    let mut tensors = BTreeMap::new();
    for Entry {
        name,
        shape,
        kind,
        offset,
        bytes,
    } in entries
    {
        let last = offset.checked_add(bytes).filter(|last| *last <= available);
        let (true, Some(last)) = (offset.is_multiple_of(alignment as u64), last) else {
            return Err(GgufError::Range {
                name,
                offset,
                bytes,
                available,
            });
        };
        if offset < end {
            return Err(GgufError::Overlap {
                first: previous,
                second: name,
            });
        }
        let info = TensorInfo {
            shape,
            kind,
            range: start + offset as usize..start + last as usize,
        };
        end = last;
        previous.clone_from(&name);
        if tensors.insert(name, info).is_some() {
            return Err(GgufError::Duplicate { name: previous });
        }
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use crate::gguf::testing::{Writer, tiny_decoder, tiny_mmproj};
    use crate::gguf::{GgufFile, Vocabulary, tensors, text_config, vision};
    use std::path::Path;

    /// Everything that reads a file, whatever comes of it; what is read is no larger than the file
    /// calls for.
    fn read_all(bytes: &[u8]) -> bool {
        let Ok(file) = GgufFile::from_bytes(Path::new("hostile.gguf"), bytes.to_vec()) else {
            return false;
        };
        for key in file.metadata().keys() {
            let value = file.metadata().get(key).map(|value| value.to_string());
            assert!(value.is_some_and(|value| value.len() < 1000));
        }
        let _ = (
            text_config(&file),
            vision(&file),
            Vocabulary::from_file(&file),
        );
        for tensor in tensors(&file).unwrap_or_default().values() {
            let values = tensor.to_f32().unwrap_or_default();
            assert!(values.len() <= bytes.len() * 8);
        }
        true
    }

    fn with_vocabulary() -> Writer {
        tiny_decoder("llama")
            .text("tokenizer.ggml.model", "llama")
            .texts("tokenizer.ggml.tokens", &["<unk>", "a", "b"])
            .f32s("tokenizer.ggml.scores", &[0.0, -1.0, -2.0])
            .i32s("tokenizer.ggml.token_type", &[2, 1, 1])
            .u32("tokenizer.ggml.eos_token_id", 2)
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let bytes = with_vocabulary().to_bytes();
        assert!(read_all(&bytes));
        for end in 0..bytes.len() {
            assert!(!read_all(&bytes[..end]), "{end} of {}", bytes.len());
        }
    }

    #[test]
    fn no_byte_of_the_head_makes_it_panic() {
        for writer in [with_vocabulary(), tiny_mmproj()] {
            let whole = writer.to_bytes();
            let head = whole.len() - writer.tensors.iter().map(|t| t.bytes.len()).sum::<usize>();
            for index in 0..head {
                for byte in [0, 1, 9, 127, 128, 255, whole[index] ^ 1] {
                    let mut bytes = whole.clone();
                    bytes[index] = byte;
                    read_all(&bytes);
                }
            }
        }
    }

    #[test]
    fn lies_are_named() {
        let good = || Writer::new("llama").tensor("a", &[4], 0.0);
        let patched = |at: usize, with: &[u8]| {
            let mut bytes = good().to_bytes();
            bytes[at..at + with.len()].copy_from_slice(with);
            let file = GgufFile::from_bytes(Path::new("x"), bytes);
            file.expect_err("a refusal").to_string()
        };
        let huge = u64::MAX.to_le_bytes();
        let cases = [
            (patched(0, b"GGML"), "does not begin with `GGUF`"),
            (patched(4, &3_u32.to_be_bytes()), "big-endian"),
            (patched(4, &1_u32.to_le_bytes()), "version 1; 2 and 3"),
            (patched(8, &huge), "18446744073709551615 tensors"),
            (patched(16, &huge), "18446744073709551615 metadata entries"),
            (patched(24, &huge), "a metadata key"),
            (
                good().entry("x", [99_u32.to_le_bytes()].concat()).refusal(),
                "has type 99",
            ),
            (
                good().u32("general.alignment", 24).refusal(),
                "`general.alignment` is 24",
            ),
            (good().tensor("a", &[4], 0.0).refusal(), "`a` occurs twice"),
            (
                good().raw("b", &[3, 1 << 62, 4], 0, vec![]).refusal(),
                "`b` has shape",
            ),
            (good().raw("b", &[0], 0, vec![]).refusal(), "`b` has shape"),
            (
                good().raw("b", &[1; 5], 0, vec![0; 4]).refusal(),
                "`b` has shape",
            ),
            (
                good().raw("b", &[2, 48], 8, vec![0; 102]).refusal(),
                "Q8_0 in blocks of 32 with rows of 48",
            ),
            (
                good().raw("b", &[8], 77, vec![0; 8]).refusal(),
                "`b` has tensor type 77",
            ),
            (
                good().raw("b", &[64], 0, vec![0; 8]).refusal(),
                "`b` takes 256 bytes at 32",
            ),
        ];
        for (message, expected) in cases {
            assert!(message.contains(expected), "{message} ({expected})");
        }
    }

    #[test]
    fn tensors_may_not_share_bytes() {
        let mut writer = Writer::new("llama")
            .tensor("a", &[16], 0.0)
            .tensor("b", &[16], 0.0);
        writer.tensors[1].offset = Some(32);
        assert!(writer.refusal().contains("`a` and `b` share bytes"));
        writer.tensors[1].offset = Some(33);
        assert!(writer.refusal().contains("`b` takes 64 bytes at 33"));
        writer.tensors[1].offset = Some(u64::MAX - 31);
        assert!(writer.refusal().contains("`b` takes 64 bytes"));
    }

    #[test]
    fn arrays_nest_but_not_for_ever() {
        let array = |element: u32| {
            let count = 1_u64.to_le_bytes();
            [&element.to_le_bytes()[..], &count].concat()
        };
        let nested = |depth: usize| {
            let outer = array(9).repeat(depth - 1);
            let value = [9_u32.to_le_bytes().to_vec(), outer, array(4)].concat();
            let seven = 7_u32.to_le_bytes().to_vec();
            Writer::new("llama").entry("x", [value, seven].concat())
        };
        let file = nested(3).file();
        let mut value = file.metadata().get("x").expect("the array");
        for _ in 0..3 {
            let array = value.as_array().expect("an array");
            assert_eq!(array.len(), 1);
            value = array.iter().next().expect("an element");
        }
        assert_eq!(value.as_u64(), Some(7));
        assert!(nested(100_000).refusal().contains("`x` nests arrays"));
    }
}
