//! The metadata of a GGUF file as JSON: only what stands before the tensors, and of that what is about tokens.
//!
//! It is apart from the engine's reader so that one can be held against the other.

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value};
use std::io::Read;

/// The longest string or array that is read.
const LIMIT: u64 = 1 << 24;

/// Every `tokenizer.*` entry by its key.
pub(super) fn metadata(file: &mut (impl Read + ?Sized)) -> Result<Map<String, Value>> {
    let magic: [u8; 4] = bytes(file)?;
    let version = u32::from_le_bytes(bytes(file)?);
    ensure!(
        &magic == b"GGUF" && (2..=3).contains(&version),
        "not a GGUF file of version 2 or 3"
    );
    let _tensors: [u8; 8] = bytes(file)?;
    let entries = u64::from_le_bytes(bytes(file)?);
    let mut found = Map::new();
    for _ in 0..entries {
        let key = string(file)?;
        let kind = u32::from_le_bytes(bytes(file)?);
        let value = value(file, kind)?;
        if key.starts_with("tokenizer.") {
            found.insert(key, value);
        }
    }
    Ok(found)
}

fn value(file: &mut (impl Read + ?Sized), kind: u32) -> Result<Value> {
    Ok(match kind {
        0 => u8::from_le_bytes(bytes(file)?).into(),
        1 => i8::from_le_bytes(bytes(file)?).into(),
        2 => u16::from_le_bytes(bytes(file)?).into(),
        3 => i16::from_le_bytes(bytes(file)?).into(),
        4 => u32::from_le_bytes(bytes(file)?).into(),
        5 => i32::from_le_bytes(bytes(file)?).into(),
        6 => f32::from_le_bytes(bytes(file)?).into(),
        7 => (bytes::<1>(file)? != [0]).into(),
        8 => string(file)?.into(),
        9 => {
            let kind = u32::from_le_bytes(bytes(file)?);
            ensure!(kind != 9, "an array of arrays");
            let length = length(file)?;
            let items = (0..length).map(|_| value(file, kind));
            Value::Array(items.collect::<Result<_>>()?)
        }
        10 => u64::from_le_bytes(bytes(file)?).into(),
        11 => i64::from_le_bytes(bytes(file)?).into(),
        12 => f64::from_le_bytes(bytes(file)?).into(),
        other => bail!("a value of type {other}"),
    })
}

fn string(file: &mut (impl Read + ?Sized)) -> Result<String> {
    let length = length(file)?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    Ok(String::from_utf8(bytes)?)
}

fn length(file: &mut (impl Read + ?Sized)) -> Result<usize> {
    let length = u64::from_le_bytes(bytes(file)?);
    ensure!(length <= LIMIT, "a length of {length}");
    Ok(length as usize)
}

fn bytes<const N: usize>(file: &mut (impl Read + ?Sized)) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
