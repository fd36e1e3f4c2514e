//! LLaVA-NeXT end to end: pictures of different tile counts in one batch.

mod common;

use serde_json::{Value, json};
use std::path::Path;
use victor::{Device, GenerateOptions, Request, RgbImage, Victor, VictorError};

/// Portrait, landscape, square and extreme: together more views than the tower computes at once.
const SIZES: [(u32, u32); 6] = [
    (40, 110),
    (110, 40),
    (64, 64),
    (200, 190),
    (3, 120),
    (57, 56),
];

fn picture((width, height): (u32, u32)) -> RgbImage {
    let mut picture = RgbImage::new(width, height);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        pixel.0 = [(x * 5 + y) as u8, (y * 3) as u8, (width + x * y) as u8];
    }
    picture
}

#[test]
fn a_batch_of_different_tile_counts_equals_its_pictures_alone() {
    let options = GenerateOptions {
        max_new_tokens: 6,
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    for case in ["llava-next-qwen2", "victor-next-qwen2-m4-k3"] {
        let mut requests: Vec<Request> = SIZES
            .iter()
            .map(|size| Request::ask(picture(*size), "What is it?"))
            .collect();
        let pair = vec![picture(SIZES[1]), picture(SIZES[3])];
        requests.push(Request::raw("<image> and <image> differ:", pair));
        requests.push(Request::raw("No picture at all:", Vec::new()));
        for device in common::devices() {
            let model = Victor::from_pretrained(common::golden().join(case), device);
            let model = model.expect("a checkpoint");
            let (together, _) = model.generate_batch(&requests, &options).expect("answers");
            for (request, batched) in requests.iter().zip(&together) {
                let request = std::slice::from_ref(request);
                let (alone, _) = model.generate_batch(request, &options).expect("an answer");
                assert_eq!(alone[0].ids, batched.ids, "{case} on {device}");
                assert_eq!(alone[0].prompt_tokens, batched.prompt_tokens);
            }
            let lengths: std::collections::BTreeSet<usize> =
                together.iter().map(|answer| answer.prompt_tokens).collect();
            assert!(lengths.len() > 4, "the batch is ragged: {lengths:?}");
        }
    }
}

/// A copy of a case whose image processor was changed.
fn with_processor(change: impl Fn(&mut Value), out: &Path) {
    let case = common::golden().join("llava-next-qwen2");
    for entry in std::fs::read_dir(case).expect("the case") {
        let path = entry.expect("a file").path();
        std::fs::copy(&path, out.join(path.file_name().expect("a name"))).expect("copied");
    }
    let path = out.join("processor_config.json");
    let text = std::fs::read_to_string(&path).expect("processor_config.json");
    let mut processor: Value = serde_json::from_str(&text).expect("processor_config.json");
    change(&mut processor["image_processor"]);
    std::fs::write(&path, processor.to_string()).expect("written");
}

#[test]
fn a_processor_without_tiles_gives_the_thumbnail_and_one_newline() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = |processor: &mut Value| {
        processor["image_processor_type"] = json!("CLIPImageProcessor");
        processor["image_grid_pinpoints"] = Value::Null;
    };
    with_processor(plain, folder.path());
    let model = Victor::from_pretrained(folder.path(), Device::Flex).expect("a checkpoint");
    let rows = |images: Vec<RgbImage>| {
        let prompt = "<image>".repeat(images.len()) + "What?";
        let trace = model
            .trace(&Request::raw(prompt, images), 1)
            .expect("a trace");
        let pixels = trace.get("pixel_values").map(|pixels| pixels.shape.clone());
        (trace.get("input_ids").expect("ids").shape[0], pixels)
    };
    let (text, none) = rows(Vec::new());
    assert_eq!(none, None);
    let (rows, pixels) = rows(vec![picture(SIZES[0])]);
    assert_eq!(rows - text, 4 * 4 + 1);
    assert_eq!(pixels, Some(vec![1, 1, 3, 56, 56]));
}

#[test]
fn a_processor_with_other_tiles_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = |processor: &mut Value| processor["image_grid_pinpoints"] = json!([[56, 56]]);
    with_processor(other, folder.path());
    let refused = Victor::from_pretrained(folder.path(), Device::Flex).expect_err("refused");
    assert!(
        matches!(refused, VictorError::Pinpoints { .. }),
        "{refused}"
    );
}
