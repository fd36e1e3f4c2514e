//! What transformers adds to Jinja for chat templates.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Adds `raise_exception`, `strftime_now` and a `tojson` that writes what Python's does.
pub(crate) fn register(environment: &mut Environment<'static>) {
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment.add_function("strftime_now", |format: String| {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        format_time(&format, seconds)
    });
    environment.add_filter("tojson", to_json);
}

/// Turns transformers' `{% generation %}` blocks, which mark answers and print nothing, into blocks Jinja knows.
pub(crate) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        // In `{%}` the two share their percent sign.
        let inside = start + 2;
        let Some(length) = rest[inside..].find("%}") else {
            break;
        };
        let end = inside + length;
        let (before, tag) = rest[..end].split_at(start);
        out.push_str(before);
        let word =
            tag[2..].trim_matches(|symbol: char| symbol.is_whitespace() || "-+".contains(symbol));
        match word {
            "generation" => out.push_str(&tag.replace(word, "if true")),
            "endgeneration" => out.push_str(&tag.replace(word, "endif")),
            _ => out.push_str(tag),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

fn to_json(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Accepted for Python's sake; what they ask for is done anyway.
    let _: Option<bool> = options.get("ensure_ascii")?;
    let _: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let json = match indent {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            written_by(PrettyFormatter::with_indent(indent.as_bytes()), &value)
        }
        None => written_by(PythonFormatter, &value),
    };
    json.map(Value::from_safe_string).map_err(|source| {
        Error::new(ErrorKind::BadSerialization, "not expressible in JSON").with_source(source)
    })
}

fn written_by(formatter: impl Formatter, value: &Value) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// JSON with a space after each comma and colon.
struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Formats a moment in UTC; directives it does not know stay as they are.
fn format_time(format: &str, seconds: u64) -> String {
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let name = MONTHS[month - 1];
    let mut out = String::new();
    let mut symbols = format.chars();
    while let Some(symbol) = symbols.next() {
        if symbol != '%' {
            out.push(symbol);
            continue;
        }
        match symbols.next() {
            Some('Y') => out.push_str(&year.to_string()),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('B') => out.push_str(name),
            Some('b') => out.push_str(&name[..3]),
            Some('H') => out.push_str(&format!("{hour:02}")),
            Some('M') => out.push_str(&format!("{minute:02}")),
            Some('S') => out.push_str(&format!("{second:02}")),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

/// Year, month and day of a number of days since 1970-01-01.
fn civil_date(mut days: u64) -> (u64, usize, u64) {
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (year, month + 1, days + 1)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_python_writes_them() {
        assert_eq!(
            format_time("%d %b %Y %H:%M:%S %%", 0),
            "01 Jan 1970 00:00:00 %"
        );
        assert_eq!(format_time("%d %B %Y", 1_709_164_800), "29 February 2024");
        assert_eq!(format_time("%Y-%m-%d", 1_735_689_599), "2024-12-31");
    }

    /// Found by mutation of a seed.
    #[test]
    fn a_tag_that_ends_where_it_begins_is_left_to_jinja() {
        for source in ["{%}", "a{%}{% generation %}", "{%", "{%}%}"] {
            without_generation_tags(source);
        }
        assert_eq!(without_generation_tags("a{%}b"), "a{%}b");
        assert_eq!(
            without_generation_tags("{%%}{% generation %}"),
            "{%%}{% if true %}"
        );
    }

    #[test]
    fn generation_tags_keep_their_whitespace_control() {
        assert_eq!(
            without_generation_tags(
                "a{%- generation %}{{ generation }}{% endgeneration -%}b{% if x"
            ),
            "a{%- if true %}{{ generation }}{% endif -%}b{% if x"
        );
    }
}
