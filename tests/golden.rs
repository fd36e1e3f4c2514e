//! Every stage of the reference cases, computed by transformers, on every backend compiled in.
//!
//! The cases come with `expected.safetensors`; `xtask/python/golden.py` makes more of them.

mod common;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::Path;
use victor::{Device, Request, Trace, TraceValues, Victor, decode_image};

/// Largest relative L2 error of a float stage.
fn tolerance(device: Device) -> f64 {
    match device {
        Device::Flex | Device::NdArray => 1e-5,
        _ => 1e-4,
    }
}

/// Pixels are compared value by value.
const PIXEL_TOLERANCE: f32 = 1e-6;

const STAGES: [&str; 5] = [
    "vision_features",
    "projected",
    "inputs_embeds",
    "logits_prefill",
    "first_logits",
];

fn check(case: &str) {
    let dir = common::golden().join(case);
    let text = std::fs::read_to_string(dir.join("case.json")).expect("case.json");
    let expected: Value = serde_json::from_str(&text).expect("case.json");
    let file = std::fs::read(dir.join("expected.safetensors")).expect("expected.safetensors");
    let file = SafeTensors::deserialize(&file).expect("expected.safetensors");
    for device in common::devices() {
        let trace = trace(&dir, &expected, device);
        let context = format!("{case} on {device}");
        check_pixels(&trace, &file, &context);
        assert_eq!(
            ints(&trace, "input_ids"),
            file_ints(&file, "input_ids"),
            "{context}"
        );
        for stage in STAGES {
            // Tiles have no features of their own in the references.
            if file.tensor(stage).is_err() {
                assert!(trace.get(stage).is_none(), "{context}: {stage}");
                continue;
            }
            let error = relative_error(&trace, &file, stage, &context);
            eprintln!("{context}: {stage} {error:.1e}");
            let limit = tolerance(device);
            assert!(
                error <= limit,
                "{context}: {stage} is off by {error:e}, limit {limit:e}"
            );
        }
        let ids: Vec<i64> = numbers(&expected["expected_ids"]);
        assert_eq!(ints(&trace, "generated_ids"), ids, "{context}");
    }
}

fn trace(dir: &Path, expected: &Value, device: Device) -> Trace {
    let names = expected["images"].as_array().expect("images");
    let images = names.iter().map(|name| {
        decode_image(&dir.join(name.as_str().expect("a file name"))).expect("a picture")
    });
    let request = Request::raw(
        expected["prompt"].as_str().expect("prompt"),
        images.collect(),
    );
    let model = Victor::from_pretrained(dir, device).expect("a checkpoint");
    assert_eq!(model.report().unexpected, Vec::<String>::new());
    let steps = expected["expected_ids"]
        .as_array()
        .expect("expected_ids")
        .len();
    model.trace(&request, steps).expect("a trace")
}

fn numbers(value: &Value) -> Vec<i64> {
    value
        .as_array()
        .expect("numbers")
        .iter()
        .map(|id| id.as_i64().expect("a number"))
        .collect()
}

fn ints(trace: &Trace, name: &str) -> Vec<i64> {
    match &trace.get(name).expect(name).values {
        TraceValues::Int(values) => values.clone(),
        TraceValues::Float(_) => panic!("{name} holds floats"),
    }
}

fn floats<'a>(trace: &'a Trace, name: &str) -> &'a [f32] {
    match &trace.get(name).expect(name).values {
        TraceValues::Float(values) => values,
        TraceValues::Int(_) => panic!("{name} holds integers"),
    }
}

fn file_ints(file: &SafeTensors, name: &str) -> Vec<i64> {
    let view = file.tensor(name).expect(name);
    assert_eq!(view.dtype(), Dtype::I64, "{name}");
    view.data()
        .chunks_exact(8)
        .map(|bytes| i64::from_le_bytes(bytes.try_into().expect("8")))
        .collect()
}

fn file_floats(file: &SafeTensors, name: &str) -> (Vec<usize>, Vec<f32>) {
    let view = file.tensor(name).expect(name);
    assert_eq!(view.dtype(), Dtype::F32, "{name}");
    let values = view
        .data()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("4")));
    (view.shape().to_vec(), values.collect())
}

fn check_pixels(trace: &Trace, file: &SafeTensors, context: &str) {
    let (shape, expected) = file_floats(file, "pixel_values");
    assert_eq!(
        trace.get("pixel_values").expect("pixel_values").shape,
        shape,
        "{context}"
    );
    for (index, (found, expected)) in floats(trace, "pixel_values")
        .iter()
        .zip(&expected)
        .enumerate()
    {
        let error = (found - expected).abs();
        assert!(
            error <= PIXEL_TOLERANCE,
            "{context}: pixel {index} is off by {error}"
        );
    }
}

fn relative_error(trace: &Trace, file: &SafeTensors, name: &str, context: &str) -> f64 {
    let (shape, expected) = file_floats(file, name);
    assert_eq!(
        trace.get(name).expect(name).shape,
        shape,
        "{context}: shape of {name}"
    );
    let mut difference = 0.0;
    let mut norm = 0.0;
    for (found, expected) in floats(trace, name).iter().zip(&expected) {
        difference += f64::from(found - expected).powi(2);
        norm += f64::from(*expected).powi(2);
    }
    (difference / norm).sqrt()
}

/// A test for every folder of `tests/golden`.
macro_rules! cases {
    ($($name:ident = $case:literal,)*) => {
        $(
            #[test]
            fn $name() {
                check($case);
            }
        )*

        #[test]
        fn every_case_is_run() {
            let folders = std::fs::read_dir(common::golden()).expect("cases");
            let mut found: Vec<String> = folders
                .map(|folder| folder.expect("a folder").file_name().to_string_lossy().into())
                .collect();
            found.sort();
            assert_eq!(found, [$($case),*]);
        }
    };
}

cases! {
    llava_dinov2_llama3 = "llava-dinov2-llama3",
    llava_next_mistral_wide = "llava-next-mistral-wide",
    llava_next_qwen2 = "llava-next-qwen2",
    llava_siglip_qwen2 = "llava-siglip-qwen2",
    llava15_llama3 = "llava15-llama3",
    llava15_llama31_ropescale = "llava15-llama31-ropescale",
    llava15_mistral = "llava15-mistral",
    llava15_qwen2_tied = "llava15-qwen2-tied",
    llava15_two_images = "llava15-two-images",
    llava15_vicuna = "llava15-vicuna",
    llava15_vicuna_original = "llava15-vicuna-original",
    victor_llama3_m1_k1 = "victor-llama3-m1-k1",
    victor_next_qwen2_m4_k3 = "victor-next-qwen2-m4-k3",
    victor_qwen2_nodrop = "victor-qwen2-nodrop",
    victor_two_images_m4_k2 = "victor-two-images-m4-k2",
    victor_vicuna_m4_k3 = "victor-vicuna-m4-k3",
    victor_vicuna_original = "victor-vicuna-original",
}
