//! Writes a model as safetensors with the files a checkpoint needs beside them.

use crate::WeightsError;
use crate::hf_defaults;
use crate::names::{hub, of_module_path};
use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use victor_model::{VictorBackend, Vlm, VlmConfig};

/// How numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats.
    F16,
    /// Matrices as 8-bit integers with one float scale a row (`NAME_scale`), the rest as 16-bit
    /// floats.
    Int8,
}

/// How a checkpoint is written.
#[derive(Clone, Debug, Default)]
pub struct SaveOptions {
    /// How numbers are stored.
    pub storage: Storage,
    /// The most bytes a file may hold; `None` writes one file.
    pub max_shard_bytes: Option<usize>,
}

/// Files that describe a checkpoint besides its config and weights.
const COMPANIONS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
];

/// Writes `model` to `out`, with the config and the tokenizer and processor files of `source`.
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
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    if name.is_empty() || !replaceable(out) {
        return Err(WeightsError::NotReplaceable { path: out.into() });
    }
    let partial = out.with_file_name(format!(".{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(WeightsError::io(&partial))?;
    }
    fs::create_dir_all(&partial).map_err(WeightsError::io(&partial))?;
    write_config(model.config(), source, &partial)?;
    for file in COMPANIONS {
        let from = source.join(file);
        if from.is_file() {
            fs::copy(&from, partial.join(file)).map_err(WeightsError::io(&from))?;
        }
    }
    let mut writer = Collector {
        config: model.config(),
        storage: options.storage,
        path: Vec::new(),
        tensors: Vec::new(),
    };
    model.visit(&mut writer);
    write_shards(writer.tensors, &partial, options.max_shard_bytes)?;
    replace(&partial, out)
}

/// The source's config, with the tower cut to the layers the model holds.
fn write_config(config: &VlmConfig, source: &Path, out: &Path) -> Result<(), WeightsError> {
    let path = source.join("config.json");
    let text = fs::read_to_string(&path).map_err(WeightsError::io(&path))?;
    let mut json: Value = serde_json::from_str(&text).map_err(|source| WeightsError::Json {
        path: path.clone(),
        source,
    })?;
    if let Some(root) = json.as_object_mut() {
        if let Some(picture) = &config.picture
            && picture.vision_layers() != picture.vision_config.num_hidden_layers
        {
            let layers = picture.vision_layers();
            root.insert("vision_feature_layer".into(), json!(-1));
            let vision = root
                .entry("vision_config")
                .or_insert_with(hf_defaults::llava_vision);
            if let Some(vision) = vision.as_object_mut() {
                vision.insert("num_hidden_layers".into(), json!(layers));
            }
        }
        match &config.visual_token_reduction {
            Some(reduction) => {
                let mut value = json!(reduction);
                value["type"] = json!("victor");
                root.insert("visual_token_reduction".into(), value);
            }
            None => {
                root.remove("visual_token_reduction");
            }
        }
    }
    let path = out.join("config.json");
    let text = format!("{json:#}\n");
    fs::write(&path, text).map_err(WeightsError::io(&path))
}

struct Stored {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
}

struct Collector<'a> {
    config: &'a VlmConfig,
    storage: Storage,
    path: Vec<String>,
    tensors: Vec<Stored>,
}

impl Collector<'_> {
    fn push(&mut self, name: &str, shape: Vec<usize>, dtype: Dtype, bytes: Vec<u8>) {
        self.tensors.push(Stored {
            name: name.into(),
            shape,
            dtype,
            bytes,
        });
    }
}

impl<B: Backend> ModuleVisitor<B> for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let tower = self.config.picture.as_ref();
        let tower = tower.map(|picture| picture.vision_config.family);
        let name = hub(&of_module_path(&self.path), tower);
        let tensor = param.val();
        let mut shape = tensor.dims().to_vec();
        if name.ends_with("cls_token") || name.ends_with("position_embeddings") {
            // transformers keeps these as [1, rows, hidden].
            let hidden = shape.pop().unwrap_or(1);
            let rows = shape.pop().unwrap_or(1);
            shape = vec![1, rows, hidden];
        }
        let data = tensor.into_data().convert::<f32>();
        let values: &[f32] = data.as_slice().unwrap_or_default();
        match self.storage {
            Storage::F32 => {
                let bytes = bytemuck::cast_slice(values).to_vec();
                self.push(&name, shape, Dtype::F32, bytes);
            }
            Storage::Int8 if D == 2 && name != "visual_registers" => {
                let (rows, scales) = quantise_rows(values, shape[shape.len() - 1]);
                let scale_shape = vec![scales.len(), 1];
                let scales = bytemuck::cast_slice(&scales).to_vec();
                self.push(&name, shape, Dtype::I8, rows);
                self.push(&format!("{name}_scale"), scale_shape, Dtype::F32, scales);
            }
            Storage::F16 | Storage::Int8 => {
                let half = values
                    .iter()
                    .flat_map(|value| f16::from_f32(*value).to_le_bytes());
                self.push(&name, shape, Dtype::F16, half.collect());
            }
        }
    }
}

/// Rounds every row to `[-127, 127]` times its own scale.
fn quantise_rows(values: &[f32], width: usize) -> (Vec<u8>, Vec<f32>) {
    let mut rows = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len() / width.max(1));
    for row in values.chunks_exact(width) {
        let largest = row
            .iter()
            .fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        rows.extend(row.iter().map(|value| (value / scale).round() as i8 as u8));
        scales.push(scale);
    }
    (rows, scales)
}

fn write_shards(
    tensors: Vec<Stored>,
    dir: &Path,
    max_bytes: Option<usize>,
) -> Result<(), WeightsError> {
    let shards = split(tensors, max_bytes.unwrap_or(usize::MAX));
    if let [single] = shards.as_slice() {
        return write_file(single, &dir.join("model.safetensors"));
    }
    let mut weight_map = Map::new();
    let mut total = 0;
    for (index, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", index + 1, shards.len());
        write_file(shard, &dir.join(&name))?;
        for tensor in shard {
            total += tensor.bytes.len();
            weight_map.insert(tensor.name.clone(), json!(name));
        }
    }
    let path = dir.join("model.safetensors.index.json");
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    fs::write(&path, format!("{index:#}\n")).map_err(WeightsError::io(&path))
}

fn split(tensors: Vec<Stored>, max_bytes: usize) -> Vec<Vec<Stored>> {
    let mut shards = vec![Vec::new()];
    let mut size = 0;
    for tensor in tensors {
        let last = shards.len() - 1;
        if size + tensor.bytes.len() > max_bytes && !shards[last].is_empty() {
            shards.push(Vec::new());
            size = 0;
        }
        size += tensor.bytes.len();
        let last = shards.len() - 1;
        shards[last].push(tensor);
    }
    shards
}

fn write_file(tensors: &[Stored], path: &Path) -> Result<(), WeightsError> {
    let mut views = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).map_err(
            |source| WeightsError::Header {
                path: path.into(),
                source,
            },
        )?;
        views.push((tensor.name.as_str(), view));
    }
    safetensors::serialize_to_file(views, None, path).map_err(|source| WeightsError::Header {
        path: path.into(),
        source,
    })
}

/// Whether nothing is lost when `out` is replaced: it is absent, empty, or a checkpoint.
fn replaceable(out: &Path) -> bool {
    if out.join("config.json").is_file() || !out.exists() {
        return true;
    }
    fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none())
}

/// Puts `partial` in the place of `out`.
fn replace(partial: &Path, out: &Path) -> Result<(), WeightsError> {
    let old: PathBuf = partial.with_extension("old");
    if out.exists() {
        if old.exists() {
            fs::remove_dir_all(&old).map_err(WeightsError::io(&old))?;
        }
        fs::rename(out, &old).map_err(WeightsError::io(out))?;
    }
    fs::rename(partial, out).map_err(WeightsError::io(out))?;
    if old.exists() {
        fs::remove_dir_all(&old).map_err(WeightsError::io(&old))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_own_scale() {
        let (rows, scales) = quantise_rows(&[1.27, -0.635, 0.0, 0.0, 254.0, 127.0], 2);
        assert_eq!(
            rows.iter().map(|byte| *byte as i8).collect::<Vec<_>>(),
            [127, -64, 0, 0, 127, 64]
        );
        assert!((scales[0] - 0.01).abs() < 1e-7 && scales[1] == 1.0 && scales[2] == 2.0);
    }
}
