//! Low-rank changes (LoRA) over a base: `W + alpha / r · B · A`, added as a tensor is read.
//!
//! Source: PEFT's `adapter_config.json` and `adapter_model.{safetensors,bin}`.

use crate::WeightsError;
use crate::checkpoint::{Checkpoint, TensorView};
use crate::names::canonical;
use rayon::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What PEFT writes in front of a model's own names.
const PREFIX: &str = "base_model.model.";

/// The change of one matrix.
#[derive(Clone, Debug)]
pub(crate) struct Delta {
    /// `[rank, in]`
    a: Vec<f32>,
    /// `[out, rank]`
    b: Vec<f32>,
    rank: usize,
    scale: f32,
    path: PathBuf,
}

/// The fields of `adapter_config.json` that are used.
#[derive(Debug, Deserialize)]
pub(crate) struct AdapterConfig {
    r: usize,
    lora_alpha: f32,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f32>,
    #[serde(default)]
    rank_pattern: BTreeMap<String, usize>,
    peft_type: Option<String>,
    /// The model it changes: a folder or a Hub id.
    pub(crate) base_model_name_or_path: Option<String>,
}

/// Reads `adapter_config.json`, if the folder has one.
///
/// # Errors
/// If it does not parse, or asks for a kind of change that is not computed.
pub(crate) fn read_adapter_config(dir: &Path) -> Result<Option<AdapterConfig>, WeightsError> {
    let path = dir.join("adapter_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(WeightsError::io(&path))?;
    let config: AdapterConfig =
        serde_json::from_str(&text).map_err(|source| WeightsError::Json {
            path: path.clone(),
            source,
        })?;
    let unread = |field: &str, found: String, expected: &str| WeightsError::Config {
        path: path.clone(),
        field: field.into(),
        found,
        expected: expected.into(),
    };
    if config.r == 0 {
        return Err(unread("r", "0".into(), "a rank of at least one"));
    }
    if config.use_dora {
        return Err(unread(
            "use_dora",
            "true".into(),
            "false: plain LoRA is read",
        ));
    }
    if let Some(kind) = config.peft_type.as_deref().filter(|kind| *kind != "LORA") {
        return Err(unread("peft_type", format!("`{kind}`"), "LORA"));
    }
    if !config.alpha_pattern.is_empty() || !config.rank_pattern.is_empty() {
        let found = "not empty".into();
        return Err(unread(
            "alpha_pattern or rank_pattern",
            found,
            "one rank and alpha for all",
        ));
    }
    if config.fan_in_fan_out {
        let expected = "false: weights are [out, in]";
        return Err(unread("fan_in_fan_out", "true".into(), expected));
    }
    Ok(Some(config))
}

/// Puts the adapter in `dir` over `base`: low-rank changes, and the tensors it trained whole
/// (`non_lora_trainables.bin`, as LLaVA names its file of projector and registers).
///
/// # Errors
/// If a file is missing or damaged, or a change has no matrix to change.
pub(crate) fn apply(
    base: &mut Checkpoint,
    dir: &Path,
    config: &AdapterConfig,
) -> Result<(), WeightsError> {
    let names = ["adapter_model.safetensors", "adapter_model.bin"];
    let path = names
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.is_file());
    let path = path.ok_or_else(|| WeightsError::NoAdapter { path: dir.into() })?;
    let whole = ["non_lora_trainables.safetensors", "non_lora_trainables.bin"]
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.is_file());
    if let Some(whole) = whole {
        base.add_file(&whole, |name| Some(trained_name(name)))?;
    }
    let rank = config.r as f32;
    let scale = config.lora_alpha / if config.use_rslora { rank.sqrt() } else { rank };
    // PEFT keeps modules it trained whole (`modules_to_save`) beside the changes.
    base.add_file(&path, |name| {
        (!name.contains(".lora_")).then(|| trained_name(name))
    })?;
    let mut adapter = Checkpoint::empty(dir);
    adapter.add_file(&path, |name| Some(name.into()))?;
    let names: Vec<String> = adapter.names().map(String::from).collect();
    for name in &names {
        let Some((module, rest)) = name.split_once(".lora_A.") else {
            let half = name.contains(".lora_B.") && name.ends_with("weight");
            if name.contains(".lora_") && !half {
                return Err(WeightsError::AdapterPart {
                    path,
                    name: name.clone(),
                });
            }
            continue;
        };
        let changed = canonical(&format!("{}.weight", module.trim_start_matches(PREFIX)));
        let missing = |name: String| WeightsError::Missing {
            path: path.clone(),
            names: vec![name],
        };
        if base.get(&changed).is_none() {
            return Err(missing(changed));
        }
        let pair = format!("{module}.lora_B.{rest}");
        let rank = adapter
            .get(name)
            .map_or(0, |a| a.shape.first().copied().unwrap_or(0));
        let delta = Delta {
            a: adapter.read_f32(name)?.unwrap_or_default(),
            b: adapter.read_f32(&pair)?.ok_or_else(|| missing(pair))?,
            rank,
            scale,
            path: path.clone(),
        };
        base.deltas.insert(changed, delta);
    }
    Ok(())
}

/// Our name of a tensor that was trained whole.
fn trained_name(name: &str) -> String {
    let name = name.trim_start_matches(PREFIX);
    canonical(&name.replace(".modules_to_save.default", ""))
}

impl Delta {
    /// Adds the change to the matrix `base` shows, given as `values`.
    pub(crate) fn add_to(
        &self,
        values: &mut [f32],
        base: TensorView<'_>,
    ) -> Result<(), WeightsError> {
        let width = base.shape.last().copied().unwrap_or(0);
        let rows = values.len().checked_div(width).unwrap_or(0);
        let found = vec![self.b.len(), self.a.len()];
        let expected = vec![rows * self.rank, self.rank * width];
        if found != expected || self.rank == 0 {
            return Err(WeightsError::Shape {
                path: self.path.clone(),
                name: format!("lora_B and lora_A of {}", base.name),
                found,
                expected,
            });
        }
        values
            .par_chunks_exact_mut(width)
            .zip(self.b.par_chunks_exact(self.rank))
            .for_each(|(row, b)| {
                for (b, a) in b.iter().zip(self.a.chunks_exact(width)) {
                    let factor = self.scale * b;
                    row.iter_mut()
                        .zip(a)
                        .for_each(|(value, a)| *value += factor * a);
                }
            });
        Ok(())
    }
}
