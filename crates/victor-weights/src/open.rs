//! Finds out what lies in a folder: the Hub's layout, the original LLaVA's, or an adapter over a base.

use crate::checkpoint::weight_files;
use crate::formats::MappedFile;
use crate::gguf::{self, GgufFile, Vision};
use crate::names::{canonical, tower};
use crate::{Checkpoint, WeightsError, lora, original, parse_config, parse_original_config};
use serde_json::Value;
use std::path::{Path, PathBuf};
use victor_model::{PictureConfig, VlmConfig};

/// A model on disk: what it is and where its numbers lie.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it is made of.
    pub config: VlmConfig,
    /// Where its numbers lie.
    pub checkpoint: Checkpoint,
    /// How its files are laid out.
    pub layout: Layout,
    /// Folders to look in for the files that say how text and pictures are prepared, best first.
    pub companions: Vec<PathBuf>,
    /// The config's word for the model, or the GGUF file's architecture.
    pub model_type: String,
    /// Whether the config wants pictures padded to a square.
    pub pads: bool,
    /// The files that say so in llama.cpp's layout.
    pub gguf: Option<GgufParts>,
}

/// How the files of a model are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// The Hub's, and ours.
    Hub,
    /// The original LLaVA's: the prompt's image marker has no id of its own in the config.
    Original,
    /// llama.cpp's: a decoder's file, and one for tower and projector. No id either.
    Gguf,
}

/// The files of a model in llama.cpp's layout.
#[derive(Clone, Debug)]
pub struct GgufParts {
    /// The decoder, with the tokenizer's tables.
    pub decoder: GgufFile,
    /// What the `mmproj` file says about pictures, if there is one.
    pub vision: Option<Vision>,
}

/// Finds the folders of models that a checkpoint names: its vision tower, an adapter's base.
pub trait Locate {
    /// The folder of `name`, a path or a Hub id.
    ///
    /// # Errors
    /// If there is none, and where it could be had from.
    fn folder(&self, name: &str) -> Result<PathBuf, Box<dyn std::error::Error + Send + Sync>>;

    /// The base the user named for an adapter, if any; it counts before the one the adapter names.
    fn base(&self) -> Option<&str> {
        None
    }
}

/// Finds nothing but folders on this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalOnly;

impl Locate for LocalOnly {
    fn folder(&self, name: &str) -> Result<PathBuf, Box<dyn std::error::Error + Send + Sync>> {
        let path = PathBuf::from(name);
        if path.is_dir() {
            return Ok(path);
        }
        Err(Box::new(std::io::Error::from(std::io::ErrorKind::NotFound)))
    }
}

/// Opens the model in `dir`, of whatever layout.
///
/// Nothing but headers is read. `others` finds what the files name but do not hold.
///
/// # Errors
/// If a file is missing or damaged, or describes a model this engine does not build.
pub fn open(dir: &Path, others: &dyn Locate) -> Result<Source, WeightsError> {
    let adapter = lora::read_adapter_config(dir)?;
    let config_path = dir.join("config.json");
    let no_weights = matches!(weight_files(dir), Err(WeightsError::NoCheckpoint { .. }));
    let projector = ["mm_projector.safetensors", "mm_projector.bin"]
        .iter()
        .map(|name| dir.join(name))
        .find(|path| adapter.is_none() && no_weights && path.is_file());
    if adapter.is_none() && projector.is_none() {
        if !config_path.is_file() {
            return Err(WeightsError::NoCheckpoint { path: dir.into() });
        }
        if let Some(base) = others.base() {
            return Err(WeightsError::NeedlessBase {
                path: dir.into(),
                base: base.into(),
            });
        }
        let config = read_json(&config_path)?;
        let checkpoint = Checkpoint::open(dir)?;
        return describe(dir, &config, checkpoint, others);
    }

    // An adapter or a projector over a base; LLaVA keeps the whole model's config beside it.
    let named = adapter
        .as_ref()
        .and_then(|adapter| adapter.base_model_name_or_path.clone());
    let own = config_path
        .is_file()
        .then(|| read_json(&config_path))
        .transpose()?;
    let named = others.base().map(String::from).or(named).or_else(|| {
        let name = own.as_ref()?.get("_name_or_path")?.as_str()?;
        Some(name.into())
    });
    let named = named.ok_or_else(|| WeightsError::NoBase { path: dir.into() })?;
    let base = locate(dir, &named, "base model", others)?;
    let mut checkpoint = Checkpoint::open(&base)?;
    let config = match own {
        Some(config) => config,
        None => read_json(&base.join("config.json"))?,
    };
    if let Some(adapter) = adapter {
        lora::apply(&mut checkpoint, dir, &adapter)?;
    }
    if let Some(projector) = projector {
        checkpoint.add_file(&projector, |name| Some(canonical(name)))?;
    }
    let mut source = describe(dir, &config, checkpoint, others)?;
    // Before the tower, which may come with a tokenizer of its own.
    source.companions.insert(1, base);
    Ok(source)
}

/// Whether a model is described by more than a `config.json` in the Hub's form: by GGUF files, by an
/// adapter, or as the original LLaVA's.
pub fn needs_more_than_config(path: &Path) -> bool {
    let config = path.join("config.json");
    if !config.is_file() || path.join("adapter_config.json").is_file() {
        return true;
    }
    read_json(&config).is_ok_and(|config| original::is_original(&config))
}

/// Opens llama.cpp's files: a decoder, and the `mmproj` file of its tower and projector if pictures are
/// to be read.
///
/// # Errors
/// If a file is damaged, or holds a model this engine does not build, or the two do not fit.
pub fn open_gguf(decoder: &Path, mmproj: Option<&Path>) -> Result<Source, WeightsError> {
    let decoder_file = GgufFile::open(decoder)?;
    let text_config = gguf::text_config(&decoder_file)?;
    let mut checkpoint = Checkpoint::empty(decoder);
    checkpoint.add(MappedFile::of_gguf(&decoder_file)?, |name| {
        Some(name.into())
    });
    let mut vision = None;
    if let Some(path) = mmproj {
        let file = GgufFile::open(path)?;
        vision = Some(gguf::vision(&file)?);
        checkpoint.add(MappedFile::of_gguf(&file)?, |name| Some(name.into()));
    }
    let picture = vision.as_ref().map(|vision| PictureConfig {
        vision_config: vision.config.clone(),
        projector: vision.projector,
        vision_feature_layer: vision.feature_layer,
        vision_feature_select_strategy: vision.select,
        image_token_index: 0,
        image_grid_pinpoints: pinpoints(vision),
    });
    Ok(Source {
        config: VlmConfig {
            picture,
            text_config,
            visual_token_reduction: None,
        },
        checkpoint,
        layout: Layout::Gguf,
        companions: Vec::new(),
        model_type: decoder_file.architecture().unwrap_or_default().into(),
        pads: false,
        gguf: Some(GgufParts {
            decoder: decoder_file,
            vision,
        }),
    })
}

/// Grid resolutions, where tiles are put together as LLaVA-NeXT does.
fn pinpoints(vision: &Vision) -> Option<Vec<[usize; 2]>> {
    let sides = |[height, width]: &[u32; 2]| [*height as usize, *width as usize];
    (vision.unpad && !vision.image_grid_pinpoints.is_empty())
        .then(|| vision.image_grid_pinpoints.iter().map(sides).collect())
}

/// The decoder and the `mmproj` file in a folder of GGUF files; `None` if it holds no GGUF file.
///
/// # Errors
/// If a file is damaged, or the folder holds several decoders or several `mmproj` files.
pub fn gguf_pair(dir: &Path) -> Result<Option<(PathBuf, Option<PathBuf>)>, WeightsError> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(WeightsError::io(dir))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "gguf"))
        .collect();
    paths.sort();
    let (mut decoders, mut projectors) = (Vec::new(), Vec::new());
    for path in paths {
        let file = GgufFile::open(&path)?;
        let kind = file.architecture().map_err(WeightsError::gguf(&path))?;
        let list = if kind == "clip" {
            &mut projectors
        } else {
            &mut decoders
        };
        list.push(path);
    }
    if decoders.len() > 1 || projectors.len() > 1 {
        return Err(WeightsError::SeveralGguf {
            path: dir.into(),
            files: decoders.into_iter().chain(projectors).collect(),
        });
    }
    let projector = projectors.pop();
    Ok(decoders.pop().map(|decoder| (decoder, projector)))
}

/// Puts a config and the weights found so far together, and adds the tower where it lies elsewhere.
fn describe(
    dir: &Path,
    config: &Value,
    mut checkpoint: Checkpoint,
    others: &dyn Locate,
) -> Result<Source, WeightsError> {
    let path = dir.join("config.json");
    let model_type = config.get("model_type").and_then(Value::as_str);
    let model_type = model_type.unwrap_or_default().to_string();
    if !original::is_original(config) {
        return Ok(Source {
            config: parse_config(config, &path)?,
            checkpoint,
            layout: Layout::Hub,
            companions: vec![dir.into()],
            model_type,
            pads: config.get("image_aspect_ratio").and_then(Value::as_str) == Some("pad"),
            gguf: None,
        });
    }
    let mut companions = vec![dir.to_path_buf()];
    let name = original::tower_name(config, &path)?;
    let inside = checkpoint
        .names()
        .any(|name| name.starts_with("vision_tower."));
    let tower_config = match original::known_tower(name) {
        Some(known) if inside => known,
        _ => {
            let folder = locate(dir, name, "vision tower", others)?;
            if !inside {
                for file in weight_files(&folder)? {
                    checkpoint.add_file(&file, tower)?;
                }
            }
            let tower_config = read_json(&folder.join("config.json"))?;
            companions.push(folder);
            tower_config
        }
    };
    let pads = config.get("image_aspect_ratio").and_then(Value::as_str) == Some("pad");
    Ok(Source {
        config: parse_original_config(config, &tower_config, &path)?,
        checkpoint,
        layout: Layout::Original,
        companions,
        model_type,
        pads,
        gguf: None,
    })
}

/// A folder beside the checkpoint, else what `others` finds.
fn locate(
    dir: &Path,
    name: &str,
    what: &'static str,
    others: &dyn Locate,
) -> Result<PathBuf, WeightsError> {
    let beside = dir.join(name);
    if beside.is_dir() {
        return Ok(beside);
    }
    others
        .folder(name)
        .map_err(|source| WeightsError::Elsewhere {
            path: dir.into(),
            what,
            name: name.into(),
            source,
        })
}

fn read_json(path: &Path) -> Result<Value, WeightsError> {
    let text = std::fs::read_to_string(path).map_err(WeightsError::io(path))?;
    serde_json::from_str(&text).map_err(|source| WeightsError::Json {
        path: path.into(),
        source,
    })
}
