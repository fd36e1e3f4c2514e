//! What a model is asked.

use victor_data::{Message, RgbImage, Role};

/// The instruction of a caption when none is given.
pub const CAPTION_PROMPT: &str = "Describe the picture.";

/// A prompt and its pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The text side.
    pub prompt: Prompt,
    /// The pictures, in the order of their markers.
    pub images: Vec<RgbImage>,
}

/// The text of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Taken as it is, with `<image>` where a picture stands; gets the special tokens the tokenizer
    /// adds.
    Raw(String),
    /// Turns of a conversation, put through the checkpoint's chat template.
    Chat(Vec<Message>),
}

impl Request {
    /// Asks for a caption of one picture.
    pub fn caption(image: RgbImage) -> Self {
        Self::ask(image, CAPTION_PROMPT)
    }

    /// Asks something about one picture.
    pub fn ask(image: RgbImage, question: &str) -> Self {
        Self {
            prompt: Prompt::Chat(vec![Message::user(1, question)]),
            images: vec![image],
        }
    }

    /// Asks something without a picture.
    pub fn text(question: &str) -> Self {
        Self {
            prompt: Prompt::Chat(vec![Message::text(Role::User, question)]),
            images: Vec::new(),
        }
    }

    /// An untemplated prompt.
    pub fn raw(prompt: impl Into<String>, images: Vec<RgbImage>) -> Self {
        Self {
            prompt: Prompt::Raw(prompt.into()),
            images,
        }
    }
}
