//! Writes small GGUF files for tests.

use super::{GgufFile, TensorKind};
use std::path::Path;

/// A file in the making.
#[derive(Clone, Default)]
pub(crate) struct Writer {
    pub(crate) entries: Vec<(String, Vec<u8>)>,
    pub(crate) tensors: Vec<TensorEntry>,
}

/// A tensor in the making; the shape is row-major.
#[derive(Clone)]
pub(crate) struct TensorEntry {
    pub(crate) name: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) bytes: Vec<u8>,
    /// Where it is said to be, if not behind the one before.
    pub(crate) offset: Option<u64>,
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn typed(kind: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(value.as_ref());
    bytes
}

/// An array of `element` with the bytes of its elements.
fn array(element: u32, elements: Vec<Vec<u8>>) -> Vec<u8> {
    let mut bytes = (elements.len() as u64).to_le_bytes().to_vec();
    bytes.extend(elements.concat());
    typed(9, typed(element, bytes))
}

impl Writer {
    pub(crate) fn new(architecture: &str) -> Self {
        Self::default().text("general.architecture", architecture)
    }

    /// An entry with the bytes of its type and value, replacing one of the same key.
    pub(crate) fn entry(mut self, key: &str, bytes: Vec<u8>) -> Self {
        self = self.without(key);
        self.entries.push((key.into(), bytes));
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.entries.retain(|(other, _)| other != key);
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.entry(key, typed(8, string(value)))
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.entry(key, typed(4, value.to_le_bytes()))
    }

    pub(crate) fn f32(self, key: &str, value: f32) -> Self {
        self.entry(key, typed(6, value.to_le_bytes()))
    }

    pub(crate) fn bool(self, key: &str, value: bool) -> Self {
        self.entry(key, typed(7, [u8::from(value)]))
    }

    pub(crate) fn texts(self, key: &str, values: &[&str]) -> Self {
        let elements = values.iter().map(|value| string(value)).collect();
        self.entry(key, array(8, elements))
    }

    pub(crate) fn f32s(self, key: &str, values: &[f32]) -> Self {
        let elements = values.iter().map(|value| value.to_le_bytes().into());
        self.entry(key, array(6, elements.collect()))
    }

    pub(crate) fn i32s(self, key: &str, values: &[i32]) -> Self {
        let elements = values.iter().map(|value| value.to_le_bytes().into());
        self.entry(key, array(5, elements.collect()))
    }

    /// A tensor of the given bytes.
    pub(crate) fn raw(mut self, name: &str, shape: &[u64], kind: u32, bytes: Vec<u8>) -> Self {
        self.tensors.push(TensorEntry {
            name: name.into(),
            shape: shape.into(),
            kind,
            bytes,
            offset: None,
        });
        self
    }

    /// A float32 tensor counting from `first`.
    pub(crate) fn tensor(self, name: &str, shape: &[u64], first: f32) -> Self {
        let count = shape.iter().product::<u64>();
        let values = (0..count).flat_map(|index| (first + index as f32).to_le_bytes());
        self.raw(name, shape, TensorKind::F32.id(), values.collect())
    }

    pub(crate) fn remove_tensor(mut self, name: &str) -> Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            file.extend(string(key));
            file.extend(value);
        }
        let mut data: Vec<u8> = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(32), 0);
            file.extend(string(&tensor.name));
            file.extend((tensor.shape.len() as u32).to_le_bytes());
            for size in tensor.shape.iter().rev() {
                file.extend(size.to_le_bytes());
            }
            file.extend(tensor.kind.to_le_bytes());
            file.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
        }
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(data);
        file
    }

    pub(crate) fn file(&self) -> GgufFile {
        let file = GgufFile::from_bytes(Path::new("tiny.gguf"), self.to_bytes());
        file.expect("a well-formed file")
    }

    /// What is said of a file that is refused.
    pub(crate) fn refusal(&self) -> String {
        let file = GgufFile::from_bytes(Path::new("tiny.gguf"), self.to_bytes());
        file.expect_err("a refusal").to_string()
    }
}

/// Two layers, width 8, four query heads of two key heads, width of a head 4.
pub(crate) fn tiny_decoder(architecture: &str) -> Writer {
    let key = |name: &str| format!("{architecture}.{name}");
    let mut writer = Writer::new(architecture)
        .u32(&key("block_count"), 2)
        .u32(&key("context_length"), 64)
        .u32(&key("embedding_length"), 8)
        .u32(&key("feed_forward_length"), 12)
        .u32(&key("attention.head_count"), 4)
        .u32(&key("attention.head_count_kv"), 2)
        .u32(&key("attention.key_length"), 4)
        .u32(&key("attention.value_length"), 4)
        .u32(&key("rope.dimension_count"), 4)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
        .f32(&key("rope.freq_base"), 500_000.0)
        .tensor("token_embd.weight", &[10, 8], 0.0)
        .tensor("output_norm.weight", &[8], 100.0);
    for layer in 0..2 {
        let parts: [(&str, &[u64]); 9] = [
            ("attn_norm", &[8]),
            ("ffn_norm", &[8]),
            ("attn_q", &[16, 8]),
            ("attn_k", &[8, 8]),
            ("attn_v", &[8, 8]),
            ("attn_output", &[8, 16]),
            ("ffn_gate", &[12, 8]),
            ("ffn_up", &[12, 8]),
            ("ffn_down", &[8, 12]),
        ];
        for (part, shape) in parts {
            let name = format!("blk.{layer}.{part}.weight");
            writer = writer.tensor(&name, shape, layer as f32);
        }
        if architecture == "qwen2" {
            for (part, rows) in [("attn_q", 16), ("attn_k", 8), ("attn_v", 8)] {
                writer = writer.tensor(&format!("blk.{layer}.{part}.bias"), &[rows], 0.0);
            }
        }
    }
    writer
}

/// Two layers of CLIP, width 8, and LLaVA-1.5's projector to width 6, named as current converters do.
pub(crate) fn tiny_mmproj() -> Writer {
    let mut writer = Writer::new("clip")
        .bool("clip.has_vision_encoder", true)
        .text("clip.projector_type", "mlp")
        .bool("clip.use_gelu", false)
        .u32("clip.vision.image_size", 4)
        .u32("clip.vision.patch_size", 2)
        .u32("clip.vision.embedding_length", 8)
        .u32("clip.vision.feed_forward_length", 12)
        .u32("clip.vision.block_count", 2)
        .u32("clip.vision.attention.head_count", 2)
        .f32("clip.vision.attention.layer_norm_epsilon", 1e-5)
        .f32s(
            "clip.vision.image_mean",
            &[0.48145466, 0.4578275, 0.40821073],
        )
        .f32s(
            "clip.vision.image_std",
            &[0.268_629_54, 0.261_302_58, 0.275_777_11].map(|value: f64| value as f32),
        )
        .tensor("v.class_embd", &[8], 0.0)
        .tensor("v.patch_embd.weight", &[8, 3, 2, 2], 0.0)
        .tensor("v.position_embd.weight", &[5, 8], 0.0)
        .tensor("v.pre_ln.weight", &[8], 0.0)
        .tensor("v.pre_ln.bias", &[8], 0.0)
        .tensor("mm.0.weight", &[6, 8], 0.0)
        .tensor("mm.0.bias", &[6], 0.0)
        .tensor("mm.2.weight", &[6, 6], 0.0)
        .tensor("mm.2.bias", &[6], 0.0);
    for layer in 0..2 {
        let parts: [(&str, &[u64]); 8] = [
            ("ln1", &[8]),
            ("ln2", &[8]),
            ("attn_q", &[8, 8]),
            ("attn_k", &[8, 8]),
            ("attn_v", &[8, 8]),
            ("attn_out", &[8, 8]),
            ("ffn_up", &[12, 8]),
            ("ffn_down", &[8, 12]),
        ];
        for (part, shape) in parts {
            writer = writer.tensor(&format!("v.blk.{layer}.{part}.weight"), shape, 0.0);
            writer = writer.tensor(&format!("v.blk.{layer}.{part}.bias"), &shape[..1], 0.0);
        }
    }
    writer
}
