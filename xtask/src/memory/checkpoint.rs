//! A LLaVA checkpoint of random f16 weights, as it would come from the Hub, written as a stream.

use anyhow::{Context, Result};
use half::f16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

/// What a model is made of.
pub(super) struct Shape {
    pub(super) name: &'static str,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    vocabulary: usize,
    vision_hidden: usize,
    vision_intermediate: usize,
    vision_layers: usize,
    vision_heads: usize,
    /// Bytes of anonymous memory allowed, where that is not derived.
    limit: Option<u64>,
}

/// LLaVA-1.5-7B: Vicuna-7B and CLIP ViT-L/14 at 336 pixels.
pub(super) const FULL: Shape = Shape {
    name: "LLaVA-1.5-7B",
    hidden: 4096,
    intermediate: 11008,
    layers: 32,
    heads: 32,
    vocabulary: 32064,
    vision_hidden: 1024,
    vision_intermediate: 4096,
    vision_layers: 24,
    vision_heads: 16,
    limit: Some(1_500_000_000),
};

/// The same in narrow: half a gigabyte.
pub(super) const SMALL: Shape = Shape {
    name: "LLaVA, 1024 wide",
    hidden: 1024,
    intermediate: 2816,
    layers: 16,
    heads: 16,
    vocabulary: 32064,
    vision_hidden: 256,
    vision_intermediate: 1024,
    vision_layers: 6,
    vision_heads: 4,
    limit: None,
};

const IMAGE_SIZE: usize = 336;
const PATCH: usize = 14;
/// Bytes of tensors in a file at most, as on the Hub.
const SHARD: u64 = 5_000_000_000;
/// The reference case whose tokenizer and template are taken: its id of `<image>` is this.
const COMPANIONS: &str = "tests/golden/llava15-vicuna";
const IMAGE_TOKEN: u32 = 636;
/// Program, threads, tokenizer, allocator, a widened panel and the packing of products.
const FIXED: u64 = 128_000_000;

/// What was written.
pub(super) struct Written {
    /// Bytes of the weight files.
    pub(super) bytes: u64,
    /// Numbers in them.
    pub(super) parameters: u64,
}

/// How the numbers of a tensor are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Fill {
    Zeros,
    Ones,
    /// Normal with the variance of one over this.
    Normal(usize),
}

struct Tensor {
    name: String,
    shape: Vec<usize>,
    fill: Fill,
}

impl Shape {
    /// The anonymous memory a prompt of so many tokens may take, in bytes: a fixed part, the cache and
    /// what a layer computes. No weight is in it.
    pub(super) fn limit(&self, prompt_tokens: u64) -> u64 {
        let bytes = |numbers: usize| prompt_tokens * 4 * numbers as u64;
        let cache = bytes(2 * self.layers * self.hidden);
        // Two residual streams, norm, queries, keys, values; gate, up and their product.
        let activations = bytes(6 * self.hidden + 3 * self.intermediate);
        self.limit.unwrap_or(FIXED + cache + activations)
    }

    fn config(&self) -> Value {
        json!({
            "model_type": "llava", "image_token_index": IMAGE_TOKEN,
            "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
            "projector_hidden_act": "gelu", "tie_word_embeddings": false, "torch_dtype": "float16",
            "text_config": {
                "model_type": "llama", "hidden_size": self.hidden,
                "intermediate_size": self.intermediate, "num_hidden_layers": self.layers,
                "num_attention_heads": self.heads, "num_key_value_heads": self.heads,
                "vocab_size": self.vocabulary, "rms_norm_eps": 1e-5,
                "max_position_embeddings": 4096,
            },
            "vision_config": {
                "model_type": "clip_vision_model", "hidden_size": self.vision_hidden,
                "intermediate_size": self.vision_intermediate,
                "num_hidden_layers": self.vision_layers,
                "num_attention_heads": self.vision_heads,
                "image_size": IMAGE_SIZE, "patch_size": PATCH,
            },
        })
    }

    /// In the order and under the names of `llava-hf/llava-1.5-7b-hf`.
    fn tensors(&self) -> Vec<Tensor> {
        let mut list = List::default();
        let (width, wide) = (self.vision_hidden, self.vision_intermediate);
        list.within("vision_tower.vision_model.");
        list.add("embeddings.class_embedding", &[width], Fill::Normal(width));
        let patch = [width, 3, PATCH, PATCH];
        let pixels = Fill::Normal(3 * PATCH * PATCH);
        list.add("embeddings.patch_embedding.weight", &patch, pixels);
        let positions = [(IMAGE_SIZE / PATCH).pow(2) + 1, width];
        let table = Fill::Normal(width);
        list.add("embeddings.position_embedding.weight", &positions, table);
        list.norm("pre_layrnorm", width);
        for layer in 0..self.vision_layers {
            list.within(&format!(
                "vision_tower.vision_model.encoder.layers.{layer}."
            ));
            for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                list.linear(&format!("self_attn.{part}"), width, width, true);
            }
            list.linear("mlp.fc1", width, wide, true);
            list.linear("mlp.fc2", wide, width, true);
            list.norm("layer_norm1", width);
            list.norm("layer_norm2", width);
        }
        let hidden = self.hidden;
        list.within("multi_modal_projector.");
        list.linear("linear_1", width, hidden, true);
        list.linear("linear_2", hidden, hidden, true);
        list.within("language_model.model.");
        let vocabulary = [self.vocabulary, hidden];
        list.add("embed_tokens.weight", &vocabulary, Fill::Normal(hidden));
        for layer in 0..self.layers {
            list.within(&format!("language_model.model.layers.{layer}."));
            for part in ["q_proj", "k_proj", "v_proj", "o_proj"] {
                list.linear(&format!("self_attn.{part}"), hidden, hidden, false);
            }
            list.linear("mlp.gate_proj", hidden, self.intermediate, false);
            list.linear("mlp.up_proj", hidden, self.intermediate, false);
            list.linear("mlp.down_proj", self.intermediate, hidden, false);
            list.add("input_layernorm.weight", &[hidden], Fill::Ones);
            list.add("post_attention_layernorm.weight", &[hidden], Fill::Ones);
        }
        list.within("language_model.");
        list.add("model.norm.weight", &[hidden], Fill::Ones);
        list.add("lm_head.weight", &vocabulary, Fill::Normal(hidden));
        list.tensors
    }
}

#[derive(Default)]
struct List {
    prefix: String,
    tensors: Vec<Tensor>,
}

impl List {
    fn within(&mut self, prefix: &str) {
        self.prefix = prefix.to_owned();
    }

    fn add(&mut self, name: &str, shape: &[usize], fill: Fill) {
        self.tensors.push(Tensor {
            name: format!("{}{name}", self.prefix),
            shape: shape.to_owned(),
            fill,
        });
    }

    fn linear(&mut self, name: &str, input: usize, output: usize, bias: bool) {
        let weight = format!("{name}.weight");
        self.add(&weight, &[output, input], Fill::Normal(input));
        if bias {
            self.add(&format!("{name}.bias"), &[output], Fill::Zeros);
        }
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(&format!("{name}.weight"), &[width], Fill::Ones);
        self.add(&format!("{name}.bias"), &[width], Fill::Zeros);
    }
}

impl Tensor {
    fn bytes(&self) -> u64 {
        2 * self.shape.iter().product::<usize>() as u64
    }
}

/// Writes the checkpoint and a picture into a new folder.
pub(super) fn write(shape: &Shape, dir: &Path) -> Result<Written> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    for file in [
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ] {
        let from = Path::new(COMPANIONS).join(file);
        fs::copy(&from, dir.join(file)).with_context(|| from.display().to_string())?;
    }
    let json = |name: &str, value: &Value| {
        let path = dir.join(name);
        fs::write(&path, value.to_string()).with_context(|| path.display().to_string())
    };
    json("config.json", &shape.config())?;
    let size = json!({"height": IMAGE_SIZE, "width": IMAGE_SIZE});
    json(
        "preprocessor_config.json",
        &json!({
            "image_processor_type": "CLIPImageProcessor", "crop_size": size,
            "size": {"shortest_edge": IMAGE_SIZE}, "do_center_crop": true, "do_resize": true,
            "do_rescale": true, "do_normalize": true, "do_convert_rgb": true, "resample": 3,
            "rescale_factor": 1.0 / 255.0, "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
            "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11],
        }),
    )?;
    let picture =
        image::RgbImage::from_fn(48, 32, |x, y| image::Rgb([5 * x as u8, 7 * y as u8, 128]));
    picture.save(dir.join("picture.png"))?;

    let tensors = shape.tensors();
    let shards = shards(&tensors);
    let mut blocks = Blocks::default();
    let mut weight_map = Map::new();
    for (index, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", index + 1, shards.len());
        let path = dir.join(&name);
        write_shard(shard, &path, &mut blocks).with_context(|| path.display().to_string())?;
        for tensor in *shard {
            weight_map.insert(tensor.name.clone(), json!(name));
        }
    }
    let bytes: u64 = tensors.iter().map(Tensor::bytes).sum();
    let index = json!({"metadata": {"total_size": bytes}, "weight_map": weight_map});
    json("model.safetensors.index.json", &index)?;
    Ok(Written {
        bytes,
        parameters: bytes / 2,
    })
}

/// Runs of tensors that fit a file.
fn shards(tensors: &[Tensor]) -> Vec<&[Tensor]> {
    let mut shards = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (index, tensor) in tensors.iter().enumerate() {
        if size + tensor.bytes() > SHARD && index > start {
            shards.push(&tensors[start..index]);
            (start, size) = (index, 0);
        }
        size += tensor.bytes();
    }
    shards.push(&tensors[start..]);
    shards
}

fn write_shard(tensors: &[Tensor], path: &Path, blocks: &mut Blocks) -> Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.bytes();
        let entry = json!({"dtype": "F16", "shape": tensor.shape, "data_offsets": [offset, end]});
        header.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut header = Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for tensor in tensors {
        let block = blocks.of(tensor.fill);
        let mut left = tensor.bytes() as usize;
        while left > 0 {
            let part = left.min(block.len());
            file.write_all(&block[..part])?;
            left -= part;
        }
    }
    file.into_inner()?.sync_all()?;
    Ok(())
}

/// Numbers that are repeated until a tensor is full: drawing seven milliards would take minutes.
#[derive(Default)]
struct Blocks(HashMap<Fill, Vec<u8>>);

impl Blocks {
    /// A prime, so that the rows of no matrix are alike.
    const NUMBERS: usize = 1_000_003;

    fn of(&mut self, fill: Fill) -> &[u8] {
        self.0.entry(fill).or_insert_with(|| {
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let mut number = || match fill {
                Fill::Zeros => 0.0,
                Fill::Ones => 1.0,
                Fill::Normal(inverse_variance) => {
                    // Twelve uniform numbers have a variance of one.
                    let sum: f32 = (0..12).map(|_| rng.random::<f32>()).sum();
                    (sum - 6.0) / (inverse_variance as f32).sqrt()
                }
            };
            (0..Self::NUMBERS)
                .flat_map(|_| f16::from_f32(number()).to_le_bytes())
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn shapes_are_of_the_sizes_they_say() {
        let bytes = |shape: &Shape| shape.tensors().iter().map(Tensor::bytes).sum::<u64>();
        // transformers counts 7,063,427,072 parameters, with the tower's last norm.
        assert_eq!(bytes(&FULL), 2 * (7_063_427_072 - 2 * 1024));
        assert!((500_000_000..560_000_000).contains(&bytes(&SMALL)));
        assert!(
            SMALL.limit(640) < bytes(&SMALL) / 2,
            "a copy would not show"
        );
    }

    #[test]
    fn files_are_safetensors_with_finite_numbers() {
        let shape = Shape {
            hidden: 16,
            intermediate: 24,
            layers: 2,
            heads: 2,
            vocabulary: 640,
            vision_hidden: 8,
            vision_intermediate: 16,
            vision_layers: 2,
            vision_heads: 2,
            ..SMALL
        };
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("model.safetensors");
        let tensors = shape.tensors();
        write_shard(&tensors, &path, &mut Blocks::default()).expect("written");
        let bytes = fs::read(&path).expect("read");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        assert_eq!(file.len(), tensors.len());
        for (name, view) in file.iter() {
            let pairs = view.data().as_chunks::<2>().0;
            let finite = |pair: &[u8; 2]| f16::from_le_bytes(*pair).is_finite();
            assert!(pairs.iter().all(finite), "{name}");
        }
    }
}
