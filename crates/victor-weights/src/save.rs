//! Writes a model as safetensors with the files a checkpoint needs beside them.

use crate::WeightsError;
use crate::config_json::config_json;
use crate::names::{hub, of_module_path};
use crate::replace::Replacement;
use crate::write::{Outgoing, Storage, write_tensors};
use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use serde_json::Value;
use std::fs;
use std::path::Path;
use victor_model::{VictorBackend, VisionFamily, Vlm, VlmConfig};

/// How a checkpoint is written.
#[derive(Clone, Debug, Default)]
pub struct SaveOptions {
    /// How numbers are stored.
    pub storage: Storage,
    /// The most bytes a file may hold; `None` writes one file.
    pub max_shard_bytes: Option<usize>,
}

/// Files that describe a checkpoint besides its config and weights.
pub(crate) const COMPANIONS: [&str; 10] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
];

/// Writes `model` to `out`, with the tokenizer and processor files of `source`.
///
/// The folder is written beside `out` and renamed when it is whole; an `out` that exists is replaced
/// then, not before.
///
/// # Errors
/// If a file cannot be read or written.
pub fn save<B: VictorBackend>(
    model: &Vlm<B>,
    source: &Path,
    out: &Path,
    options: &SaveOptions,
) -> Result<(), WeightsError> {
    let replacement = Replacement::of(out)?;
    copy_companions(source, replacement.path())?;
    write_config(model.config(), pads(source), replacement.path())?;
    let mut collector = Collector {
        family: tower_family(model.config()),
        path: Vec::new(),
        tensors: Vec::new(),
    };
    model.visit(&mut collector);
    write_tensors(
        &collector.tensors,
        options.storage,
        options.max_shard_bytes,
        replacement.path(),
        &|_, _| {},
    )?;
    replacement.finish()
}

/// Copies what stands beside a checkpoint's config and weights, without replacing what is there.
pub(crate) fn copy_companions(source: &Path, out: &Path) -> Result<(), WeightsError> {
    for file in COMPANIONS {
        let (from, to) = (source.join(file), out.join(file));
        if from.is_file() && !to.exists() {
            fs::copy(&from, to).map_err(WeightsError::io(&from))?;
        }
    }
    Ok(())
}

/// Writes the config, with the tower cut to the layers a loaded model holds.
pub(crate) fn write_config(config: &VlmConfig, pads: bool, out: &Path) -> Result<(), WeightsError> {
    let mut config = config.clone();
    if let Some(picture) = &mut config.picture {
        let layers = picture.vision_layers();
        if layers != picture.vision_config.num_hidden_layers {
            picture.vision_config.num_hidden_layers = layers;
            picture.vision_feature_layer = -1;
        }
    }
    let path = out.join("config.json");
    let mut json = config_json(&config);
    if pads {
        // A setting of the processor that stands here in some checkpoints.
        json["image_aspect_ratio"] = "pad".into();
    }
    let text = format!("{json:#}\n");
    fs::write(&path, text).map_err(WeightsError::io(&path))
}

/// Whether a folder's config wants pictures padded to a square.
fn pads(source: &Path) -> bool {
    let text = fs::read_to_string(source.join("config.json"));
    let json = text
        .ok()
        .and_then(|text| serde_json::from_str::<Value>(&text).ok());
    json.is_some_and(|json| json["image_aspect_ratio"] == "pad")
}

pub(crate) fn tower_family(config: &VlmConfig) -> Option<VisionFamily> {
    let picture = config.picture.as_ref()?;
    Some(picture.vision_config.family)
}

/// The shape a tensor has in files: transformers keeps a leading axis on some of DINOv2's.
pub(crate) fn stored_shape(name: &str, shape: &[usize]) -> Vec<usize> {
    if name.ends_with("cls_token") {
        let hidden = shape.last().copied().unwrap_or(1);
        return vec![1, 1, hidden];
    }
    if name.ends_with("position_embeddings") {
        return [&[1], shape].concat();
    }
    shape.to_vec()
}

struct Collector {
    family: Option<VisionFamily>,
    path: Vec<String>,
    tensors: Vec<Outgoing<'static>>,
}

impl<B: Backend> ModuleVisitor<B> for Collector {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let name = hub(&of_module_path(&self.path), self.family);
        let tensor = param.val();
        let shape = stored_shape(&name, &tensor.dims());
        let read = move || {
            let data = tensor.clone().into_data().convert::<f32>();
            Ok(data.as_slice().unwrap_or_default().to_vec())
        };
        self.tensors.push(Outgoing {
            name,
            shape,
            read: Box::new(read),
        });
    }
}
