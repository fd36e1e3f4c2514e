//! What is written opens again, in every storage and both families of towers.

use burn::prelude::*;
use burn_flex::Flex;
use serde_json::{Value, json};
use std::path::Path;
use victor_model::Vlm;
use victor_weights::{LoadOptions, SaveOptions, Storage, load, parse_config, read_config, save};

fn config(vision: Value) -> Value {
    json!({
        "model_type": "llava", "image_token_index": 7, "vision_feature_layer": -2,
        "text_config": {
            "model_type": "qwen2", "hidden_size": 24, "intermediate_size": 32,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "vocab_size": 40, "tie_word_embeddings": false,
        },
        "vision_config": vision,
        "visual_token_reduction": {"type": "victor", "num_registers": 2, "drop_layer": 1},
    })
}

fn clip() -> Value {
    json!({
        "model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    })
}

fn dinov2() -> Value {
    json!({
        "model_type": "dinov2", "hidden_size": 16, "mlp_ratio": 2, "num_hidden_layers": 3,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    })
}

/// Logits of a prompt with one picture: they hang on every tensor.
fn logits(model: &Vlm<Flex>) -> Vec<f32> {
    let device = Default::default();
    let pixels = (0..3 * 28 * 28).map(|index| ((index * 37 % 101) as f32 - 50.0) / 40.0);
    let pixels = TensorData::new(pixels.collect::<Vec<f32>>(), [1, 3, 28, 28]);
    let visual = model.project(model.encode_images(Tensor::from_data(pixels, &device)));
    let ids = vec![1, 7, 7, 7, 7, 3, 4];
    let sequence = victor_model::Sequence {
        ids,
        image_spans: std::iter::once(1..5).collect(),
    };
    let layout = model.layout(&[sequence]).expect("a layout");
    let hidden = model.forward(&layout, model.embed(&layout, Some(visual)), None);
    let logits = model.language_model.logits(hidden).into_data();
    logits.to_vec().expect("floats")
}

fn round_trip(vision: Value, storage: Storage, tolerance: f64) {
    let dir = tempfile::tempdir().expect("a folder");
    let (source, out) = (dir.path().join("source"), dir.path().join("out"));
    std::fs::create_dir(&source).expect("a folder");
    let json = config(vision);
    std::fs::write(source.join("config.json"), json.to_string()).expect("written");
    let parsed = parse_config(&json, Path::new("config.json")).expect("a config");
    let device = Default::default();
    let model = Vlm::<Flex>::init(&parsed, &device);
    let expected = logits(&model);

    // Small enough for several shards.
    let options = SaveOptions {
        storage,
        max_shard_bytes: Some(4096),
    };
    save(&model, &source, &out, &options).expect("saved");
    assert!(out.join("model.safetensors.index.json").is_file());
    let written = read_config(&out).expect("a config");
    let (read, report) =
        load::<Flex>(&out, &written, &device, &LoadOptions::default()).expect("loaded");
    assert_eq!(report.unexpected, Vec::<String>::new());
    let found = logits(&read);
    let difference: f64 = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| f64::from(a - b).powi(2))
        .sum();
    let norm: f64 = expected.iter().map(|value| f64::from(*value).powi(2)).sum();
    let error = (difference / norm).sqrt();
    assert!(error <= tolerance, "{storage:?}: {error:e}");
}

#[test]
fn floats_come_back() {
    round_trip(clip(), Storage::F32, 0.0);
    round_trip(dinov2(), Storage::F32, 0.0);
    round_trip(clip(), Storage::F16, 3e-3);
    round_trip(dinov2(), Storage::F16, 3e-3);
}

#[test]
fn int8_rows_come_back_close() {
    round_trip(clip(), Storage::Int8, 5e-2);
    round_trip(dinov2(), Storage::Int8, 5e-2);
}

#[test]
fn a_folder_that_is_no_checkpoint_is_not_replaced() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("config.json"), config(clip()).to_string()).expect("written");
    let precious = dir.path().join("precious");
    std::fs::create_dir(&precious).expect("a folder");
    std::fs::write(precious.join("thesis.txt"), "years").expect("written");
    let parsed = read_config(dir.path()).expect("a config");
    let model = Vlm::<Flex>::init(&parsed, &Default::default());
    let refused = save(&model, dir.path(), &precious, &SaveOptions::default());
    let message = refused.expect_err("refused").to_string();
    assert!(message.contains("not a checkpoint"), "{message}");
    assert!(precious.join("thesis.txt").is_file());
}
