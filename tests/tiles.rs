//! LLaVA-NeXT end to end: pictures of different tile counts in one batch.

mod common;

use victor::{GenerateOptions, Request, RgbImage, Victor};

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
