//! Chat templates: messages to the text a checkpoint was trained on, through Jinja as transformers runs it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Deserialize;
use serde_json::Map;

use crate::built_in::{self, BUILT_IN_TEMPLATES};
use crate::processor_config::read_json_if_there;
use crate::template_functions;
use crate::{DataError, Message, Role, Tokenizer};

/// Instructions a rendering may take; a conversation of a thousand turns needs some hundred thousand.
const FUEL: u64 = 5_000_000;
const NAME: &str = "chat_template";

/// A compiled chat template with the names of its checkpoint's special tokens.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    origin: String,
    pub(crate) source: String,
    /// Whether the template loops over a turn's parts, or prints the turn as one string.
    reads_parts: bool,
    special_tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Reads `chat_template.jinja`, else `chat_template.json`, else the one in `tokenizer_config.json`.
    ///
    /// Where several are named, `default` is taken, or else the first.
    ///
    /// # Errors
    /// If there is none, or it does not compile.
    pub fn from_dir(dir: &Path) -> Result<Self, DataError> {
        let config_path = dir.join("tokenizer_config.json");
        let config: Map<String, serde_json::Value> =
            read_json_if_there(&config_path, "a tokenizer")?.unwrap_or_default();

        let jinja_path = dir.join("chat_template.jinja");
        let json_path = dir.join("chat_template.json");
        let (path, source) = if jinja_path.exists() {
            let source =
                std::fs::read_to_string(&jinja_path).map_err(|source| DataError::ReadFile {
                    path: jinja_path.clone(),
                    source,
                })?;
            (jinja_path, Some(source))
        } else if let Some(file) =
            read_json_if_there::<TemplateFile>(&json_path, "a chat template")?
        {
            (json_path, file.chat_template.into_source())
        } else {
            let source = config
                .get("chat_template")
                .and_then(|value| TemplateField::deserialize(value).ok())
                .and_then(TemplateField::into_source);
            (config_path, source)
        };
        let source = source.ok_or_else(|| DataError::NoChatTemplate {
            dir: dir.to_owned(),
            available: BUILT_IN_TEMPLATES,
        })?;
        Self::compile(path.display().to_string(), &source, special_tokens(&config))
    }

    /// A template that comes with the engine; [`BUILT_IN_TEMPLATES`] lists their names.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn built_in(name: &str) -> Result<Self, DataError> {
        let source = built_in::source(name).ok_or_else(|| DataError::UnknownTemplate {
            name: name.to_owned(),
            available: BUILT_IN_TEMPLATES,
        })?;
        Self::compile(
            format!("built-in template {name}"),
            &source,
            BTreeMap::new(),
        )
    }

    /// Compiles Jinja source; `origin` is what errors call it.
    ///
    /// # Errors
    /// If the source is not valid Jinja.
    pub fn from_source(source: &str, origin: &str) -> Result<Self, DataError> {
        Self::compile(origin.to_owned(), source, BTreeMap::new())
    }

    /// Lets the template write this tokenizer's `bos_token` and `eos_token`.
    #[must_use]
    pub fn with_tokens_of(mut self, tokenizer: &Tokenizer) -> Self {
        for (name, token) in [
            ("bos_token", tokenizer.bos()),
            ("eos_token", tokenizer.eos()),
        ] {
            if let Some(token) = token {
                self.special_tokens
                    .insert(name.to_owned(), token.to_owned());
            }
        }
        self
    }

    /// The text of a conversation; `add_generation_prompt` ends it where the assistant is to speak.
    ///
    /// # Errors
    /// If the template refuses the messages or does not come to an end.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, DataError> {
        self.render_as(self.reads_parts, messages, add_generation_prompt)
            .map_err(|source| {
                let origin = self.origin.clone();
                if source.kind() == ErrorKind::OutOfFuel {
                    DataError::RunawayTemplate {
                        origin,
                        limit: FUEL,
                        source,
                    }
                } else {
                    DataError::RenderTemplate {
                        origin,
                        messages: messages.len(),
                        source,
                    }
                }
            })
    }

    /// The text of a conversation, and the byte ranges of the assistant's words with the stop token after each.
    ///
    /// A range begins where a generation prompt would end. Line breaks that the template writes after the stop token are
    /// not part of it; a template without a stop token gives the words alone.
    ///
    /// # Errors
    /// As [`render`](Self::render), and if a longer conversation does not begin with the text of a shorter one.
    pub fn render_with_answer_spans(
        &self,
        messages: &[Message],
    ) -> Result<(String, Vec<Range<usize>>), DataError> {
        let whole = self.render(messages, false)?;
        let mut spans = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            if message.role != Role::Assistant {
                continue;
            }
            let before = self.render(&messages[..index], true)?;
            let through = self.render(&messages[..=index], false)?;
            let answer = through
                .strip_prefix(&before)
                .filter(|_| whole.starts_with(&through))
                .ok_or_else(|| DataError::NotPrefixStable {
                    origin: self.origin.clone(),
                    message: index,
                })?;
            spans.push(before.len()..before.len() + answer_length(answer, &message.words()));
        }
        Ok((whole, spans))
    }

    fn compile(
        origin: String,
        source: &str,
        special_tokens: BTreeMap<String, String>,
    ) -> Result<Self, DataError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        template_functions::register(&mut environment);
        environment
            .add_template_owned(NAME, template_functions::without_generation_tags(source))
            .map_err(|source| DataError::CompileTemplate {
                origin: origin.clone(),
                source,
            })?;
        let mut template = Self {
            environment,
            origin,
            source: source.to_owned(),
            reads_parts: true,
            special_tokens,
        };
        template.reads_parts = template.probe();
        Ok(template)
    }

    /// Whether words come through unharmed when a turn is a list of parts.
    ///
    /// A template that prints the list itself would escape the quote; one that treats it as a string fails.
    fn probe(&self) -> bool {
        const WORDS: &str = "a \"quoted\" word";
        let messages = [Message::text(Role::User, WORDS)];
        let survives = |reads_parts| {
            self.render_as(reads_parts, &messages, true)
                .is_ok_and(|text| text.contains(WORDS))
        };
        survives(true) || !survives(false)
    }

    fn render_as(
        &self,
        reads_parts: bool,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, Error> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                if reads_parts {
                    Value::from_serialize(message)
                } else {
                    context! { role => message.role, content => message.as_marked_text() }
                }
            })
            .collect();
        let tokens = Value::from_serialize(&self.special_tokens);
        self.environment.get_template(NAME)?.render(context! {
            messages,
            add_generation_prompt,
            tools => (),
            documents => (),
            ..tokens
        })
    }
}

/// How much of what follows the generation prompt is the words and their stop token.
fn answer_length(answer: &str, words: &str) -> usize {
    let words = words.trim();
    let words_end = answer.find(words).map_or(0, |at| at + words.len());
    let closed = answer.trim_end().len();
    closed.max(words_end)
}

/// Every `…_token` of a tokenizer's configuration that is set.
fn special_tokens(config: &Map<String, serde_json::Value>) -> BTreeMap<String, String> {
    config
        .iter()
        .filter(|(key, _)| key.ends_with("_token"))
        .filter_map(|(key, value)| {
            let token = value.as_str().or_else(|| value.get("content")?.as_str())?;
            Some((key.clone(), token.to_owned()))
        })
        .collect()
}

#[derive(Deserialize)]
struct TemplateFile {
    chat_template: TemplateField,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TemplateField {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl TemplateField {
    fn into_source(self) -> Option<String> {
        match self {
            Self::One(source) => Some(source),
            Self::Named(mut list) => {
                let chosen = list
                    .iter()
                    .position(|item| item.name == "default")
                    .unwrap_or(0);
                (chosen < list.len()).then(|| list.swap_remove(chosen).template)
            }
        }
    }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
