//! Typed access to the fields of a JSON object, with defaults and with errors that name the field.

use crate::WeightsError;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A JSON object with the defaults of its model type; fields are named with their parents in errors.
pub(crate) struct Section<'a> {
    pub(crate) path: &'a Path,
    name: &'static str,
    fields: Map<String, Value>,
    pub(crate) defaults: Value,
}

impl<'a> Section<'a> {
    /// The largest width and count, but for vocabularies, contexts and layers.
    pub(crate) const LARGEST: usize = 1 << 18;

    pub(crate) fn new(
        path: &'a Path,
        name: &'static str,
        value: &Value,
    ) -> Result<Self, WeightsError> {
        let fields = value
            .as_object()
            .cloned()
            .ok_or_else(|| WeightsError::Config {
                path: path.into(),
                field: name.into(),
                found: value.to_string(),
                expected: "an object".into(),
            })?;
        Ok(Self {
            path,
            name,
            fields,
            defaults: Value::Null,
        })
    }

    pub(crate) fn section(
        &self,
        name: &'static str,
        default: Value,
    ) -> Result<Section<'a>, WeightsError> {
        Section::new(self.path, name, self.get(name).unwrap_or(&default))
    }

    /// A field that is present and not null.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.fields
            .get(field)
            .or_else(|| self.defaults.get(field))
            .filter(|value| !value.is_null())
    }

    pub(crate) fn error(&self, field: &str, expected: &str) -> WeightsError {
        let dot = if self.name.is_empty() { "" } else { "." };
        let found = self
            .get(field)
            .map_or("missing".into(), |value| format!("`{value}`"));
        WeightsError::Config {
            path: PathBuf::from(self.path),
            field: format!("{}{dot}{field}", self.name),
            found,
            expected: expected.into(),
        }
    }

    pub(crate) fn text<'b>(
        &'b self,
        field: &str,
        default: Option<&'b str>,
    ) -> Result<&'b str, WeightsError> {
        match self.get(field) {
            Some(value) => value.as_str(),
            None => default,
        }
        .ok_or_else(|| self.error(field, "a string"))
    }

    pub(crate) fn number(&self, field: &str, default: Option<f64>) -> Result<f64, WeightsError> {
        match self.get(field) {
            Some(value) => value.as_f64(),
            None => default,
        }
        .ok_or_else(|| self.error(field, "a number"))
    }

    pub(crate) fn integer(&self, field: &str, default: Option<i64>) -> Result<i64, WeightsError> {
        match self.get(field) {
            Some(value) => value.as_i64(),
            None => default,
        }
        .ok_or_else(|| self.error(field, "an integer"))
    }

    /// An integer that may be zero.
    pub(crate) fn natural(
        &self,
        field: &str,
        default: Option<usize>,
    ) -> Result<usize, WeightsError> {
        let value = self.integer(field, default.map(|value| value as i64))?;
        // No size of a model comes near these; products of larger ones would overflow.
        let largest = match field {
            "vocab_size" | "max_position_embeddings" => 1 << 28,
            "num_hidden_layers" => 1 << 10,
            _ => Self::LARGEST as i64,
        };
        if !(0..=largest).contains(&value) {
            return Err(self.error(field, "a count"));
        }
        Ok(value as usize)
    }

    /// An integer of at least one.
    pub(crate) fn size(&self, field: &str, default: Option<usize>) -> Result<usize, WeightsError> {
        match self.natural(field, default)? {
            0 => Err(self.error(field, "at least 1")),
            size => Ok(size),
        }
    }

    pub(crate) fn boolean(&self, field: &str, default: bool) -> Result<bool, WeightsError> {
        match self.get(field) {
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.error(field, "true or false")),
            None => Ok(default),
        }
    }
}
