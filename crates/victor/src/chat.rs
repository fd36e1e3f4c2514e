//! A conversation of several turns: text streamed, pictures added on the way, each encoded and
//! prefilled once.

mod conversation;
mod seam;

use crate::completion::{Completion, Timings, Token};
use crate::engine::Engine;
use crate::{GenerateOptions, VictorError};
use conversation::Conversation;
use victor_backend::VictorBackend;
use victor_data::{Message, RgbImage};

/// How a conversation is led.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatOptions {
    /// How every answer is generated: each as [`Victor::generate`](crate::Victor::generate) would
    /// answer the conversation up to there.
    pub generate: GenerateOptions,
    /// Instructions above the conversation.
    pub system: Option<String>,
}

/// What a conversation has taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ChatUsage {
    /// Positions taken, pictures and registers included.
    pub rows: usize,
    /// Positions of the model.
    pub context: usize,
    /// Pictures the vision tower has computed.
    pub encoded_pictures: usize,
    /// Rows prefilled: each of the conversation once, but for generated tokens and for what `restarts`
    /// cost.
    pub prefilled_rows: usize,
    /// How often the cache had to be filled anew, because the chat template does not continue its own
    /// text or a stop string cut an answer within a token.
    pub restarts: usize,
}

/// A conversation with a model.
///
/// ```no_run
/// # fn main() -> Result<(), victor::VictorError> {
/// # let model = victor::Victor::from_pretrained("m", victor::Device::best()?)?;
/// let mut chat = model.chat(victor::ChatOptions::default())?;
/// chat.add_image(&victor::decode_image("photo.jpg".as_ref())?)?;
/// for token in chat.say("What is it?")? {
///     eprint!("{}", token?.text);
/// }
/// for token in chat.say("What is it used for?")? {
///     eprint!("{}", token?.text);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Chat<'a> {
    conversation: Box<dyn Talk + 'a>,
}

impl Chat<'_> {
    /// Adds a picture to the next turn.
    ///
    /// # Errors
    /// If the picture is not usable or no room is left for it; the conversation is as before.
    pub fn add_image(&mut self, image: &RgbImage) -> Result<(), VictorError> {
        self.conversation.add_image(image)
    }

    /// Says something, about the pictures added since the last turn if there are any, and returns the
    /// answer token by token.
    ///
    /// An answer dropped before its end is remembered as far as it was given out.
    ///
    /// # Errors
    /// If the turn does not fit; nothing was computed then, and the conversation is as before, the
    /// added pictures included.
    pub fn say(&mut self, text: &str) -> Result<Turn<'_>, VictorError> {
        self.conversation.start(text)?;
        Ok(Turn {
            conversation: &mut *self.conversation,
            failed: false,
        })
    }

    /// Forgets everything but the system message.
    pub fn clear(&mut self) {
        self.conversation.clear();
    }

    /// What was said, the system message first if there is one.
    pub fn messages(&self) -> &[Message] {
        self.conversation.messages()
    }

    /// The ids of the conversation as they were prompted and generated, a picture's repeated once for
    /// each of its visual tokens.
    pub fn ids(&self) -> &[u32] {
        self.conversation.ids()
    }

    /// Pictures that wait for the next turn.
    pub fn waiting_images(&self) -> usize {
        self.conversation.waiting_images()
    }

    /// What the conversation has taken so far.
    pub fn usage(&self) -> ChatUsage {
        self.conversation.usage()
    }
}

impl std::fmt::Debug for Chat<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chat")
            .field("messages", &self.messages())
            .field("usage", &self.usage())
            .finish()
    }
}

/// An answer of a conversation in the making: an iterator of tokens.
pub struct Turn<'c> {
    conversation: &'c mut (dyn Talk + 'c),
    failed: bool,
}

impl Turn<'_> {
    /// The answer so far; `prompt_tokens` counts the whole conversation before it.
    pub fn completion(&self) -> Completion {
        self.conversation.completion()
    }

    /// Where the time of this turn went so far.
    pub fn timings(&self) -> Timings {
        self.conversation.timings()
    }

    /// What the conversation has taken so far.
    pub fn usage(&self) -> ChatUsage {
        self.conversation.usage()
    }
}

impl Iterator for Turn<'_> {
    type Item = Result<Token, VictorError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let token = self.conversation.step().transpose();
        self.failed = matches!(token, Some(Err(_)));
        token
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.conversation.settle();
    }
}

/// A conversation whatever the backend.
trait Talk {
    fn add_image(&mut self, image: &RgbImage) -> Result<(), VictorError>;
    /// Takes the user's turn up to the first logits of the answer.
    fn start(&mut self, text: &str) -> Result<(), VictorError>;
    /// The next token of the answer; `None` when it has ended.
    fn step(&mut self) -> Result<Option<Token>, VictorError>;
    /// Ends the answer: what was given out is what is remembered.
    fn settle(&mut self);
    fn clear(&mut self);
    fn completion(&self) -> Completion;
    fn timings(&self) -> Timings;
    fn messages(&self) -> &[Message];
    fn ids(&self) -> &[u32];
    fn waiting_images(&self) -> usize;
    fn usage(&self) -> ChatUsage;
}

impl<B: VictorBackend> Engine<B> {
    /// Begins a conversation.
    ///
    /// # Errors
    /// If an option is out of its range, or the chat template refuses the system message.
    pub fn chat(&self, options: ChatOptions) -> Result<Chat<'_>, VictorError> {
        let conversation = Conversation::new(self, options)?;
        Ok(Chat {
            conversation: Box::new(conversation),
        })
    }
}
