//! The original LLaVA's layout: a flat config, the vision tower named in it and kept elsewhere.
//!
//! Source: `llava/model/llava_arch.py` and `multimodal_encoder/builder.py`.

use crate::{WeightsError, parse_config};
use serde_json::{Map, Value, json};
use std::path::Path;
use victor_model::VlmConfig;

/// Reads a parsed config of the original LLaVA's with that of its vision tower; `path` is named in
/// errors.
///
/// # Errors
/// If the two describe a model this engine does not build.
pub fn parse_original_config(
    original: &Value,
    tower: &Value,
    path: &Path,
) -> Result<VlmConfig, WeightsError> {
    parse_config(&hub_config(original, tower, path)?, path)
}

/// Whether a config is the original LLaVA's.
pub(crate) fn is_original(config: &Value) -> bool {
    config.get("mm_vision_tower").is_some() || config.get("mm_hidden_size").is_some()
}

/// The tower an original config names: a folder beside it, a path or a Hub id.
pub(crate) fn tower_name<'a>(config: &'a Value, path: &Path) -> Result<&'a str, WeightsError> {
    let name = config.get("mm_vision_tower").and_then(Value::as_str);
    name.ok_or_else(|| WeightsError::Config {
        path: path.into(),
        field: "mm_vision_tower".into(),
        found: "missing".into(),
        expected: "the vision tower's folder or Hub id".into(),
    })
}

/// The config in the Hub's form, with the config of its `tower`.
///
/// # Errors
/// If a field has a value that no tower or projector of ours has.
fn hub_config(original: &Value, tower: &Value, path: &Path) -> Result<Value, WeightsError> {
    let fields = original.as_object();
    let text = |field: &str| original.get(field).and_then(Value::as_str);
    let error = |field: &str, found: &str, expected: &str| WeightsError::Config {
        path: path.into(),
        field: field.into(),
        found: format!("`{found}`"),
        expected: expected.into(),
    };
    let mut text_config: Map<String, Value> = fields.cloned().unwrap_or_default();
    text_config.retain(|field, _| !field.starts_with("mm_") && !field.starts_with("image_"));
    let model_type = match text("model_type").unwrap_or("llava") {
        "llava" | "llava_llama" | "llama" => "llama",
        "llava_mistral" | "mistral" => "mistral",
        "llava_qwen" | "llava_qwen2" | "qwen2" => "qwen2",
        other => {
            let expected = "llava_llama, llava_mistral or llava_qwen";
            return Err(error("model_type", other, expected));
        }
    };
    text_config.insert("model_type".into(), json!(model_type));
    // A tower that is already a whole model's config keeps its vision part there.
    let tower = tower.get("vision_config").unwrap_or(tower);
    let tower_type = tower.get("model_type").and_then(Value::as_str);
    let select = match text("mm_vision_select_feature").unwrap_or("patch") {
        // SigLIP has no class token to leave out.
        "patch" if tower_type.is_some_and(|kind| kind.starts_with("siglip")) => "full",
        "patch" => "default",
        "cls_patch" => "full",
        other => {
            let expected = "patch or cls_patch";
            return Err(error("mm_vision_select_feature", other, expected));
        }
    };
    let aspect = text("image_aspect_ratio").unwrap_or("square");
    if !matches!(aspect, "square" | "pad" | "anyres") {
        return Err(error("image_aspect_ratio", aspect, "square, pad or anyres"));
    }
    let merge = text("mm_patch_merge_type").unwrap_or("flat");
    if aspect == "anyres" && merge != "spatial_unpad" {
        return Err(error("mm_patch_merge_type", merge, "spatial_unpad"));
    }
    if original.get("mm_use_im_start_end") == Some(&json!(true)) {
        return Err(error("mm_use_im_start_end", "true", "false"));
    }
    let layer = original.get("mm_vision_select_layer");
    let mut config = json!({
        "model_type": "llava",
        "text_config": text_config,
        "vision_config": tower,
        "vision_feature_layer": layer.cloned().unwrap_or(json!(-2)),
        "vision_feature_select_strategy": select,
        "mm_projector_type": text("mm_projector_type").unwrap_or("linear"),
        "tie_word_embeddings": original.get("tie_word_embeddings").cloned().unwrap_or(json!(false)),
    });
    if aspect == "anyres" {
        config["model_type"] = json!("llava_next");
        config["image_grid_pinpoints"] = original
            .get("image_grid_pinpoints")
            .cloned()
            .unwrap_or(Value::Null);
    }
    if let Some(reduction) = original.get("visual_token_reduction") {
        config["visual_token_reduction"] = reduction.clone();
    }
    Ok(config)
}

/// The configs of towers that LLaVA checkpoints name, for files that hold the tower's weights
/// themselves.
///
/// Source: `config.json` of each on the Hub.
pub(crate) fn known_tower(name: &str) -> Option<Value> {
    let clip = |large: bool, image_size: usize, patch_size: usize| {
        let (hidden, layers, heads) = if large { (1024, 24, 16) } else { (768, 12, 12) };
        json!({
            "model_type": "clip_vision_model", "hidden_size": hidden,
            "intermediate_size": 4 * hidden, "num_hidden_layers": layers,
            "num_attention_heads": heads, "image_size": image_size, "patch_size": patch_size,
        })
    };
    Some(match name {
        "openai/clip-vit-large-patch14-336" => clip(true, 336, 14),
        "openai/clip-vit-large-patch14" => clip(true, 224, 14),
        "openai/clip-vit-base-patch16" => clip(false, 224, 16),
        "openai/clip-vit-base-patch32" => clip(false, 224, 32),
        "google/siglip-base-patch16-224" => json!({"model_type": "siglip_vision_model"}),
        "google/siglip-so400m-patch14-384" => json!({
            "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
            "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
        }),
        _ => return None,
    })
}
