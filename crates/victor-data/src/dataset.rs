//! LLaVA's conversation records: JSON arrays or JSON lines, checked when they are loaded.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::message::{IMAGE_MARKER, split_at_markers};
use crate::{DataError, Message, Role};

/// The conversations of one file.
#[derive(Debug)]
pub struct ConversationSet {
    records: Vec<Record>,
    skipped: Vec<DataError>,
}

/// One conversation and the pictures it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The record's id; a number in the file becomes its digits.
    pub id: String,
    /// Where its pictures are, in the order of their markers.
    pub images: Vec<PathBuf>,
    /// The turns, which alternate and end with the assistant's.
    pub turns: Vec<Turn>,
    /// Every other field of the record.
    pub extra: Map<String, Value>,
}

/// What one side says, with `<image>` where a picture stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// The words and markers, as in the file.
    pub value: String,
}

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordProblem {
    /// It is not JSON, or lacks a field, or a field is of the wrong type.
    #[error(
        "not a record ({source}); expected `conversations`, and `id` and `image` where there are any"
    )]
    Json {
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// There is no turn to learn from.
    #[error(
        "`conversations` holds no answer; expected turns from human and gpt, ending with gpt's"
    )]
    NoAnswer,
    /// The turns do not alternate.
    #[error(
        "turn {turn} is from {found:?}; expected {expected:?}, since human and gpt take turns and human begins"
    )]
    Alternation {
        /// The turn's number, from 1.
        turn: usize,
        /// Who should speak.
        expected: &'static str,
        /// Who does, as the file says.
        found: String,
    },
    /// Markers and pictures do not pair up.
    #[error(
        "its words have {markers} `<image>` markers and it has {pictures} pictures; there must be one marker for each"
    )]
    ImageCount {
        /// Markers in its turns.
        markers: usize,
        /// Pictures it names.
        pictures: usize,
    },
    /// A picture's file is not there.
    #[error("its picture {} does not exist; check the image directory", path.display())]
    MissingPicture {
        /// Where it was looked for.
        path: PathBuf,
    },
}

impl ConversationSet {
    /// Reads a JSON array of records, or one record a line; pictures are looked for under `image_dir`.
    ///
    /// A record that cannot be used is an error, or with `skip_bad` is left out and told by [`skipped`](Self::skipped).
    ///
    /// # Errors
    /// If the file cannot be read, is an array that is not JSON, or (without `skip_bad`) holds a record that cannot be
    /// used: not a record, without alternation, with markers unlike its pictures, or with a missing picture.
    pub fn load(json_path: &Path, image_dir: &Path, skip_bad: bool) -> Result<Self, DataError> {
        let text = std::fs::read_to_string(json_path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => DataError::NoSuchFile {
                path: json_path.to_owned(),
                expected: "conversations as a JSON array or JSON lines; check the path",
            },
            _ => DataError::ReadFile {
                path: json_path.to_owned(),
                source,
            },
        })?;
        let mut set = Self {
            records: Vec::new(),
            skipped: Vec::new(),
        };
        for (index, (line, json)) in split_records(json_path, &text)?.into_iter().enumerate() {
            match read_record(json, image_dir) {
                Ok(record) => set.records.push(record),
                Err((id, reason)) => {
                    let error = DataError::BadRecord {
                        path: json_path.to_owned(),
                        record: index + 1,
                        line,
                        id: id.unwrap_or_else(|| "?".to_owned()),
                        reason,
                    };
                    if !skip_bad {
                        return Err(error);
                    }
                    set.skipped.push(error);
                }
            }
        }
        Ok(set)
    }

    /// The usable records, in the order of the file.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Why each record that was left out could not be used; empty unless `skip_bad` was set.
    pub fn skipped(&self) -> &[DataError] {
        &self.skipped
    }

    /// How many usable records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no usable record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

impl Record {
    /// The turns as a chat template reads them: split at the markers, without the line breaks next to these.
    ///
    /// A turn's lone marker at its end is moved to its front, as LLaVA does.
    pub fn messages(&self) -> Vec<Message> {
        self.turns
            .iter()
            .map(|turn| Message {
                role: turn.role,
                content: split_at_markers(&turn.value),
            })
            .collect()
    }
}

/// Each record's JSON with the line it begins on.
fn split_records<'a>(path: &Path, text: &'a str) -> Result<Vec<(usize, &'a str)>, DataError> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    if !text.trim_start().starts_with('[') {
        let lines = text.lines().enumerate();
        return Ok(lines
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(index, line)| (index + 1, line))
            .collect());
    }
    let items: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|source| DataError::ParseJson {
            path: path.to_owned(),
            expected: "an array of conversations",
            source,
        })?;
    let mut line = 1;
    let mut counted = 0;
    let located = items.into_iter().map(|item| {
        // The items are slices of `text`, so addresses give their places.
        let at = item.get().as_ptr() as usize - text.as_ptr() as usize;
        line += text[counted..at]
            .bytes()
            .filter(|&byte| byte == b'\n')
            .count();
        counted = at;
        (line, item.get())
    });
    Ok(located.collect())
}

type Rejected = (Option<String>, RecordProblem);

fn read_record(json: &str, image_dir: &Path) -> Result<Record, Rejected> {
    let raw: RawRecord = serde_json::from_str(json).map_err(|source| {
        // The id may be readable where the rest is not.
        let id = serde_json::from_str::<RawId>(json)
            .ok()
            .and_then(|raw| name_of(&raw.id));
        (id, RecordProblem::Json { source })
    })?;
    let id = name_of(&raw.id);
    let reject = |problem| (id.clone(), problem);

    let turns = read_turns(raw.conversations).map_err(reject)?;
    let names = match raw.image {
        None => Vec::new(),
        Some(ImageField::One(name)) => vec![name],
        Some(ImageField::Many(names)) => names,
    };
    let markers = turns
        .iter()
        .map(|turn| turn.value.matches(IMAGE_MARKER).count())
        .sum();
    if markers != names.len() {
        let pictures = names.len();
        return Err(reject(RecordProblem::ImageCount { markers, pictures }));
    }
    let images: Vec<PathBuf> = names.iter().map(|name| image_dir.join(name)).collect();
    if let Some(path) = images.iter().find(|path| !path.is_file()) {
        return Err(reject(RecordProblem::MissingPicture { path: path.clone() }));
    }
    Ok(Record {
        id: id.unwrap_or_default(),
        images,
        turns,
        extra: raw.extra,
    })
}

fn read_turns(raw: Vec<RawTurn>) -> Result<Vec<Turn>, RecordProblem> {
    let mut turns: Vec<Turn> = Vec::with_capacity(raw.len());
    for (index, turn) in raw.into_iter().enumerate() {
        let role = match turn.from.as_str() {
            "human" => Some(Role::User),
            "gpt" => Some(Role::Assistant),
            "system" => Some(Role::System),
            _ => None,
        };
        let (fits, expected) = match turns.last().map(|turn| turn.role) {
            None => (matches!(role, Some(Role::System | Role::User)), "human"),
            Some(Role::User) => (role == Some(Role::Assistant), "gpt"),
            Some(Role::System | Role::Assistant) => (role == Some(Role::User), "human"),
        };
        match role {
            Some(role) if fits => turns.push(Turn {
                role,
                value: turn.value,
            }),
            _ => {
                return Err(RecordProblem::Alternation {
                    turn: index + 1,
                    expected,
                    found: turn.from,
                });
            }
        }
    }
    match turns.last() {
        Some(turn) if turn.role == Role::Assistant => Ok(turns),
        _ => Err(RecordProblem::NoAnswer),
    }
}

fn name_of(id: &Value) -> Option<String> {
    match id {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

#[derive(Deserialize)]
struct RawId {
    #[serde(default)]
    id: Value,
}

#[derive(Deserialize)]
struct RawRecord {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    image: Option<ImageField>,
    conversations: Vec<RawTurn>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ImageField {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct RawTurn {
    from: String,
    value: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Content;

    const GOOD: &str = r#"{"id": 7, "image": "a.png", "source": "coco", "conversations": [
        {"from": "human", "value": "What is it?\n<image>"}, {"from": "gpt", "value": "A cat."}]}"#;

    fn load(text: &str, skip_bad: bool) -> Result<ConversationSet, DataError> {
        let dir = tempfile::tempdir().expect("a directory");
        let json = dir.path().join("set.json");
        std::fs::write(&json, text).expect("written");
        std::fs::write(dir.path().join("a.png"), b"").expect("written");
        ConversationSet::load(&json, dir.path(), skip_bad)
    }

    fn record(body: &str) -> String {
        format!(
            "[\n{},\n{{\"id\": \"bad one\", {body}}}]",
            GOOD.replace('\n', " ")
        )
    }

    #[test]
    fn arrays_and_lines_hold_the_same_records() {
        let line = GOOD.replace('\n', " ");
        let array = load(&format!("[{GOOD}, {GOOD}]"), false).expect("an array");
        let lines = load(&format!("{line}\n\n{line}\n"), false).expect("lines");
        assert_eq!((array.len(), lines.len()), (2, 2));
        let record = &array.records()[0];
        assert_eq!(record.id, "7");
        assert_eq!(record.extra["source"], "coco");
        assert_eq!(record.turns, lines.records()[1].turns);
        assert_eq!(
            record.messages()[0].content,
            [Content::Image, Content::Text("What is it?".to_owned())]
        );
    }

    #[test]
    fn a_bad_record_is_named_by_number_line_and_id() {
        let human = r#"{"from": "human", "value": "<image>"}"#;
        let gpt = r#"{"from": "gpt", "value": "A cat."}"#;
        for (body, said) in [
            (
                format!(r#""image": "b.png", "conversations": [{human}, {gpt}]"#),
                "b.png",
            ),
            (
                format!(r#""image": "a.png", "conversations": [{gpt}]"#),
                "turn 1 is from \"gpt\"",
            ),
            (
                format!(r#""image": "a.png", "conversations": [{human}]"#),
                "no answer",
            ),
            (
                format!(r#""conversations": [{human}, {gpt}]"#),
                "1 `<image>` markers and it has 0",
            ),
            (
                format!(r#""image": ["a.png", "a.png"], "conversations": [{human}, {gpt}]"#),
                "has 2 pictures",
            ),
            (
                r#""image": "a.png""#.to_owned(),
                "missing field `conversations`",
            ),
        ] {
            let text = record(&body);
            let error = load(&text, false).expect_err("a bad record").to_string();
            assert!(error.contains("record 2 (line 3, id bad one)"), "{error}");
            assert!(error.contains(said), "{error}");

            let set = load(&text, true).expect("the good record");
            assert_eq!((set.len(), set.skipped().len()), (1, 1));
            assert!(set.skipped()[0].to_string().contains(said), "{body}");
        }
    }

    #[test]
    fn a_broken_line_is_one_record_and_a_broken_array_the_whole_file() {
        let line = GOOD.replace('\n', " ");
        let set = load(&format!("{line}\n{{\"id\": 3\n{line}"), true).expect("two good lines");
        assert_eq!((set.len(), set.skipped().len()), (2, 1));
        let error = load(&format!("[{line}"), true).expect_err("cut short");
        assert!(matches!(error, DataError::ParseJson { .. }), "{error}");
    }
}
