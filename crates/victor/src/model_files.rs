//! The files of a model, of whatever layout: found, checked against each other, and all but the numbers read.

use crate::pictures::check_parts;
use crate::{ModelRef, VictorError};
use std::error::Error;
use std::path::{Path, PathBuf};
use victor_data::{BUILT_IN_TEMPLATES, ChatTemplate, DataError, ImageProcessor, Tokenizer};
use victor_model::VlmConfig;
use victor_weights::{Layout, Locate, Source};

/// What marks a picture in the prompts of checkpoints whose config names no id for it.
const IMAGE_TOKEN: &str = "<image>";

/// A model on disk, ready to be loaded.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// What it is made of, and where its numbers lie.
    pub source: Source,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Conversations to text.
    pub template: ChatTemplate,
    /// Pictures to pixels; `None` for a model that reads text only.
    pub processor: Option<ImageProcessor>,
    /// Ids that end an answer.
    pub stop_ids: Vec<u32>,
}

impl ModelFiles {
    /// Finds and reads everything but the numbers.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the files do not belong together.
    pub fn open(model: &ModelRef) -> Result<Self, VictorError> {
        let mut source = open_source(model)?;
        let folders = source.companions.clone();
        let tokenizer = first(&folders, Tokenizer::from_dir)?;
        if let (Layout::Original, Some(picture)) = (source.layout, &mut source.config.picture) {
            picture.image_token_index =
                tokenizer
                    .token_to_id(IMAGE_TOKEN)
                    .ok_or_else(|| VictorError::NoImageToken {
                        path: folders[0].clone(),
                        id: picture.image_token_index,
                    })?;
        }
        let processor = match &source.config.picture {
            Some(picture) => {
                let processor = first(&folders, ImageProcessor::from_dir)?;
                check_parts(&folders[0], picture, &tokenizer, &processor)?;
                Some(processor)
            }
            None => None,
        };
        Ok(Self {
            template: template(model, &source, &tokenizer)?,
            stop_ids: stop_ids(&folders, &tokenizer),
            source,
            tokenizer,
            processor,
        })
    }

    /// Writes what a folder in the Hub's layout holds and other layouts keep elsewhere.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn save_companions(&self, folder: &Path) -> Result<(), VictorError> {
        self.tokenizer.save(folder)?;
        self.template.save(folder)?;
        if let Some(processor) = &self.processor {
            processor.save(folder)?;
        }
        let path = folder.join("generation_config.json");
        let json = serde_json::json!({ "eos_token_id": self.stop_ids });
        std::fs::write(&path, format!("{json:#}\n"))
            .map_err(|source| DataError::WriteFile { path, source }.into())
    }

    /// What the model is made of.
    pub fn config(&self) -> &VlmConfig {
        &self.source.config
    }
}

/// Reads what a model is made of, and none of the files about text and pictures.
///
/// # Errors
/// If there is no such model, or its config is not understood.
pub fn read_config(model: &ModelRef) -> Result<VlmConfig, VictorError> {
    Ok(open_source(model)?.config)
}

fn open_source(model: &ModelRef) -> Result<Source, VictorError> {
    let dir = PathBuf::from(&model.model);
    if !dir.is_dir() {
        return Err(VictorError::NoSuchModel { path: dir });
    }
    let finder = Finder {
        base: model.base.as_deref(),
    };
    Ok(victor_weights::open(&dir, &finder)?)
}

/// Finds what a checkpoint names and does not hold.
struct Finder<'a> {
    base: Option<&'a str>,
}

impl Locate for Finder<'_> {
    fn folder(&self, name: &str) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
        let path = PathBuf::from(name);
        if path.is_dir() {
            return Ok(path);
        }
        Err(Box::new(VictorError::NoSuchModel { path }))
    }

    fn base(&self) -> Option<&str> {
        self.base
    }
}

/// What the first folder that has it gives; of the errors, the first is told.
fn first<T>(
    folders: &[PathBuf],
    read: impl Fn(&Path) -> Result<T, DataError>,
) -> Result<T, DataError> {
    let mut results = folders.iter().map(|folder| read(folder));
    let Some(result) = results.next() else {
        return read(Path::new("."));
    };
    let absent = |error: &DataError| {
        matches!(
            error,
            DataError::NoSuchFile { .. } | DataError::NoChatTemplate { .. }
        )
    };
    match result {
        Err(error) if absent(&error) => results.find_map(Result::ok).ok_or(error),
        result => result,
    }
}

fn template(
    model: &ModelRef,
    source: &Source,
    tokenizer: &Tokenizer,
) -> Result<ChatTemplate, VictorError> {
    if let Some(name) = &model.chat_template {
        let path = Path::new(name);
        if BUILT_IN_TEMPLATES.contains(&name.as_str()) || !path.is_file() {
            return Ok(ChatTemplate::built_in(name)?.with_tokens_of(tokenizer));
        }
        let jinja = std::fs::read_to_string(path).map_err(|source| DataError::ReadFile {
            path: path.into(),
            source,
        })?;
        return Ok(ChatTemplate::from_source(&jinja, name)?.with_tokens_of(tokenizer));
    }
    match first(&source.companions, ChatTemplate::from_dir) {
        // The original LLaVA keeps its templates in its program.
        Err(DataError::NoChatTemplate { .. }) if source.layout == Layout::Original => {
            let name = built_in_template(tokenizer);
            Ok(ChatTemplate::built_in(name)?.with_tokens_of(tokenizer))
        }
        result => Ok(result?),
    }
}

/// The template the original LLaVA uses with a decoder of this vocabulary.
fn built_in_template(tokenizer: &Tokenizer) -> &'static str {
    if tokenizer.token_to_id("<|im_start|>").is_some() {
        "chatml"
    } else if tokenizer.token_to_id("<|start_header_id|>").is_some() {
        "llama3"
    } else {
        "vicuna_v1"
    }
}

/// The ids that end an answer: those of `generation_config.json`, else the tokenizer's.
fn stop_ids(folders: &[PathBuf], tokenizer: &Tokenizer) -> Vec<u32> {
    let named = folders.iter().find_map(|folder| {
        let text = std::fs::read_to_string(folder.join("generation_config.json")).ok()?;
        let config: serde_json::Value = serde_json::from_str(&text).ok()?;
        config.get("eos_token_id").cloned()
    });
    let number = |value: &serde_json::Value| value.as_u64().map(|id| id as u32);
    let ids: Vec<u32> = match &named {
        Some(serde_json::Value::Array(ids)) => ids.iter().filter_map(number).collect(),
        Some(id) => number(id).into_iter().collect(),
        None => Vec::new(),
    };
    if ids.is_empty() {
        return tokenizer
            .eos()
            .and_then(|eos| tokenizer.token_to_id(eos))
            .into_iter()
            .collect();
    }
    ids
}
