//! Metadata values, checked once and then read where they stand in the file.

use super::GgufError;
use super::cursor::Cursor;
use std::fmt;
use std::ops::Range;

/// The types a value can have, in the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueKind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl ValueKind {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Text,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).copied()
    }

    /// Bytes of a value, unless they depend on the value.
    fn width(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

/// Where a value stands in the file.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) kind: ValueKind,
    pub(crate) range: Range<usize>,
}

/// Arrays nest at most this deep.
const DEEPEST: usize = 4;

/// Checks a value with its type before it, and says where it is.
pub(crate) fn locate(cursor: &mut Cursor, key: &str) -> Result<Slot, GgufError> {
    let kind = value_kind(cursor, key)?;
    let start = cursor.position();
    step_over(cursor, kind, key, 0)?;
    Ok(Slot {
        kind,
        range: start..cursor.position(),
    })
}

fn value_kind(cursor: &mut Cursor, key: &str) -> Result<ValueKind, GgufError> {
    let found = cursor.u32("the type of a metadata value")?;
    ValueKind::from_id(found).ok_or_else(|| GgufError::ValueType {
        key: key.into(),
        found,
    })
}

fn step_over(
    cursor: &mut Cursor,
    kind: ValueKind,
    key: &str,
    depth: usize,
) -> Result<(), GgufError> {
    const WHAT: &str = "a metadata value";
    if let Some(width) = kind.width() {
        cursor.skip(width, WHAT)?;
    } else if kind == ValueKind::Text {
        cursor.string(WHAT)?;
    } else {
        if depth == DEEPEST {
            return Err(GgufError::Nesting {
                key: key.into(),
                most: DEEPEST,
            });
        }
        let element = value_kind(cursor, key)?;
        let count = cursor.u64(WHAT)?;
        if let Some(width) = element.width() {
            cursor.skip(count.saturating_mul(width), WHAT)?;
            return Ok(());
        }
        // A string takes its length, an array its type and count: the count is bounded by the file.
        for _ in 0..count {
            step_over(cursor, element, key, depth + 1)?;
        }
    }
    Ok(())
}

/// A metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// An unsigned integer of any width.
    Unsigned(u64),
    /// A signed integer of any width.
    Signed(i64),
    /// A float; of a 32-bit one, its shortest decimal.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A string, which should be UTF-8.
    Text(&'a [u8]),
    /// An array.
    Array(Array<'a>),
}

/// An array in the file; elements are read as they are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    element: ValueKind,
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The elements.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let Self {
            element,
            count,
            bytes,
        } = *self;
        let mut cursor = Cursor::new(bytes);
        (0..count).map_while(move |_| read(&mut cursor, bytes, element).ok())
    }
}

pub(crate) fn read<'a>(
    cursor: &mut Cursor<'a>,
    bytes: &'a [u8],
    kind: ValueKind,
) -> Result<Value<'a>, GgufError> {
    const WHAT: &str = "a metadata value";
    if kind == ValueKind::Text {
        return Ok(Value::Text(&bytes[cursor.string(WHAT)?]));
    }
    if kind == ValueKind::Array {
        let element = value_kind(cursor, "")?;
        let count = cursor.u64(WHAT)? as usize;
        let start = cursor.position();
        for _ in 0..count {
            step_over(cursor, element, "", 0)?;
        }
        let bytes = &bytes[start..cursor.position()];
        return Ok(Value::Array(Array {
            element,
            count,
            bytes,
        }));
    }
    let range = cursor.skip(kind.width().unwrap_or(0), WHAT)?;
    let mut wide = [0; 8];
    wide[..range.len()].copy_from_slice(&bytes[range]);
    let value = u64::from_le_bytes(wide);
    Ok(match kind {
        ValueKind::I8 => Value::Signed(i64::from(value as i8)),
        ValueKind::I16 => Value::Signed(i64::from(value as i16)),
        ValueKind::I32 => Value::Signed(i64::from(value as i32)),
        ValueKind::I64 => Value::Signed(value as i64),
        ValueKind::F32 => Value::Float(shortest_decimal(f32::from_bits(value as u32))),
        ValueKind::F64 => Value::Float(f64::from_bits(value)),
        ValueKind::Bool => Value::Bool(value != 0),
        _ => Value::Unsigned(value),
    })
}

/// The double nearest to the decimal a float was most likely written as: 1e-5, not 9.9999997e-6.
fn shortest_decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

impl<'a> Value<'a> {
    /// An integer that is not negative.
    pub fn as_u64(self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(value),
            Self::Signed(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// An integer.
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Self::Unsigned(value) => i64::try_from(value).ok(),
            Self::Signed(value) => Some(value),
            _ => None,
        }
    }

    /// A number.
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(value),
            _ => self.as_i64().map(|value| value as f64),
        }
    }

    /// True or false.
    pub fn as_bool(self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// A string that is UTF-8.
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(self) -> Option<Array<'a>> {
        match self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 40;
        match self {
            Self::Unsigned(value) => write!(formatter, "{value}"),
            Self::Signed(value) => write!(formatter, "{value}"),
            Self::Float(value) => write!(formatter, "{value}"),
            Self::Bool(value) => write!(formatter, "{value}"),
            Self::Array(array) => write!(formatter, "an array of {}", array.count),
            Self::Text(bytes) => {
                let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
                let more = if bytes.len() > SHOWN { "…" } else { "" };
                write!(formatter, "{shown:?}{more}")
            }
        }
    }
}
