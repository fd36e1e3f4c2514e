//! llama.cpp's `mmproj` files: a vision tower and a projector beside a decoder.
//!
//! Source: `tools/mtmd/clip.cpp`, `tools/mtmd/models/llava.cpp` and the legacy
//! `convert_image_encoder_to_gguf.py` of llama.cpp. Read are LLaVA's projectors on CLIP and SigLIP.

use super::decoder::Keys;
use super::{GgufError, GgufFile};
use crate::WeightsError;
use victor_model::{Activation, ProjectorConfig, VisionConfig, VisionFamily, VisionSelect};

/// What an `mmproj` file says about pictures.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Vision {
    /// The tower; its layers are those the file holds.
    pub config: VisionConfig,
    /// The projector.
    pub projector: ProjectorConfig,
    /// Which hidden state is projected, counted with the embeddings first.
    pub feature_layer: i64,
    /// Which of its rows are projected.
    pub select: VisionSelect,
    /// What is subtracted from each colour, of one.
    pub image_mean: [f64; 3],
    /// What each colour is divided by, of one.
    pub image_std: [f64; 3],
    /// LLaVA-NeXT's grid resolutions as `[height, width]` in pixels; empty for others.
    pub image_grid_pinpoints: Vec<[u32; 2]>,
    /// How a picture is brought to its shape (`pad`, `anyres`), if the file says.
    pub image_aspect_ratio: Option<String>,
    /// Whether the padding of tiles is cut off (`mm_patch_merge_type` is `spatial_unpad`).
    pub unpad: bool,
}

/// What is read as a tower and projector.
const EXPECTED: &str =
    "`clip` (an mmproj file) is read as a tower and projector; give the decoder beside it";

/// Parts of towers and projectors that llama.cpp knows and LLaVA does not have.
const UNBUILT: [(&str, &str); 8] = [
    ("v.patch_embd.weight.1", "patches of two frames"),
    ("v.post_ln.weight", "a norm after the tower's last layer"),
    ("v.blk.0.ls1.weight", "layer scale"),
    ("v.blk.0.attn_q_norm.weight", "norms of q and k"),
    ("v.blk.0.ffn_gate.weight", "a gated feed-forward"),
    ("mm.1.weight", "a projector with norms"),
    ("mm.3.weight", "a projector with norms"),
    ("mm.4.weight", "a projector with norms"),
];

/// The tower, the projector and how pictures are prepared.
///
/// llama.cpp runs one layer less than such a file holds (its issue 25817). The converter has already
/// left out the layers after the selected state, so all that are there are counted here, as
/// transformers computes it.
///
/// # Errors
/// If it is no `mmproj` file, or one of a tower or projector that LLaVA does not have.
pub fn vision(file: &GgufFile) -> Result<Vision, WeightsError> {
    read(file).map_err(WeightsError::gguf(file.path()))
}

fn read(file: &GgufFile) -> Result<Vision, GgufError> {
    let keys = Keys::new(file, &["clip"], EXPECTED)?;
    let metadata = &keys.metadata;
    if metadata.boolean("clip.has_vision_encoder")? == Some(false) {
        return Err(keys.wrong("has_vision_encoder", "true"));
    }
    for (name, what) in UNBUILT {
        if file.tensor(name).is_some() {
            let name = name.into();
            return Err(GgufError::Unbuilt { name, what });
        }
    }
    let config = tower(file, &keys)?;
    let select = match config.family {
        VisionFamily::Clip => VisionSelect::Default,
        _ => VisionSelect::Full,
    };
    let aspect = metadata.text("clip.vision.image_aspect_ratio")?;
    Ok(Vision {
        projector: projector(file, &keys)?,
        feature_layer: feature_layer(&keys, config.num_hidden_layers)?,
        select,
        image_mean: colours(&keys, "vision.image_mean", "three numbers", |_| true)?,
        image_std: colours(
            &keys,
            "vision.image_std",
            "three positive numbers",
            |value| value > 0.0,
        )?,
        image_grid_pinpoints: pinpoints(&keys)?,
        image_aspect_ratio: aspect.map(str::to_owned),
        unpad: metadata.text("clip.vision.mm_patch_merge_type")? == Some("spatial_unpad"),
        config,
    })
}

fn tower(file: &GgufFile, keys: &Keys) -> Result<VisionConfig, GgufError> {
    let family = family(file)?;
    let hidden_size = keys.size("vision.embedding_length", None)?;
    let config = VisionConfig {
        family,
        hidden_size,
        intermediate_size: keys.size("vision.feed_forward_length", None)?,
        num_hidden_layers: keys.size("vision.block_count", None)?,
        num_attention_heads: keys.size("vision.attention.head_count", None)?,
        image_size: keys.size("vision.image_size", None)?,
        patch_size: keys.size("vision.patch_size", None)?,
        num_channels: 3,
        layer_norm_eps: keys.number("vision.attention.layer_norm_epsilon", None)?,
        hidden_act: activation(keys, family)?,
    };
    if !hidden_size.is_multiple_of(config.num_attention_heads) {
        return Err(keys.wrong("vision.attention.head_count", "a divisor of the width"));
    }
    if config.patch_size > config.image_size {
        return Err(keys.wrong("vision.patch_size", "at most the image size"));
    }
    let last = format!("v.blk.{}.ln1.weight", config.num_hidden_layers - 1);
    file.required(&last)?;
    Ok(config)
}

/// CLIP has a class token and a norm before the first layer, SigLIP a bias of the patches.
fn family(file: &GgufFile) -> Result<VisionFamily, GgufError> {
    let has = |name: &str| file.tensor(name).is_some();
    let parts = (
        has("v.class_embd"),
        has("v.pre_ln.weight"),
        has("v.patch_embd.bias"),
    );
    match parts {
        (true, true, false) => Ok(VisionFamily::Clip),
        (false, false, true) => Ok(VisionFamily::Siglip),
        _ => Err(GgufError::Unbuilt {
            name: file.required("v.patch_embd.weight")?.name.into(),
            what: "a tower that is neither CLIP (class token, norm before the layers) nor SigLIP \
                   (bias of the patches, no class token)",
        }),
    }
}

fn activation(keys: &Keys, family: VisionFamily) -> Result<Activation, GgufError> {
    if keys.metadata.boolean("clip.use_silu")? == Some(true) {
        return Err(keys.wrong("use_silu", "false"));
    }
    let gelu = keys.metadata.boolean("clip.use_gelu")? == Some(true);
    Ok(match (family, gelu) {
        // Its converters disagree about the flag; SigLIP has no other activation.
        (VisionFamily::Siglip, _) => Activation::GeluTanh,
        (_, true) => Activation::Gelu,
        (_, false) => Activation::QuickGelu,
    })
}

fn projector(file: &GgufFile, keys: &Keys) -> Result<ProjectorConfig, GgufError> {
    // The oldest files have no type; all of them are LLaVA-1.5's.
    let name = match keys.metadata.text("clip.projector_type")? {
        Some(_) => "projector_type",
        None => "vision.projector_type",
    };
    let kind = keys.metadata.text(&keys.key(name))?;
    if !matches!(kind, None | Some("mlp" | "linear")) {
        return Err(keys.wrong(name, "mlp or linear, LLaVA's projectors"));
    }
    let has = |name: &str| file.tensor(name).is_some();
    if has("mm.2.weight") {
        file.required("mm.0.weight")?;
        return Ok(ProjectorConfig::Mlp {
            activation: Activation::Gelu,
            bias: has("mm.0.bias"),
        });
    }
    if !has("mm.weight") {
        file.required("mm.0.weight")?;
    }
    Ok(ProjectorConfig::Linear {
        bias: has("mm.0.bias") || has("mm.bias"),
    })
}

fn feature_layer(keys: &Keys, layers: usize) -> Result<i64, GgufError> {
    let found = keys.metadata.integers("clip.vision.feature_layer")?;
    match found.as_deref() {
        None => Ok(layers as i64),
        Some([layer]) if (0..=layers as i64).contains(layer) => Ok(*layer),
        Some(_) => Err(keys.wrong(
            "vision.feature_layer",
            "one hidden state of those the tower has",
        )),
    }
}

fn colours(
    keys: &Keys,
    name: &str,
    expected: &'static str,
    valid: impl Fn(f64) -> bool,
) -> Result<[f64; 3], GgufError> {
    let found = keys.metadata.numbers(&keys.key(name))?.unwrap_or_default();
    let found: Vec<f64> = found.into_iter().map(as_published).collect();
    match <[f64; 3]>::try_from(found) {
        Ok(colours)
            if colours
                .iter()
                .all(|value| value.is_finite() && valid(*value)) =>
        {
            Ok(colours)
        }
        _ => Err(keys.wrong(name, expected)),
    }
}

/// CLIP's means and deviations have more digits than the file's 32-bit floats keep.
fn as_published(value: f64) -> f64 {
    const CLIP: [f64; 6] = [
        0.481_454_66,
        0.457_827_5,
        0.408_210_73,
        0.268_629_54,
        0.261_302_58,
        0.275_777_11,
    ];
    let published = CLIP.iter().find(|known| **known as f32 == value as f32);
    published.copied().unwrap_or(value)
}

fn pinpoints(keys: &Keys) -> Result<Vec<[u32; 2]>, GgufError> {
    const NAME: &str = "vision.image_grid_pinpoints";
    const LARGEST: i64 = 1 << 14;
    let found = keys.metadata.integers(&keys.key(NAME))?.unwrap_or_default();
    let valid = found.iter().all(|side| (1..=LARGEST).contains(side));
    if !valid || !found.len().is_multiple_of(2) {
        return Err(keys.wrong(NAME, "pairs of heights and widths in pixels"));
    }
    let pairs = found.chunks_exact(2);
    Ok(pairs.map(|pair| [pair[0] as u32, pair[1] as u32]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::testing::{Writer, tiny_mmproj};

    fn read_vision(writer: &Writer) -> Vision {
        vision(&writer.file()).expect("a tower")
    }

    #[test]
    fn llava_15_is_clip_with_the_last_layer_left_out() {
        let found = read_vision(&tiny_mmproj());
        assert_eq!(found.config.family, VisionFamily::Clip);
        assert_eq!(found.config.hidden_act, Activation::QuickGelu);
        assert_eq!(
            (found.config.num_hidden_layers, found.feature_layer),
            (2, 2)
        );
        assert_eq!(found.select, VisionSelect::Default);
        assert_eq!(found.image_mean, [0.48145466, 0.4578275, 0.40821073]);
        assert_eq!(found.image_std, [0.26862954, 0.26130258, 0.27577711]);
        assert_eq!(found.config.layer_norm_eps, 1e-5);
        let mlp = ProjectorConfig::Mlp {
            activation: Activation::Gelu,
            bias: true,
        };
        assert_eq!(found.projector, mlp);
        assert!(found.image_grid_pinpoints.is_empty() && !found.unpad);
    }

    #[test]
    fn siglip_has_no_class_token() {
        let writer = tiny_mmproj()
            .remove_tensor("v.class_embd")
            .remove_tensor("v.pre_ln.weight")
            .remove_tensor("v.pre_ln.bias")
            .tensor("v.patch_embd.bias", &[8], 0.0);
        let found = read_vision(&writer);
        assert_eq!(found.config.family, VisionFamily::Siglip);
        assert_eq!(found.config.hidden_act, Activation::GeluTanh);
        assert_eq!(found.select, VisionSelect::Full);
    }

    #[test]
    fn next_and_linear_projectors_are_read() {
        let writer = tiny_mmproj()
            .i32s("clip.vision.image_grid_pinpoints", &[336, 672, 672, 336])
            .text("clip.vision.mm_patch_merge_type", "spatial_unpad")
            .text("clip.vision.image_aspect_ratio", "anyres")
            .i32s("clip.vision.feature_layer", &[1])
            .bool("clip.use_gelu", true);
        let found = read_vision(&writer);
        assert_eq!(found.image_grid_pinpoints, [[336, 672], [672, 336]]);
        assert_eq!(found.image_aspect_ratio.as_deref(), Some("anyres"));
        assert!(found.unpad);
        assert_eq!(found.feature_layer, 1);
        assert_eq!(found.config.hidden_act, Activation::Gelu);
        let linear = tiny_mmproj()
            .without("clip.projector_type")
            .remove_tensor("mm.0.weight")
            .remove_tensor("mm.0.bias")
            .remove_tensor("mm.2.weight")
            .remove_tensor("mm.2.bias")
            .tensor("mm.weight", &[6, 8], 0.0)
            .tensor("mm.bias", &[6], 0.0);
        let projector = ProjectorConfig::Linear { bias: true };
        assert_eq!(read_vision(&linear).projector, projector);
    }

    #[test]
    fn what_llava_does_not_have_is_named() {
        let cases = [
            (
                tiny_mmproj().text("clip.projector_type", "resampler"),
                "resampler",
            ),
            (
                tiny_mmproj().tensor("v.post_ln.weight", &[8], 0.0),
                "v.post_ln.weight",
            ),
            (
                tiny_mmproj().tensor("mm.3.weight", &[6, 6], 0.0),
                "with norms",
            ),
            (
                tiny_mmproj().remove_tensor("v.pre_ln.weight"),
                "neither CLIP",
            ),
            (tiny_mmproj().bool("clip.use_silu", true), "clip.use_silu"),
            (
                tiny_mmproj().i32s("clip.vision.feature_layer", &[1, 2]),
                "one hidden state",
            ),
            (
                tiny_mmproj().u32("clip.vision.block_count", 3),
                "v.blk.2.ln1.weight",
            ),
            (
                tiny_mmproj().f32s("clip.vision.image_std", &[0.5, 0.0, 0.5]),
                "three positive numbers",
            ),
            (
                tiny_mmproj().i32s("clip.vision.image_grid_pinpoints", &[336]),
                "pairs of heights",
            ),
            (
                tiny_mmproj().u32("clip.vision.patch_size", 8),
                "at most the image size",
            ),
            (Writer::new("llama"), "architecture `llama`"),
        ];
        for (writer, expected) in cases {
            let message = vision(&writer.file()).expect_err(expected).to_string();
            assert!(message.contains(expected), "{message} ({expected})");
        }
    }
}
