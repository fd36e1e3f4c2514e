//! What is written opens again: every storage, all families of towers, tiles, a decoder alone.

use burn::backend::Autodiff;
use burn::prelude::*;
use burn_flex::Flex;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use victor_model::{TileGrid, Vlm};
use victor_weights::{
    LoadOptions, LoadReport, SaveOptions, Storage, WeightDtype, load, parse_config, read_config,
    save,
};

fn config(vision: Value) -> Value {
    let siglip = vision["model_type"] == "siglip_vision_model";
    let mut config = json!({
        "model_type": "llava", "image_token_index": 7, "vision_feature_layer": -2,
        "vision_feature_select_strategy": if siglip { "full" } else { "default" },
        "text_config": decoder(),
        "vision_config": vision,
        "visual_token_reduction": {"type": "victor", "num_registers": 2, "drop_layer": 1},
    });
    config["text_config"]["tie_word_embeddings"] = json!(false);
    config
}

fn next() -> Value {
    let mut config = config(clip());
    config["model_type"] = json!("llava_next");
    config["image_grid_pinpoints"] = json!([[28, 28]]);
    config
}

/// A decoder alone.
fn decoder() -> Value {
    json!({
        "model_type": "qwen2", "hidden_size": 24, "intermediate_size": 32,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 40,
    })
}

fn siglip() -> Value {
    json!({
        "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
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

/// Logits of a prompt with one picture, where the model takes one: they hang on every tensor.
fn logits(model: &Vlm<Flex>) -> Vec<f32> {
    let device = Default::default();
    let grid = TileGrid::whole(1, 1);
    let visual = model.config().picture.as_ref().map(|picture| {
        let views = match &picture.image_grid_pinpoints {
            Some(_) => grid.views(),
            None => 1,
        };
        let pixels = (0..views * 3 * 28 * 28).map(|index| (index * 37 % 101) as f32 / 40.0 - 1.25);
        let pixels = TensorData::new(pixels.collect::<Vec<f32>>(), [views, 3, 28, 28]);
        let features = model.encode_images(Tensor::from_data(pixels, &device));
        model.visual_tokens(features, &[grid])
    });
    let tokens = visual.as_ref().map_or(0, |visual| visual.dims()[0]);
    let mut ids = vec![1];
    ids.extend(std::iter::repeat_n(7, tokens));
    ids.extend([3, 4]);
    let sequence = victor_model::Sequence {
        ids,
        image_spans: visual.iter().map(|_| 1..1 + tokens).collect(),
    };
    let layout = model.layout(&[sequence]).expect("a layout");
    let hidden = model.forward(&layout, model.embed(&layout, visual), None);
    let logits = model.language_model.logits(hidden).into_data();
    logits.to_vec().expect("floats")
}

fn round_trip(json: Value, storage: Storage, tolerance: f64) {
    let dir = tempfile::tempdir().expect("a folder");
    let (source, out) = (dir.path().join("source"), dir.path().join("out"));
    std::fs::create_dir(&source).expect("a folder");
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
    round_trip(config(clip()), Storage::F32, 0.0);
    round_trip(config(dinov2()), Storage::F32, 0.0);
    round_trip(config(siglip()), Storage::F32, 0.0);
    round_trip(next(), Storage::F32, 0.0);
    round_trip(decoder(), Storage::F32, 0.0);
    round_trip(config(clip()), Storage::F16, 3e-3);
    round_trip(config(dinov2()), Storage::F16, 3e-3);
}

#[test]
fn int8_rows_come_back_close() {
    round_trip(config(clip()), Storage::Int8, 5e-2);
    round_trip(config(dinov2()), Storage::Int8, 5e-2);
}

/// Writes a model as f16 into one file and gives its folder.
fn saved_as_halves(dir: &Path) -> PathBuf {
    let (source, out) = (dir.join("source"), dir.join("out"));
    std::fs::create_dir(&source).expect("a folder");
    let json = config(clip());
    std::fs::write(source.join("config.json"), json.to_string()).expect("written");
    let parsed = parse_config(&json, Path::new("config.json")).expect("a config");
    let model = Vlm::<Flex>::init(&parsed, &Default::default());
    let options = SaveOptions {
        storage: Storage::F16,
        max_shard_bytes: None,
    };
    save(&model, &source, &out, &options).expect("saved");
    out
}

fn loaded(dir: &Path, dtype: WeightDtype) -> (Vec<f32>, LoadReport) {
    let config = read_config(dir).expect("a config");
    let options = LoadOptions {
        dtype,
        ..Default::default()
    };
    let (model, report) =
        load::<Flex>(dir, &config, &Default::default(), &options).expect("loaded");
    (logits(&model), report)
}

#[test]
fn stored_halves_compute_the_same_in_place_as_in_f32() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = saved_as_halves(dir.path());
    let (expected, report) = loaded(&out, WeightDtype::F32);
    assert_eq!(report.mapped_bytes, 0);
    let (found, report) = loaded(&out, WeightDtype::Auto);
    assert!(report.mapped_bytes > 0, "{report:?}");
    assert_eq!(found, expected);
    let (rounded, _) = loaded(&out, WeightDtype::Bf16);
    assert_ne!(rounded, expected);
}

#[test]
fn tensors_off_their_grid_are_copied() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = saved_as_halves(dir.path());
    let (expected, aligned) = loaded(&out, WeightDtype::Auto);
    // A header that is a space longer.
    let path = out.join("model.safetensors");
    let file = std::fs::read(&path).expect("a file");
    let (length, rest) = file.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("8"));
    let (header, numbers) = rest.split_at(length as usize);
    let length = (length + 1).to_le_bytes();
    std::fs::write(&path, [&length, header, b" ", numbers].concat()).expect("written");
    let (found, report) = loaded(&out, WeightDtype::Auto);
    assert_eq!(report.mapped_bytes, 0);
    assert_eq!(
        report.converted_bytes,
        aligned.mapped_bytes + aligned.converted_bytes
    );
    assert_eq!(found, expected);
}

#[test]
fn halves_are_refused_where_gradients_are_taken() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = saved_as_halves(dir.path());
    let config = read_config(&out).expect("a config");
    let load = |dtype| {
        let options = LoadOptions {
            dtype,
            ..Default::default()
        };
        load::<Autodiff<Flex>>(&out, &config, &Default::default(), &options)
    };
    let (_, report) = load(WeightDtype::Auto).expect("loaded as f32");
    assert_eq!(report.mapped_bytes, 0);
    let message = load(WeightDtype::F16).expect_err("refused").to_string();
    assert!(message.contains("--dtype"), "{message}");
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
    assert!(
        message.contains("other things than a checkpoint"),
        "{message}"
    );
    assert!(precious.join("thesis.txt").is_file());
}
