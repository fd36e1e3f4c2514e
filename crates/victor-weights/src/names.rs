//! Foreign tensor names, and ours: the module path below [`Vlm`](victor_model::Vlm).

use victor_model::VisionFamily;

/// Whole-prefix renames of the original LLaVA, of two generations of Hub checkpoints and of decoders
/// alone, first match first.
const PREFIXES: [(&str, &str); 19] = [
    (
        "model.vision_tower.vision_tower.vision_model.",
        "vision_tower.",
    ),
    ("model.vision_tower.vision_tower.", "vision_tower."),
    ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ("model.mm_projector.", "multi_modal_projector.linear_1."),
    ("mm_projector.0.", "multi_modal_projector.linear_1."),
    ("mm_projector.2.", "multi_modal_projector.linear_2."),
    ("language_model.model.", "language_model."),
    ("model.language_model.", "language_model."),
    ("language_model.lm_head.", "language_model.lm_head."),
    ("lm_head.", "language_model.lm_head."),
    ("vision_tower.vision_model.", "vision_tower."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.visual_registers", "visual_registers"),
    ("model.image_newline", "image_newline"),
    ("model.embed_tokens.", "language_model.embed_tokens."),
    ("model.layers.", "language_model.layers."),
    ("model.norm.", "language_model.norm."),
];

/// Our name of a tensor of a vision tower's own checkpoint; `None` for its text side and heads.
pub(crate) fn tower(name: &str) -> Option<String> {
    let rest = name.strip_prefix("vision_model.").unwrap_or(name);
    const PARTS: [&str; 6] = [
        "embeddings.",
        "encoder.",
        "pre_layrnorm.",
        "post_layernorm.",
        "layernorm.",
        "head.",
    ];
    PARTS
        .iter()
        .any(|part| rest.starts_with(part))
        .then(|| canonical(&format!("vision_tower.{rest}")))
}

/// Our name of the parameter at a path of modules. The modules of the picture side are grouped in the
/// program and not in files.
pub(crate) fn of_module_path(path: &[String]) -> String {
    let inner = match path.split_first() {
        Some((first, rest)) if first == "picture" => rest,
        _ => path,
    };
    inner.join(".")
}

/// DINOv2's words for what CLIP's modules are called, in both generations.
const DINOV2: [(&str, &str); 12] = [
    ("embeddings.cls_token", "embeddings.class_embedding"),
    (
        "embeddings.patch_embeddings.projection.",
        "embeddings.patch_embedding.",
    ),
    (
        "embeddings.position_embeddings",
        "embeddings.position_embedding.weight",
    ),
    ("encoder.layer.", "encoder.layers."),
    (".attention.attention.query.", ".self_attn.q_proj."),
    (".attention.attention.key.", ".self_attn.k_proj."),
    (".attention.attention.value.", ".self_attn.v_proj."),
    (".attention.output.dense.", ".self_attn.out_proj."),
    (".attention.o_proj.", ".self_attn.out_proj."),
    (".attention.", ".self_attn."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
];

/// Our name of a tensor of a file.
pub(crate) fn canonical(name: &str) -> String {
    let mut ours = name.to_string();
    for (foreign, own) in PREFIXES {
        if let Some(rest) = name.strip_prefix(foreign) {
            ours = format!("{own}{rest}");
            break;
        }
    }
    match ours.strip_prefix("vision_tower.") {
        Some(rest) => {
            let mut rest = rest.to_string();
            for (foreign, own) in DINOV2 {
                rest = rest.replace(foreign, own);
            }
            format!("vision_tower.{rest}")
        }
        None => ours,
    }
}

/// The name transformers 5 gives one of our tensors; without a vision tower as for a decoder alone.
pub(crate) fn hub(ours: &str, tower: Option<VisionFamily>) -> String {
    if let Some(rest) = ours.strip_prefix("language_model.lm_head.") {
        return format!("lm_head.{rest}");
    }
    if tower.is_none()
        && let Some(rest) = ours.strip_prefix("language_model.")
    {
        return format!("model.{rest}");
    }
    let Some(rest) = ours.strip_prefix("vision_tower.") else {
        return match ours {
            "visual_registers" => ours.into(),
            _ => format!("model.{ours}"),
        };
    };
    let mut rest = rest.to_string();
    if tower == Some(VisionFamily::Dinov2) {
        // Transformers 4's words for the attention: transformers 5 reads them too.
        for (foreign, own) in DINOV2
            .iter()
            .filter(|(foreign, _)| *foreign != ".attention.")
        {
            if *foreign != ".attention.o_proj." {
                rest = rest.replace(own, foreign);
            }
        }
    }
    format!("model.vision_tower.{rest}")
}

/// Whether a tensor, by our name, belongs to a part LLaVA never computes.
pub(crate) fn never_used(ours: &str, vision_layers: usize, tied: bool) -> bool {
    if let Some(rest) = ours.strip_prefix("vision_tower.encoder.layers.") {
        let layer = rest
            .split('.')
            .next()
            .and_then(|layer| layer.parse::<usize>().ok());
        return layer.is_some_and(|layer| layer >= vision_layers);
    }
    const UNUSED: [&str; 5] = [
        "vision_tower.post_layernorm.",
        "vision_tower.layernorm.",
        "vision_tower.head.",
        "vision_tower.embeddings.mask_token",
        "vision_tower.embeddings.position_ids",
    ];
    UNUSED.iter().any(|prefix| ours.starts_with(prefix))
        || ours.ends_with(".rotary_emb.inv_freq")
        || (tied && ours.starts_with("language_model.lm_head."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations_meet() {
        let pairs = [
            (
                "language_model.model.norm.weight",
                "model.language_model.norm.weight",
            ),
            ("language_model.lm_head.weight", "lm_head.weight"),
            (
                "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.bias",
                "model.vision_tower.encoder.layers.0.self_attn.q_proj.bias",
            ),
            (
                "vision_tower.encoder.layer.2.attention.attention.query.weight",
                "model.vision_tower.encoder.layer.2.attention.q_proj.weight",
            ),
            (
                "vision_tower.encoder.layer.2.attention.output.dense.weight",
                "model.vision_tower.encoder.layer.2.attention.o_proj.weight",
            ),
        ];
        for (old, new) in pairs {
            assert_eq!(canonical(old), canonical(new));
        }
    }

    #[test]
    fn hub_names_come_back() {
        let text = [
            (
                "model.layers.3.mlp.up_proj.weight",
                "language_model.layers.3.mlp.up_proj.weight",
            ),
            (
                "model.embed_tokens.weight",
                "language_model.embed_tokens.weight",
            ),
            ("model.norm.weight", "language_model.norm.weight"),
            ("lm_head.weight", "language_model.lm_head.weight"),
        ];
        for (theirs, ours) in text {
            assert_eq!(
                (canonical(theirs).as_str(), hub(ours, None).as_str()),
                (ours, theirs)
            );
        }
        let clip = [
            "vision_tower.pre_layrnorm.weight",
            "image_newline",
            "language_model.lm_head.weight",
        ];
        let dinov2 = [
            "vision_tower.embeddings.class_embedding",
            "vision_tower.embeddings.position_embedding.weight",
            "vision_tower.encoder.layers.3.self_attn.out_proj.bias",
            "vision_tower.encoder.layers.3.self_attn.v_proj.bias",
            "vision_tower.encoder.layers.3.layer_norm2.weight",
            "vision_tower.encoder.layers.3.layer_scale1.lambda1",
            "visual_registers",
            "multi_modal_projector.linear_1.weight",
        ];
        for name in clip {
            assert_eq!(canonical(&hub(name, Some(VisionFamily::Clip))), name);
        }
        for name in dinov2 {
            assert_eq!(canonical(&hub(name, Some(VisionFamily::Dinov2))), name);
        }
    }
}
