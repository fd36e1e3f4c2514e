//! Finds out what lies in a folder: the Hub's layout, the original LLaVA's, or an adapter over a base.

use crate::checkpoint::weight_files;
use crate::names::{canonical, tower};
use crate::{Checkpoint, WeightsError, lora, original, parse_config};
use serde_json::Value;
use std::path::{Path, PathBuf};
use victor_model::VlmConfig;

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
}

/// How the files of a model are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// The Hub's, and ours.
    Hub,
    /// The original LLaVA's: the prompt's image marker has no id of its own in the config.
    Original,
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
        Err(format!("there is no folder {name}").into())
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
    if adapter.is_none() && !config_path.is_file() {
        return Err(WeightsError::NoCheckpoint { path: dir.into() });
    }
    let projector = dir.join("mm_projector.bin");
    let projector = (adapter.is_none() && weight_files(dir).is_err() && projector.is_file())
        .then_some(projector);
    if adapter.is_none() && projector.is_none() {
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
    source.companions.push(base);
    Ok(source)
}

/// Puts a config and the weights found so far together, and adds the tower where it lies elsewhere.
fn describe(
    dir: &Path,
    config: &Value,
    mut checkpoint: Checkpoint,
    others: &dyn Locate,
) -> Result<Source, WeightsError> {
    let path = dir.join("config.json");
    if !original::is_original(config) {
        return Ok(Source {
            config: parse_config(config, &path)?,
            checkpoint,
            layout: Layout::Hub,
            companions: vec![dir.into()],
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
    let config = original::hub_config(config, &tower_config, &path)?;
    Ok(Source {
        config: parse_config(&config, &path)?,
        checkpoint,
        layout: Layout::Original,
        companions,
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
