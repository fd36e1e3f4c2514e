//! The default weights caption the bundled picture, as README says.

mod common;

use std::path::Path;
use victor::{Device, GenerateOptions, Request, Victor};

#[test]
fn the_bundled_picture_is_named() {
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pictures/strawberry.png");
    let picture = victor::decode_image(&picture).expect("a picture");
    let weights = victor::default_weights().expect("weights");
    // GPUs of the CI are software, on which this model would take minutes.
    let cpus = [Device::Flex, Device::NdArray];
    for device in common::devices()
        .into_iter()
        .filter(|device| cpus.contains(device))
    {
        let model = Victor::from_pretrained(&weights, device).expect("a model");
        let request = Request::caption(picture.clone());
        let (answers, _) = model
            .generate_batch(&[request], &GenerateOptions::default())
            .expect("an answer");
        assert_eq!(
            answers[0].text.trim(),
            "A picture of strawberry.",
            "on {device}"
        );
    }
}
