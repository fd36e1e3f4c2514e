//! Halves are used in the map of their files; what is converted is converted tensor by tensor.
//!
//! A process of its own, because what it measures is the process.
#![cfg(target_os = "linux")]

use burn_flex::Flex;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use victor_weights::{LoadOptions, WeightDtype, load, parse_config};

const HIDDEN: usize = 512;
const LAYERS: usize = 12;
const INTERMEDIATE: usize = 2048;
const VOCAB: usize = 8192;

/// Both in one test: what is measured is the whole process.
#[test]
fn halves_stay_in_the_map_and_conversion_takes_1_3_times_the_model() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = json!({
        "model_type": "llava", "image_token_index": 7,
        "text_config": {
            "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
            "num_hidden_layers": LAYERS, "num_attention_heads": 8, "vocab_size": VOCAB,
        },
        "vision_config": {
            "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
        },
    });
    let config = parse_config(&config, Path::new("config.json")).expect("a config");
    let elements = write_checkpoint(dir.path());
    let load = |dtype| {
        let options = LoadOptions {
            dtype,
            ..Default::default()
        };
        let load = || load::<Flex>(dir.path(), &config, &Default::default(), &options);
        let ((_, report), peak) = peak_of(|| load().expect("a model"));
        (report, peak)
    };

    let file = (elements * size_of::<u16>()) as f64;
    let (report, peak) = load(WeightDtype::Auto);
    let used = peak as f64 / file;
    eprintln!("{:.0} MB of halves, peak {used:.3} × that", file / 1e6);
    assert!(used < 0.1, "the peak is {used:.3} times the file");
    assert!(report.mapped_bytes as f64 > 0.99 * file, "{report:?}");

    let (report, peak) = load(WeightDtype::F32);
    let loaded = elements * size_of::<f32>();
    let used = peak as f64 / loaded as f64;
    eprintln!(
        "{:.0} MB in f32, peak {used:.2} × that",
        loaded as f64 / 1e6
    );
    assert!(used > 0.9, "the watcher saw nothing: {used:.2}");
    assert!(used < 1.3, "the peak is {used:.2} times the model");
    assert_eq!((report.mapped_bytes, report.converted_bytes), (0, loaded));
}

/// What `task` returns, and how many more anonymous bytes there were while it ran.
fn peak_of<T>(task: impl FnOnce() -> T) -> (T, usize) {
    let before = anonymous_bytes();
    let peak = Arc::new(AtomicUsize::new(before));
    let done = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (peak, done) = (peak.clone(), done.clone());
        move || {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(anonymous_bytes(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let output = task();
    done.store(true, Ordering::Relaxed);
    watcher.join().expect("the watcher");
    (output, peak.load(Ordering::Relaxed) - before)
}

fn anonymous_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .expect("RssAnon");
    let kilobytes = line
        .split_whitespace()
        .nth(1)
        .and_then(|value| value.parse::<usize>().ok());
    kilobytes.expect("a number") * 1024
}

/// Writes zeros in half precision and says how many.
fn write_checkpoint(dir: &Path) -> usize {
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        (
            "model.language_model.embed_tokens.weight".into(),
            vec![VOCAB, HIDDEN],
        ),
        ("model.language_model.norm.weight".into(), vec![HIDDEN]),
        ("lm_head.weight".into(), vec![VOCAB, HIDDEN]),
        (
            "model.multi_modal_projector.linear_1.weight".into(),
            vec![HIDDEN, 32],
        ),
        (
            "model.multi_modal_projector.linear_1.bias".into(),
            vec![HIDDEN],
        ),
        (
            "model.multi_modal_projector.linear_2.weight".into(),
            vec![HIDDEN, HIDDEN],
        ),
        (
            "model.multi_modal_projector.linear_2.bias".into(),
            vec![HIDDEN],
        ),
    ];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.language_model.layers.{layer}.{part}.weight");
        for part in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            shapes.push((name(&format!("self_attn.{part}")), vec![HIDDEN, HIDDEN]));
        }
        shapes.push((name("mlp.gate_proj"), vec![INTERMEDIATE, HIDDEN]));
        shapes.push((name("mlp.up_proj"), vec![INTERMEDIATE, HIDDEN]));
        shapes.push((name("mlp.down_proj"), vec![HIDDEN, INTERMEDIATE]));
        shapes.push((name("input_layernorm"), vec![HIDDEN]));
        shapes.push((name("post_attention_layernorm"), vec![HIDDEN]));
    }
    let tower = |part: &str| format!("model.vision_tower.{part}");
    shapes.push((tower("embeddings.class_embedding"), vec![32]));
    shapes.push((
        tower("embeddings.patch_embedding.weight"),
        vec![32, 3, 14, 14],
    ));
    shapes.push((tower("embeddings.position_embedding.weight"), vec![5, 32]));
    for part in [
        "pre_layrnorm",
        "encoder.layers.0.layer_norm1",
        "encoder.layers.0.layer_norm2",
    ] {
        shapes.push((tower(&format!("{part}.weight")), vec![32]));
        shapes.push((tower(&format!("{part}.bias")), vec![32]));
    }
    for part in [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.out_proj",
    ] {
        shapes.push((
            tower(&format!("encoder.layers.0.{part}.weight")),
            vec![32, 32],
        ));
        shapes.push((tower(&format!("encoder.layers.0.{part}.bias")), vec![32]));
    }
    shapes.push((tower("encoder.layers.0.mlp.fc1.weight"), vec![64, 32]));
    shapes.push((tower("encoder.layers.0.mlp.fc1.bias"), vec![64]));
    shapes.push((tower("encoder.layers.0.mlp.fc2.weight"), vec![32, 64]));
    shapes.push((tower("encoder.layers.0.mlp.fc2.bias"), vec![32]));

    let largest = shapes
        .iter()
        .map(|(_, shape)| shape.iter().product::<usize>())
        .max();
    let zeros = vec![0_u8; 2 * largest.unwrap_or(0)];
    let mut elements = 0;
    let views = shapes.iter().map(|(name, shape)| {
        let count: usize = shape.iter().product();
        elements += count;
        let view = TensorView::new(Dtype::F16, shape.clone(), &zeros[..2 * count]);
        (name.as_str(), view.expect("a view"))
    });
    let views: Vec<_> = views.collect();
    let path = dir.join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).expect("a checkpoint");
    elements
}
