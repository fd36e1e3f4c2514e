//! The files of a model, of whatever layout: found, checked against each other, and all but the numbers read.

use crate::gguf_files;
use crate::pictures::check_parts;
use crate::{ModelRef, VictorError};
use std::error::Error;
use std::path::{Path, PathBuf};
use victor_data::{
    BUILT_IN_TEMPLATES, ChatTemplate, DataError, IMAGE_MARKER, ImageProcessor, Tokenizer,
};
use victor_hub::{Event, Hub, HubRef, Location, Progress, RepoId, Revision, Silent, Wanted};
use victor_model::{PictureConfig, VisionFamily, VlmConfig};
use victor_weights::{Layout, Locate, Source};

/// What marks a picture where the vocabulary has no token for it: the original LLaVA's −200.
const UNNAMED_IMAGE_TOKEN: u32 = -200_i32 as u32;

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
    /// Whether the template was named and is not the model's own.
    pub(crate) template_named: bool,
}

impl ModelFiles {
    /// Finds and reads everything but the numbers. What is named by a Hub id is fetched first.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the files do not belong together.
    pub fn open(model: &ModelRef) -> Result<Self, VictorError> {
        Self::open_with(model, &Silent)
    }

    /// As [`open`](Self::open); `progress` is told of what is fetched.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(model: &ModelRef, progress: &dyn Progress) -> Result<Self, VictorError> {
        let mut source = open_source(&Finder { model, progress })?;
        let folders = source.companions.clone();
        let tokenizer = match &source.gguf {
            Some(parts) => gguf_files::tokenizer(parts)?,
            None => first(&folders, Tokenizer::from_dir)?,
        };
        if let (Layout::Original | Layout::Gguf, Some(picture)) =
            (source.layout, &mut source.config.picture)
        {
            let named = tokenizer.token_to_id(IMAGE_MARKER);
            picture.image_token_index = named.unwrap_or(UNNAMED_IMAGE_TOKEN);
        }
        let processor = match (&source.config.picture, &source.gguf) {
            (None, _) => None,
            (Some(_), Some(parts)) => parts.vision.as_ref().map(gguf_files::processor),
            (Some(picture), None) => Some(processor(&source, picture)?),
        };
        if let (Some(picture), Some(processor)) = (&source.config.picture, &processor) {
            check_parts(picture, &tokenizer, processor)?;
        }
        check_vocabulary(&source.config, &tokenizer)?;
        Ok(Self {
            template: template(model, &source, &tokenizer)?,
            template_named: model.chat_template.is_some(),
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
        if self.source.layout == Layout::Hub {
            if self.template_named {
                self.template.save(folder)?;
            }
            return Ok(());
        }
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

/// Reads what a model is made of, and none of the files about text and pictures. Of a model on the
/// Hub only the configs are fetched, if they say all.
///
/// # Errors
/// If there is no such model, or its config is not understood.
pub fn read_config(model: &ModelRef, progress: &dyn Progress) -> Result<VlmConfig, VictorError> {
    let finder = Finder { model, progress };
    let folder = match Location::parse(&model.model)? {
        Location::Hub(HubRef {
            repo,
            revision,
            file: None,
        }) => finder.snapshot(&repo, &revision, &Wanted::Configs)?,
        Location::Hub(_) => return Ok(open_source(&finder)?.config),
        Location::Local(path) => path,
    };
    // A config in the Hub's form says all; any other layout names files that say the rest.
    if model.base.is_none() && !victor_weights::needs_more_than_config(&folder) {
        return Ok(victor_weights::read_config(&folder)?);
    }
    Ok(open_source(&finder)?.config)
}

fn open_source(finder: &Finder) -> Result<Source, VictorError> {
    let path = finder.find(&finder.model.model)?;
    let mmproj = finder.model.mmproj.as_deref();
    let mmproj = mmproj.map(|name| finder.find(name)).transpose()?;
    if path.is_file() {
        return Ok(victor_weights::open_gguf(&path, mmproj.as_deref())?);
    }
    let described = ["config.json", "adapter_config.json"];
    if !described.iter().any(|name| path.join(name).is_file())
        && let Some((decoder, beside)) = victor_weights::gguf_pair(&path)?
    {
        let mmproj = mmproj.or(beside);
        return Ok(victor_weights::open_gguf(&decoder, mmproj.as_deref())?);
    }
    if mmproj.is_some() {
        return Err(VictorError::Option {
            option: "--mmproj",
            found: "given".into(),
            expected: "nothing, beside a model that is no GGUF file",
        });
    }
    Ok(victor_weights::open(&path, finder)?)
}

/// Finds a model and what its checkpoint names and does not hold.
struct Finder<'a> {
    model: &'a ModelRef,
    progress: &'a dyn Progress,
}

impl Finder<'_> {
    /// A folder or file on this machine, fetched if it is named by a Hub id.
    fn find(&self, name: &str) -> Result<PathBuf, VictorError> {
        let HubRef {
            repo,
            revision,
            file,
        } = match Location::parse(name)? {
            Location::Local(path) => return Ok(path),
            Location::Hub(place) => place,
        };
        Ok(match file {
            Some(file) => {
                let wanted = Wanted::Files(vec![file.clone()]);
                self.snapshot(&repo, &revision, &wanted)?.join(file)
            }
            None => self.snapshot(&repo, &revision, &Wanted::Model)?,
        })
    }

    fn snapshot(
        &self,
        repo: &RepoId,
        revision: &Revision,
        wanted: &Wanted,
    ) -> Result<PathBuf, VictorError> {
        let mut builder = Hub::builder()?;
        if self.model.offline {
            builder = builder.offline(true);
        }
        let hub = builder.build()?;
        let snapshot = hub.snapshot(repo, revision, wanted, self.progress)?;
        if let Some(error) = &snapshot.outdated {
            self.progress.event(Event::Outdated { error });
        }
        Ok(snapshot.folder)
    }
}

impl Locate for Finder<'_> {
    fn folder(&self, name: &str) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
        self.find(name).map_err(Into::into)
    }

    fn base(&self) -> Option<&str> {
        self.model.base.as_deref()
    }
}

/// Rows of the embedding may outnumber the tokenizer's tokens, not the other way round.
fn check_vocabulary(config: &VlmConfig, tokenizer: &Tokenizer) -> Result<(), VictorError> {
    let rows = config.text_config.vocab_size;
    let marker = config
        .picture
        .as_ref()
        .map(|picture| picture.image_token_index);
    let id = tokenizer.max_id();
    // The picture's own token is never embedded and may stand behind the last row.
    if id as usize >= rows && Some(id) != marker {
        return Err(VictorError::TokenBeyondVocabulary { id, rows });
    }
    Ok(())
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
    fn absent(error: &DataError) -> bool {
        matches!(
            error,
            DataError::NoSuchFile { .. } | DataError::NoChatTemplate { .. }
        )
    }
    match result {
        Err(error) if absent(&error) => results
            .find(|result| !result.as_ref().is_err_and(absent))
            .unwrap_or(Err(error)),
        result => result,
    }
}

/// The processor of a layout with folders. The original LLaVA's says in the model's config what it
/// does with the tower's processor, and where the tower lies in the checkpoint there is no such file.
fn processor(source: &Source, picture: &PictureConfig) -> Result<ImageProcessor, VictorError> {
    let found = first(&source.companions, ImageProcessor::from_dir);
    if source.layout != Layout::Original {
        return Ok(found?);
    }
    let side = picture.vision_config.image_size as u32;
    let mut processor = match (found, picture.vision_config.family) {
        (Err(DataError::NoSuchFile { .. }), VisionFamily::Clip) => ImageProcessor::clip(side),
        (Err(DataError::NoSuchFile { .. }), VisionFamily::Siglip) => ImageProcessor::siglip(side),
        (found, _) => found?,
    };
    processor.pad_to_square |= source.pads;
    if let Some(pinpoints) = &picture.image_grid_pinpoints {
        let sides = |[height, width]: &[usize; 2]| [*height as u32, *width as u32];
        processor.image_grid_pinpoints = pinpoints.iter().map(sides).collect();
        processor.pad_to_square = false;
    }
    Ok(processor)
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
    if let Some(parts) = &source.gguf {
        return match gguf_files::template(parts, tokenizer)? {
            Some(template) => Ok(template),
            None => {
                Ok(ChatTemplate::built_in(built_in_template(tokenizer))?.with_tokens_of(tokenizer))
            }
        };
    }
    match first(&source.companions, ChatTemplate::from_dir) {
        // The original LLaVA keeps its templates in its program.
        Err(DataError::NoChatTemplate { .. }) if source.layout == Layout::Original => {
            let mistral = source.model_type.contains("mistral");
            let name = if mistral {
                "mistral"
            } else {
                built_in_template(tokenizer)
            };
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
        return tokenizer.end_ids();
    }
    ids
}
