//! Writes a config as the `config.json` that [`parse_config`](crate::parse_config) and transformers read.

use serde_json::{Value, json};
use victor_model::{
    Activation, PictureConfig, ProjectorConfig, ReductionConfig, RopeScaling, TextConfig,
    VisionConfig, VisionFamily, VisionSelect, VlmConfig,
};

/// The config in the Hub's form, with no field left to defaults.
pub(crate) fn config_json(config: &VlmConfig) -> Value {
    let text = text_config(&config.text_config);
    let mut json = match &config.picture {
        Some(picture) => picture_config(picture, text),
        None => text,
    };
    json["tie_word_embeddings"] = json!(config.text_config.tie_word_embeddings);
    if let Some(reduction) = &config.visual_token_reduction {
        json["visual_token_reduction"] = reduction_config(reduction);
    }
    json
}

fn picture_config(picture: &PictureConfig, text: Value) -> Value {
    let mut json = json!({
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        // An id that no vocabulary has is a negative number in configs.
        "image_token_index": picture.image_token_index as i32,
        "vision_feature_layer": picture.vision_feature_layer,
        "vision_feature_select_strategy": match picture.vision_feature_select_strategy {
            VisionSelect::Default => "default",
            VisionSelect::Full => "full",
        },
        "text_config": text,
        "vision_config": vision_config(&picture.vision_config),
    });
    match picture.projector {
        ProjectorConfig::Linear { bias } => {
            json["mm_projector_type"] = json!("linear");
            json["multimodal_projector_bias"] = json!(bias);
        }
        ProjectorConfig::Mlp { activation, bias } => {
            json["mm_projector_type"] = json!("mlp2x_gelu");
            json["projector_hidden_act"] = json!(activation_name(activation));
            json["multimodal_projector_bias"] = json!(bias);
        }
    }
    if let Some(pinpoints) = &picture.image_grid_pinpoints {
        json["architectures"] = json!(["LlavaNextForConditionalGeneration"]);
        json["model_type"] = json!("llava_next");
        json["image_grid_pinpoints"] = json!(pinpoints);
    }
    json
}

fn reduction_config(reduction: &ReductionConfig) -> Value {
    let mut json = json!(reduction);
    json["type"] = json!("victor");
    json
}

fn text_config(text: &TextConfig) -> Value {
    // The one with biases on q, k and v and none on the output.
    let qwen2 = text.qkv_bias && !text.output_bias;
    let mut json = json!({
        "model_type": if qwen2 { "qwen2" } else { "llama" },
        "architectures": [if qwen2 { "Qwen2ForCausalLM" } else { "LlamaForCausalLM" }],
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "num_key_value_heads": text.num_key_value_heads,
        "head_dim": text.head_dim,
        "vocab_size": text.vocab_size,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope.theta,
        "max_position_embeddings": text.max_position_embeddings,
        "attention_bias": text.output_bias,
        "mlp_bias": text.mlp_bias,
        "hidden_act": "silu",
        "tie_word_embeddings": text.tie_word_embeddings,
    });
    if let Some(scaling) = &text.rope.scaling {
        json["rope_scaling"] = match scaling {
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                // transformers wants a whole number here.
                "original_max_position_embeddings": *original_max_position_embeddings as u64,
            }),
            RopeScaling::Factors { factors } => {
                json!({"rope_type": "factors", "factors": factors})
            }
        };
    }
    json
}

fn vision_config(vision: &VisionConfig) -> Value {
    let mut json = json!({
        "model_type": match vision.family {
            VisionFamily::Clip => "clip_vision_model",
            VisionFamily::Siglip => "siglip_vision_model",
            VisionFamily::Dinov2 => "dinov2",
        },
        "hidden_size": vision.hidden_size,
        "num_hidden_layers": vision.num_hidden_layers,
        "num_attention_heads": vision.num_attention_heads,
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "num_channels": vision.num_channels,
        "layer_norm_eps": vision.layer_norm_eps,
        "hidden_act": activation_name(vision.hidden_act),
    });
    if vision.family == VisionFamily::Dinov2 {
        let (hidden, inner) = (vision.hidden_size, vision.intermediate_size);
        json["mlp_ratio"] = if inner.is_multiple_of(hidden) {
            json!(inner / hidden)
        } else {
            json!(inner as f64 / hidden as f64)
        };
    } else {
        json["intermediate_size"] = json!(vision.intermediate_size);
    }
    json
}

fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
        Activation::QuickGelu => "quick_gelu",
    }
}
