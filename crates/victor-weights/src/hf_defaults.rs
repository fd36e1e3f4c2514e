//! The transformers defaults of each model type, which Hub configs leave out.
//!
//! Source: `configuration_{llava,llava_next,llama,mistral,qwen2,clip,dinov2,siglip}.py` of transformers 4 and 5.

use serde_json::{Value, json};

/// Defaults of a text model, or `None` when the type is not known.
pub(crate) fn text(model_type: &str) -> Option<Value> {
    let defaults = match model_type {
        "llama" => json!({
            "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 2048, "attention_bias": false, "mlp_bias": false,
        }),
        "mistral" => json!({
            "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "rms_norm_eps": 1e-6, "max_position_embeddings": 131_072, "sliding_window": 4096,
        }),
        "qwen2" => json!({
            "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22016,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
            "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "sliding_window": 4096,
        }),
        _ => return None,
    };
    Some(defaults)
}

/// The text model types that are read.
pub(crate) const TEXT_TYPES: &str = "llama, mistral or qwen2";

/// Defaults of a vision model, or `None` when the type is not known.
pub(crate) fn vision(model_type: &str) -> Option<Value> {
    let defaults = match model_type {
        "clip_vision_model" => json!({
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
            "num_attention_heads": 12, "image_size": 224, "patch_size": 32, "num_channels": 3,
            "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu",
        }),
        "dinov2" => json!({
            "hidden_size": 768, "mlp_ratio": 4, "num_hidden_layers": 12,
            "num_attention_heads": 12, "image_size": 224, "patch_size": 14, "num_channels": 3,
            "layer_norm_eps": 1e-6, "hidden_act": "gelu", "qkv_bias": true,
            "use_swiglu_ffn": false,
        }),
        "siglip_vision_model" => json!({
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
            "num_attention_heads": 12, "image_size": 224, "patch_size": 16, "num_channels": 3,
            "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh",
        }),
        _ => return None,
    };
    Some(defaults)
}

/// The vision model types that are read.
pub(crate) const VISION_TYPES: &str = "clip_vision_model, siglip_vision_model or dinov2";

/// The grid resolutions of a LLaVA-NeXT config that names none.
pub(crate) fn image_grid_pinpoints() -> Value {
    json!([[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]])
}

/// The vision tower of a LLaVA config that names none.
pub(crate) fn llava_vision() -> Value {
    json!({
        "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
        "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
    })
}
