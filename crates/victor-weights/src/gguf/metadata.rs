//! Keys and values at the head of a GGUF file.

use super::GgufError;
use super::cursor::Cursor;
use super::value::{Slot, Value, read};
use std::collections::BTreeMap;

/// The metadata of a file; getters tell a missing key from one of the wrong type.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) slots: &'a BTreeMap<String, Slot>,
}

impl<'a> Metadata<'a> {
    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.slots.keys().map(String::as_str)
    }

    /// A value.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        let slot = self.slots.get(key)?;
        let bytes = &self.bytes[slot.range.clone()];
        read(&mut Cursor::new(bytes), bytes, slot.kind).ok()
    }

    /// A string, if the key is there.
    ///
    /// # Errors
    /// If the value is no UTF-8 string.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.typed(key, "a UTF-8 string", Value::as_str)
    }

    /// An integer that is not negative, if the key is there.
    ///
    /// # Errors
    /// If the value is none.
    pub fn natural(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "an integer that is not negative", Value::as_u64)
    }

    /// A number, if the key is there.
    ///
    /// # Errors
    /// If the value is none, or not finite.
    pub fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a finite number", |value| {
            value.as_f64().filter(|number| number.is_finite())
        })
    }

    /// True or false, if the key is there.
    ///
    /// # Errors
    /// If the value is neither.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// An array of strings, if the key is there.
    ///
    /// # Errors
    /// If the value is none.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, GgufError> {
        self.array(key, "an array of UTF-8 strings", Value::as_str)
    }

    /// An array of numbers, if the key is there.
    ///
    /// # Errors
    /// If the value is none.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, GgufError> {
        self.array(key, "an array of numbers", Value::as_f64)
    }

    /// An array of integers, if the key is there.
    ///
    /// # Errors
    /// If the value is none.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, GgufError> {
        self.array(key, "an array of integers", Value::as_i64)
    }

    fn array<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, GgufError> {
        self.typed(key, expected, |value| {
            value.as_array()?.iter().map(convert).collect()
        })
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(self.wrong(key, expected)),
        }
    }

    /// The error of a key that is missing or not as expected.
    pub(crate) fn wrong(&self, key: &str, expected: &'static str) -> GgufError {
        GgufError::Value {
            key: key.into(),
            found: self
                .get(key)
                .map_or("missing".into(), |value| format!("`{value}`")),
            expected,
        }
    }
}
