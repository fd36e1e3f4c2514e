//! Reads a Hub `config.json` and fills in what it leaves out.

use crate::WeightsError;
use crate::section::Section;
use crate::{hf_defaults, original};
use serde_json::{Map, Value};
use std::path::Path;
use victor_model::{
    Activation, PictureConfig, ProjectorConfig, ReductionConfig, RopeConfig, RopeScaling,
    TextConfig, VisionConfig, VisionFamily, VisionSelect, VlmConfig,
};

/// Reads `config.json` of a checkpoint folder.
///
/// # Errors
/// If the file is missing, is not JSON, or describes a model this engine does not build.
pub fn read_config(dir: &Path) -> Result<VlmConfig, WeightsError> {
    let path = dir.join("config.json");
    if !path.is_file() {
        return Err(WeightsError::NoCheckpoint { path: dir.into() });
    }
    let text = std::fs::read_to_string(&path).map_err(WeightsError::io(&path))?;
    let value = serde_json::from_str(&text).map_err(|source| WeightsError::Json {
        path: path.clone(),
        source,
    })?;
    parse_config(&value, &path)
}

/// Reads a parsed config; `path` is named in errors.
///
/// # Errors
/// If it describes a model this engine does not build.
pub fn parse_config(config: &Value, path: &Path) -> Result<VlmConfig, WeightsError> {
    let root = Section::new(path, "", config)?;
    if original::is_original(config) && root.get("text_config").is_none() {
        let expected = "a config in the Hub's form: this is the original LLaVA's layout, which `victor convert` writes anew";
        return Err(root.error("mm_vision_tower", expected));
    }
    let (picture, text_config) = match root.text("model_type", None)? {
        kind @ ("llava" | "llava_next") => {
            let text = root.section("text_config", Value::Object(Map::new()))?;
            let text_config = text_config(text, root.boolean("tie_word_embeddings", false)?)?;
            (Some(picture(&root, kind == "llava_next")?), text_config)
        }
        kind if hf_defaults::text(kind).is_some() => {
            (None, text_config(Section::new(path, "", config)?, false)?)
        }
        _ => return Err(root.error("model_type", MODEL_TYPES)),
    };
    let visual_token_reduction = reduction(&root, &text_config)?;
    if picture.is_none() && visual_token_reduction.is_some() {
        return Err(root.error(
            "visual_token_reduction",
            "nothing: this model has no vision tower and hence no visual tokens",
        ));
    }
    Ok(VlmConfig {
        picture,
        text_config,
        visual_token_reduction,
    })
}

/// What `model_type` may be.
const MODEL_TYPES: &str = "llava, llava_next, or for a decoder alone llama, mistral or qwen2";

fn picture(root: &Section, tiles: bool) -> Result<PictureConfig, WeightsError> {
    let vision = root.section("vision_config", hf_defaults::llava_vision())?;
    let vision_config = vision_config(vision)?;
    let vision_feature_layer = root.integer("vision_feature_layer", Some(-2))?;
    let states = vision_config.num_hidden_layers as i64 + 1;
    if vision_feature_layer >= states || vision_feature_layer < -states {
        return Err(root.error(
            "vision_feature_layer",
            "a hidden state the vision tower has",
        ));
    }
    let image_token = match root.get("image_token_index") {
        Some(_) => "image_token_index",
        None => "image_token_id",
    };
    let select = root.text("vision_feature_select_strategy", Some("default"))?;
    let picture = PictureConfig {
        vision_feature_layer,
        vision_feature_select_strategy: match select {
            "default" => VisionSelect::Default,
            "full" => VisionSelect::Full,
            _ => return Err(root.error("vision_feature_select_strategy", "default or full")),
        },
        image_token_index: root.integer(image_token, Some(32000))? as u32,
        projector: projector(root)?,
        image_grid_pinpoints: tiles
            .then(|| pinpoints(root, vision_config.image_size))
            .transpose()?,
        vision_config,
    };
    let (side, vision) = (picture.vision_config.image_size, &picture.vision_config);
    if tiles && picture.visual_tokens_of(side, side) != vision.num_patches() {
        return Err(root.error(
            "vision_feature_select_strategy",
            "one that leaves the patches alone (`default` for a tower with a class token, `full` for one \
             without): tiles are put together from patches",
        ));
    }
    if picture.visual_tokens() == 0 {
        return Err(root.error("vision_feature_select_strategy", "one that leaves a patch"));
    }
    Ok(picture)
}

/// LLaVA-NeXT's grid resolutions, `[height, width]` each, for tiles of `side` pixels.
fn pinpoints(root: &Section, side: usize) -> Result<Vec<[usize; 2]>, WeightsError> {
    const FIELD: &str = "image_grid_pinpoints";
    let default = hf_defaults::image_grid_pinpoints();
    let value = root.get(FIELD).unwrap_or(&default);
    let pinpoints: Option<Vec<[usize; 2]>> = serde_json::from_value(value.clone()).ok();
    let usable = |pinpoints: &Vec<[usize; 2]>| {
        let whole = |pixels: &usize| (1..=1 << 14).contains(pixels) && pixels.is_multiple_of(side);
        !pinpoints.is_empty() && pinpoints.iter().flatten().all(whole)
    };
    pinpoints.filter(usable).ok_or_else(|| {
        root.error(
            FIELD,
            "a list of [height, width], multiples of the tower's image_size",
        )
    })
}

fn projector(root: &Section) -> Result<ProjectorConfig, WeightsError> {
    let bias = root.boolean("multimodal_projector_bias", true)?;
    match root.text("mm_projector_type", Some("mlp2x_gelu"))? {
        "linear" => Ok(ProjectorConfig::Linear { bias }),
        "mlp2x_gelu" => Ok(ProjectorConfig::Mlp {
            activation: activation(root, "projector_hidden_act", "gelu")?,
            bias,
        }),
        _ => Err(root.error("mm_projector_type", "mlp2x_gelu or linear")),
    }
}

fn reduction(root: &Section, text: &TextConfig) -> Result<Option<ReductionConfig>, WeightsError> {
    let Some(value) = root.get("visual_token_reduction") else {
        return Ok(None);
    };
    let section = Section::new(root.path, "visual_token_reduction", value)?;
    match section.text("type", None)? {
        "none" => return Ok(None),
        "victor" => {}
        _ => return Err(section.error("type", "victor or none")),
    }
    let positions = match section.get("positions") {
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|_| section.error("positions", "original or compact"))?,
        None => Default::default(),
    };
    let reduction = ReductionConfig {
        num_registers: section.natural("num_registers", None)?,
        drop_layer: section.size("drop_layer", None)?,
        positions,
    };
    if reduction.drop_layer > text.num_hidden_layers {
        let layers = format!(
            "1 to {} (the number of layers: never drops)",
            text.num_hidden_layers
        );
        return Err(section.error("drop_layer", &layers));
    }
    Ok(Some(reduction))
}

fn text_config(mut text: Section, tied: bool) -> Result<TextConfig, WeightsError> {
    let model_type = text.text("model_type", Some("llama"))?.to_string();
    let defaults = hf_defaults::text(&model_type);
    text.defaults = defaults.ok_or_else(|| text.error("model_type", hf_defaults::TEXT_TYPES))?;
    let heads = text.size("num_attention_heads", None)?;
    let hidden_size = text.size("hidden_size", None)?;
    let bias = text.boolean("attention_bias", false)?;
    let mut config = TextConfig {
        hidden_size,
        intermediate_size: text.size("intermediate_size", None)?,
        num_hidden_layers: text.size("num_hidden_layers", None)?,
        num_attention_heads: heads,
        num_key_value_heads: text.size("num_key_value_heads", Some(heads))?,
        head_dim: text.size("head_dim", Some(hidden_size / heads))?,
        vocab_size: text.size("vocab_size", None)?,
        rms_norm_eps: text.number("rms_norm_eps", None)?,
        rope: rope(&text)?,
        max_position_embeddings: text.size("max_position_embeddings", None)?,
        qkv_bias: bias || model_type == "qwen2",
        output_bias: bias,
        mlp_bias: text.boolean("mlp_bias", false)?,
        tie_word_embeddings: text.boolean("tie_word_embeddings", tied)?,
    };
    if heads % config.num_key_value_heads != 0 {
        return Err(text.error("num_key_value_heads", "a divisor of num_attention_heads"));
    }
    if !config.head_dim.is_multiple_of(2) {
        return Err(text.error("head_dim", "an even number"));
    }
    if text.text("hidden_act", Some("silu"))? != "silu" {
        return Err(text.error("hidden_act", "silu"));
    }
    let windowed = match model_type.as_str() {
        "mistral" => text.get("sliding_window").is_some(),
        _ => text.boolean("use_sliding_window", false)? && text.get("sliding_window").is_some(),
    };
    if windowed {
        // Within one window, windowed attention is full attention, which is all that is computed here.
        let window = text.size("sliding_window", None)?;
        config.max_position_embeddings = config.max_position_embeddings.min(window);
    }
    Ok(config)
}

fn rope(text: &Section) -> Result<RopeConfig, WeightsError> {
    // transformers 5 keeps theta and scaling together, transformers 4 apart.
    let (theta, scaling) = match text.get("rope_parameters") {
        Some(parameters) => {
            let section = Section::new(text.path, "text_config.rope_parameters", parameters)?;
            (section.number("rope_theta", Some(10_000.0))?, Some(section))
        }
        None => {
            let scaling = text.get("rope_scaling");
            let section = scaling
                .map(|value| Section::new(text.path, "text_config.rope_scaling", value))
                .transpose()?;
            (text.number("rope_theta", Some(10_000.0))?, section)
        }
    };
    let Some(section) = scaling else {
        return Ok(RopeConfig {
            theta,
            scaling: None,
        });
    };
    let key = if section.get("rope_type").is_some() {
        "rope_type"
    } else {
        "type"
    };
    let scaling = match section.text(key, Some("default"))? {
        "default" => None,
        "linear" => Some(RopeScaling::Linear {
            factor: section.number("factor", None)?,
        }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: section.number("factor", None)?,
            low_freq_factor: section.number("low_freq_factor", None)?,
            high_freq_factor: section.number("high_freq_factor", None)?,
            original_max_position_embeddings: section
                .number("original_max_position_embeddings", None)?,
        }),
        // Ours, for what GGUF files say and configs have no word for.
        "factors" => {
            let factors = section.get("factors").cloned().unwrap_or_default();
            let factors: Option<Vec<f64>> = serde_json::from_value(factors).ok();
            let factors = factors.filter(|factors| {
                !factors.is_empty() && factors.iter().all(|factor| *factor > 0.0)
            });
            let expected = "positive numbers, one for each pair of a head's elements";
            RopeScaling::Factors {
                factors: factors.ok_or_else(|| section.error("factors", expected))?,
            }
            .into()
        }
        _ => return Err(section.error(key, "default, linear, llama3 or factors")),
    };
    Ok(RopeConfig { theta, scaling })
}

fn vision_config(mut vision: Section) -> Result<VisionConfig, WeightsError> {
    let model_type = vision
        .text("model_type", Some("clip_vision_model"))?
        .to_string();
    let defaults = hf_defaults::vision(&model_type);
    vision.defaults =
        defaults.ok_or_else(|| vision.error("model_type", hf_defaults::VISION_TYPES))?;
    let hidden_size = vision.size("hidden_size", None)?;
    let family = match model_type.as_str() {
        "dinov2" => VisionFamily::Dinov2,
        "siglip_vision_model" => VisionFamily::Siglip,
        _ => VisionFamily::Clip,
    };
    let intermediate_size = match family {
        VisionFamily::Clip | VisionFamily::Siglip => vision.size("intermediate_size", None)?,
        VisionFamily::Dinov2 => {
            let wide = (hidden_size as f64 * vision.number("mlp_ratio", None)?) as usize;
            if !(1..=Section::LARGEST).contains(&wide) {
                return Err(vision.error("mlp_ratio", "a ratio that gives a width"));
            }
            wide
        }
    };
    if vision.boolean("use_swiglu_ffn", false)? {
        return Err(vision.error(
            "use_swiglu_ffn",
            "false: the gated feed-forward is not built",
        ));
    }
    let config = VisionConfig {
        family,
        hidden_size,
        intermediate_size,
        num_hidden_layers: vision.size("num_hidden_layers", None)?,
        num_attention_heads: vision.size("num_attention_heads", None)?,
        image_size: vision.size("image_size", None)?,
        patch_size: vision.size("patch_size", None)?,
        num_channels: vision.size("num_channels", None)?,
        layer_norm_eps: vision.number("layer_norm_eps", None)?,
        hidden_act: activation(&vision, "hidden_act", "quick_gelu")?,
    };
    if hidden_size % config.num_attention_heads != 0 {
        return Err(vision.error("num_attention_heads", "a divisor of hidden_size"));
    }
    if config.num_channels != 3 {
        return Err(vision.error("num_channels", "3: pictures are RGB"));
    }
    if config.patch_size > config.image_size {
        return Err(vision.error("patch_size", "at most image_size"));
    }
    Ok(config)
}

fn activation(section: &Section, field: &str, default: &str) -> Result<Activation, WeightsError> {
    match section.text(field, Some(default))? {
        "gelu" => Ok(Activation::Gelu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        "quick_gelu" => Ok(Activation::QuickGelu),
        _ => Err(section.error(field, "gelu, gelu_pytorch_tanh or quick_gelu")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(config: Value) -> Result<VlmConfig, String> {
        parse_config(&config, Path::new("config.json")).map_err(|error| error.to_string())
    }

    #[test]
    fn llava_15_leaves_out_every_default() {
        let config = parse(json!({
            "model_type": "llava", "image_token_index": 32000,
            "text_config": {"model_type": "llama", "max_position_embeddings": 4096,
                            "rms_norm_eps": 1e-5, "vocab_size": 32064},
            "vision_config": {"model_type": "clip_vision_model", "hidden_size": 1024,
                              "image_size": 336, "intermediate_size": 4096,
                              "num_attention_heads": 16, "num_hidden_layers": 24,
                              "patch_size": 14},
        }))
        .expect("llava-1.5-7b");
        assert_eq!(config.text_config.hidden_size, 4096);
        assert_eq!(config.text_config.num_key_value_heads, 32);
        assert_eq!(config.text_config.head_dim, 128);
        assert_eq!(config.visual_tokens(), 576);
        let picture = config.picture.as_ref().expect("a picture side");
        assert_eq!(picture.vision_layers(), 23);
        assert_eq!(config.drop_layer(), None);
    }

    #[test]
    fn a_decoder_alone_has_no_picture_side() {
        let config = parse(json!({
            "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
            "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
            "rope_theta": 100_000, "tie_word_embeddings": true, "vocab_size": 49152,
        }))
        .expect("SmolLM2-135M");
        assert_eq!((config.picture.clone(), config.visual_tokens()), (None, 0));
        assert_eq!(config.text_config.head_dim, 64);
        assert!(config.text_config.tie_word_embeddings);
        let reduced = json!({
            "model_type": "qwen2", "visual_token_reduction":
            {"type": "victor", "num_registers": 8, "drop_layer": 3}
        });
        let message = parse(reduced).expect_err("nothing to reduce");
        assert!(message.contains("no visual tokens"), "{message}");
    }

    #[test]
    fn llava_next_has_up_to_five_views() {
        let next = json!({"model_type": "llava_next", "text_config": {"model_type": "mistral"}});
        let config = parse(next.clone()).expect("llava-v1.6-mistral-7b");
        // Five times 24 × 24 and a newline after each of 48 rows.
        assert_eq!(config.visual_tokens(), 2880 + 48);
        let mut full = next.clone();
        full["vision_feature_select_strategy"] = json!("full");
        let message = parse(full).expect_err("the class token has no place");
        assert!(message.contains("leaves the patches alone"), "{message}");
        for unusable in [json!([]), json!([[336, 500]]), json!([[336]]), json!("all")] {
            let mut next = next.clone();
            next["image_grid_pinpoints"] = unusable;
            let message = parse(next).expect_err("no whole tiles");
            assert!(message.contains("image_grid_pinpoints"), "{message}");
        }
    }

    #[test]
    fn windowed_attention_is_used_within_one_window() {
        let context = |config: Value| {
            let config = parse(config).expect("a decoder");
            config.text_config.max_position_embeddings
        };
        // Mistral-7B-v0.1 leaves its window of 4096 out or spells it; v0.2 has none.
        let mistral = json!({"model_type": "mistral", "max_position_embeddings": 32768});
        assert_eq!(context(mistral.clone()), 4096);
        let mut endless = mistral;
        endless["sliding_window"] = Value::Null;
        assert_eq!(context(endless), 32768);
        let mut qwen2 = json!({"model_type": "qwen2", "sliding_window": 8192});
        assert_eq!(context(qwen2.clone()), 32768);
        qwen2["use_sliding_window"] = json!(true);
        assert_eq!(context(qwen2), 8192);
    }

    #[test]
    fn siglip_has_no_class_token_to_leave_out() {
        let mut llava = json!({
            "model_type": "llava", "vision_config": {"model_type": "siglip_vision_model"},
            "vision_feature_select_strategy": "full",
        });
        assert_eq!(parse(llava.clone()).expect("siglip").visual_tokens(), 196);
        llava["vision_feature_select_strategy"] = json!("default");
        assert_eq!(parse(llava).expect("siglip").visual_tokens(), 195);
    }

    #[test]
    fn no_ratio_makes_a_width_that_overflows() {
        for ratio in [0.0, -4.0, 1e300] {
            let vision = json!({"model_type": "dinov2", "mlp_ratio": ratio});
            let message = parse(json!({"model_type": "llava", "vision_config": vision}));
            let message = message.expect_err("no width");
            assert!(message.contains("vision_config.mlp_ratio"), "{message}");
        }
    }

    #[test]
    fn errors_name_the_field_and_what_is_known() {
        let unknown = parse(json!({"model_type": "llava", "text_config": {"model_type": "gpt2"}}));
        let message = unknown.expect_err("gpt2");
        assert!(
            message.contains("model_type") && message.contains("llama, mistral"),
            "{message}"
        );
        let message = parse(json!({"model_type": "blip"})).expect_err("blip");
        assert!(message.contains("`model_type` is `\"blip\"`"), "{message}");
        let deep = json!({
            "model_type": "llava", "visual_token_reduction":
            {"type": "victor", "num_registers": 8, "drop_layer": 33}
        });
        let message = parse(deep).expect_err("33 of 32 layers");
        assert!(
            message.contains("visual_token_reduction.drop_layer"),
            "{message}"
        );
    }
}
