//! Turns of a conversation, in the shape that chat templates read.

use serde::{Deserialize, Serialize};

/// The marker that stands for a picture in text.
pub const IMAGE_MARKER: &str = "<image>";

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The instructions above the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// A part of a turn; in JSON `{"type": "image"}` or `{"type": "text", "text": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "text", rename_all = "lowercase")]
pub enum Content {
    /// A picture; the pictures of a conversation are counted through.
    Image,
    /// Words.
    Text(String),
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is shown and said, in order.
    pub content: Vec<Content>,
}

impl Message {
    /// A turn of words only.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: vec![Content::Text(text.into())],
        }
    }

    /// The user's turn: `pictures` pictures, then words.
    pub fn user(pictures: usize, text: impl Into<String>) -> Self {
        let mut content = vec![Content::Image; pictures];
        content.push(Content::Text(text.into()));
        Self {
            role: Role::User,
            content,
        }
    }

    /// The words alone, joined.
    pub fn words(&self) -> String {
        self.joined("")
    }

    /// The words, with a marker and a newline for each picture.
    pub fn as_marked_text(&self) -> String {
        self.joined("<image>\n")
    }

    fn joined(&self, picture: &str) -> String {
        self.content
            .iter()
            .map(|part| match part {
                Content::Image => picture,
                Content::Text(text) => text,
            })
            .collect()
    }
}

/// Splits text at its `<image>` markers, dropping the line breaks next to one.
///
/// A lone marker that ends the text is moved to its front, where LLaVA puts it.
pub fn split_at_markers(text: &str) -> Vec<Content> {
    let pieces: Vec<&str> = text.split(IMAGE_MARKER).collect();
    let last = pieces.len() - 1;
    let mut content = Vec::with_capacity(2 * pieces.len());
    for (index, piece) in pieces.iter().enumerate() {
        let mut words = *piece;
        if index > 0 {
            content.push(Content::Image);
            words = words
                .strip_prefix("\r\n")
                .or(words.strip_prefix('\n'))
                .unwrap_or(words);
        }
        if index < last {
            words = words.strip_suffix('\n').unwrap_or(words);
            words = words.strip_suffix('\r').unwrap_or(words);
        }
        if !words.is_empty() {
            content.push(Content::Text(words.to_owned()));
        }
    }
    if let [Content::Text(_), Content::Image] = content.as_slice() {
        content.swap(0, 1);
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: &str) -> Content {
        Content::Text(words.to_owned())
    }

    #[test]
    fn markers_split_the_text_where_they_stand() {
        assert_eq!(
            split_at_markers("One: <image>\nand two: <image>\nSame?"),
            [
                text("One: "),
                Content::Image,
                text("and two: "),
                Content::Image,
                text("Same?")
            ]
        );
        assert_eq!(split_at_markers("plain"), [text("plain")]);
        assert_eq!(split_at_markers("<image>"), [Content::Image]);
    }

    #[test]
    fn a_lone_marker_at_the_end_goes_to_the_front() {
        let expected = [Content::Image, text("What is it?")];
        assert_eq!(split_at_markers("What is it?\n<image>"), expected);
        assert_eq!(split_at_markers("<image>\nWhat is it?"), expected);
    }

    #[test]
    fn json_is_what_templates_read() -> Result<(), serde_json::Error> {
        let json = serde_json::to_string(&Message::user(1, "Hi"))?;
        assert_eq!(
            json,
            r#"{"role":"user","content":[{"type":"image"},{"type":"text","text":"Hi"}]}"#
        );
        assert_eq!(
            serde_json::from_str::<Message>(&json)?,
            Message::user(1, "Hi")
        );
        Ok(())
    }
}
