//! GGUF tensor names and ours.
//!
//! Source: `gguf-py/gguf/tensor_mapping.py`, `tools/mtmd/clip-impl.h` and the legacy
//! `convert_image_encoder_to_gguf.py` of llama.cpp.

use super::{GgufError, GgufFile, GgufTensor, RowOrder};
use crate::WeightsError;
use std::collections::BTreeMap;

/// Whole names.
const WHOLE: [(&str, &str); 17] = [
    ("token_embd.weight", "language_model.embed_tokens.weight"),
    ("output_norm.weight", "language_model.norm.weight"),
    ("output.weight", "language_model.lm_head.weight"),
    ("v.class_embd", "vision_tower.embeddings.class_embedding"),
    (
        "v.patch_embd.weight",
        "vision_tower.embeddings.patch_embedding.weight",
    ),
    (
        "v.patch_embd.bias",
        "vision_tower.embeddings.patch_embedding.bias",
    ),
    (
        "v.position_embd.weight",
        "vision_tower.embeddings.position_embedding.weight",
    ),
    ("v.pre_ln.weight", "vision_tower.pre_layrnorm.weight"),
    ("v.pre_ln.bias", "vision_tower.pre_layrnorm.bias"),
    ("mm.0.weight", "multi_modal_projector.linear_1.weight"),
    ("mm.0.bias", "multi_modal_projector.linear_1.bias"),
    ("mm.2.weight", "multi_modal_projector.linear_2.weight"),
    ("mm.2.bias", "multi_modal_projector.linear_2.bias"),
    // LLaVA's linear projector is no sequence, so the converter finds no number.
    ("mm.weight", "multi_modal_projector.linear_1.weight"),
    ("mm.bias", "multi_modal_projector.linear_1.bias"),
    ("v.image_newline", "image_newline"),
    ("model.image_newline", "image_newline"),
];

/// Parts of a decoder layer.
const DECODER: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Parts of a tower layer.
const TOWER: [(&str, &str); 8] = [
    ("ln1", "layer_norm1"),
    ("ln2", "layer_norm2"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_out", "self_attn.out_proj"),
    ("ffn_up", "mlp.fc1"),
    ("ffn_down", "mlp.fc2"),
];

/// Our name of a tensor; one that has none keeps its own.
///
/// The feed-forward of a tower is taken by its current names; [`tensors`] knows old files, which have
/// them the other way round.
pub fn canonical(name: &str) -> String {
    if let Some((_, ours)) = WHOLE.iter().find(|(foreign, _)| *foreign == name) {
        return (*ours).into();
    }
    let layer = |prefix: &str, parts: &[(&str, &str)], ours: &str| {
        let (number, rest) = name.strip_prefix(prefix)?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let (_, part) = parts.iter().find(|(foreign, _)| *foreign == part)?;
        Some(format!("{ours}.layers.{number}.{part}.{kind}"))
    };
    layer("blk.", &DECODER, "language_model")
        .or_else(|| layer("v.blk.", &TOWER, "vision_tower.encoder"))
        .unwrap_or_else(|| name.into())
}

/// All tensors of a model by our names, with their rows' order.
///
/// The factors of rotary frequencies are left out: [`text_config`](super::text_config) reads them.
///
/// # Errors
/// If a tensor has a format that is not read, or two have one of our names.
pub fn tensors(file: &GgufFile) -> Result<BTreeMap<String, GgufTensor<'_>>, WeightsError> {
    collect(file).map_err(WeightsError::gguf(file.path()))
}

fn collect(file: &GgufFile) -> Result<BTreeMap<String, GgufTensor<'_>>, GgufError> {
    let heads = interleaved_heads(file)?;
    let width = file.metadata().natural("clip.vision.embedding_length");
    let width = width.ok().flatten().map(|width| width as usize);
    let mut tensors = BTreeMap::new();
    for name in file
        .tensor_names()
        .filter(|name| *name != "rope_freqs.weight")
    {
        let mut tensor = file.required(name)?;
        if !tensor.kind.is_read() {
            return Err(GgufError::UnreadKind {
                name: name.into(),
                kind: tensor.kind,
            });
        }
        if name.contains(".attn_qkv.") {
            return Err(GgufError::Unbuilt {
                name: name.into(),
                what: "q, k and v in one tensor",
            });
        }
        let ours = match swapped(file, name, width) {
            Some(other) => canonical(&other),
            None => canonical(name),
        };
        if let Some((q, k)) = heads {
            let part = ours.strip_prefix("language_model.layers.").unwrap_or("");
            if part.contains(".self_attn.q_proj.") {
                tensor.rows = RowOrder::Interleaved { heads: q };
            } else if part.contains(".self_attn.k_proj.") {
                tensor.rows = RowOrder::Interleaved { heads: k };
            }
        }
        if tensors.insert(ours.clone(), tensor).is_some() {
            return Err(GgufError::Duplicate { name: ours });
        }
    }
    Ok(tensors)
}

/// Query and key heads of a decoder whose q and k rows are interleaved.
fn interleaved_heads(file: &GgufFile) -> Result<Option<(usize, usize)>, GgufError> {
    if file.architecture()? != "llama" {
        return Ok(None);
    }
    let keys = super::decoder::Keys::new(file, &["llama"], "")?;
    let heads = keys.size("attention.head_count", None)?;
    let kv_heads = keys.size("attention.head_count_kv", Some(heads))?;
    Ok(Some((heads, kv_heads)))
}

/// The name a tower's feed-forward tensor should have: converters before May 2025 called the first
/// layer `ffn_down` and the second `ffn_up`.
///
/// Old files are told by `ffn_down` taking as many inputs as the tower is wide, as in llama.cpp.
fn swapped(file: &GgufFile, name: &str, width: Option<usize>) -> Option<String> {
    let layer = name.strip_prefix("v.blk.")?.split('.').next()?;
    let down = file.tensor(&format!("v.blk.{layer}.ffn_down.weight"))?;
    if down.shape.last().copied() != width {
        return None;
    }
    if name.contains(".ffn_down.") {
        Some(name.replace(".ffn_down.", ".ffn_up."))
    } else {
        name.contains(".ffn_up.")
            .then(|| name.replace(".ffn_up.", ".ffn_down."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::testing::{tiny_decoder, tiny_mmproj};

    /// The first number of each row.
    fn first_of_rows(tensor: &GgufTensor) -> Vec<f32> {
        let width = tensor.shape.get(1).copied().unwrap_or(1);
        let values = tensor.to_f32().expect("F32");
        values.iter().step_by(width).copied().collect()
    }

    #[test]
    fn rows_of_llama_heads_are_put_back() {
        let file = tiny_decoder("llama").file();
        let tensors = tensors(&file).expect("tensors");
        // Rows of 8 numbers counted through; heads of 4 rows, whose halves alternate in the file.
        let k = &tensors["language_model.layers.0.self_attn.k_proj.weight"];
        let rows: Vec<f32> = first_of_rows(k).iter().map(|value| value / 8.0).collect();
        assert_eq!(rows, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert_eq!(k.rows, RowOrder::Interleaved { heads: 2 });
        let q = &tensors["language_model.layers.1.self_attn.q_proj.weight"];
        assert_eq!(q.rows, RowOrder::Interleaved { heads: 4 });
        let v = &tensors["language_model.layers.0.self_attn.v_proj.weight"];
        assert_eq!(v.rows, RowOrder::Ours);
        assert_eq!(first_of_rows(v)[1], 8.0);
    }

    #[test]
    fn rows_of_quantised_heads_move_whole() {
        let mut writer = tiny_decoder("llama").remove_tensor("blk.0.attn_k.weight");
        // Eight rows of one Q8_0 block each, whose numbers are the row's.
        let row = |row: u8| [vec![0, 0x3c], vec![row; 32]].concat();
        let bytes = (0..8).flat_map(row).collect();
        writer = writer.raw("blk.0.attn_k.weight", &[8, 32], 8, bytes);
        let file = writer.file();
        let tensors = tensors(&file).expect("tensors");
        let k = &tensors["language_model.layers.0.self_attn.k_proj.weight"];
        let order = [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        assert_eq!(first_of_rows(k), order);
        assert_eq!(k.ordered_bytes().expect("bytes").len(), k.bytes.len());
    }

    #[test]
    fn rows_of_qwen2_stay() {
        let file = tiny_decoder("qwen2").file();
        let tensors = tensors(&file).expect("tensors");
        assert!(tensors.values().all(|tensor| tensor.rows == RowOrder::Ours));
        let bias = &tensors["language_model.layers.1.self_attn.k_proj.bias"];
        assert_eq!(bias.shape, [8]);
        assert_eq!(first_of_rows(bias)[..3], [0.0, 1.0, 2.0]);
    }

    #[test]
    fn every_tensor_of_a_decoder_has_our_name() {
        let file = tiny_decoder("qwen2").tensor("output.weight", &[10, 8], 0.0);
        let file = file.tensor("rope_freqs.weight", &[2], 1.0).file();
        let tensors = tensors(&file).expect("tensors");
        assert_eq!(tensors.len(), 3 + 2 * (9 + 3));
        assert!(
            tensors
                .keys()
                .all(|name| name.starts_with("language_model."))
        );
        assert!(tensors.contains_key("language_model.lm_head.weight"));
        let gate = tensors["language_model.layers.0.mlp.gate_proj.weight"];
        assert_eq!(
            (gate.name, gate.shape),
            ("blk.0.ffn_gate.weight", &[12, 8][..])
        );
    }

    #[test]
    fn old_towers_have_their_feed_forward_the_other_way_round() {
        let new = tiny_mmproj();
        let mut old = new.clone();
        for tensor in &mut old.tensors {
            let name = tensor.name.replace("ffn_up", "ffn_was_up");
            let name = name.replace("ffn_down", "ffn_up");
            tensor.name = name.replace("ffn_was_up", "ffn_down");
        }
        for (writer, stored) in [(new, "ffn_up"), (old, "ffn_down")] {
            let file = writer.file();
            let tensors = tensors(&file).expect("tensors");
            for kind in ["weight", "bias"] {
                let first = tensors[&format!("vision_tower.encoder.layers.1.mlp.fc1.{kind}")];
                assert_eq!(first.name, format!("v.blk.1.{stored}.{kind}"));
                assert_eq!(first.shape[0], 12);
            }
            let second = tensors["vision_tower.encoder.layers.1.mlp.fc2.weight"];
            assert_eq!(second.shape, [8, 12]);
        }
    }

    #[test]
    fn every_tensor_of_an_mmproj_has_our_name() {
        let file = tiny_mmproj()
            .tensor("model.image_newline", &[6], 0.0)
            .file();
        let tensors = tensors(&file).expect("tensors");
        assert_eq!(tensors.len(), 5 + 4 + 2 * 16 + 1);
        let parts = ["vision_tower.", "multi_modal_projector.", "image_newline"];
        for name in tensors.keys() {
            assert!(parts.iter().any(|part| name.starts_with(part)), "{name}");
        }
    }

    #[test]
    fn formats_that_are_not_read_are_named() {
        let file = tiny_decoder("llama").raw("blk.1.x", &[32], 20, vec![0; 18]);
        let message = tensors(&file.file()).expect_err("IQ4_NL").to_string();
        assert!(
            message.contains("`blk.1.x` is stored as IQ4_NL"),
            "{message}"
        );
        assert!(message.contains("llama-quantize"), "{message}");
        let file = tiny_decoder("llama").tensor("blk.1.attn_qkv.weight", &[32, 8], 0.0);
        let message = tensors(&file.file()).expect_err("fused").to_string();
        assert!(message.contains("blk.1.attn_qkv.weight"), "{message}");
    }
}
