//! Reference cases in llama.cpp's layout: a decoder and an `mmproj` file compute what transformers does.
//!
//! The files are written by `xtask/python/gguf_pair.py` from the folders of `tests/golden`, whose
//! tokenizers are used here: theirs is no kind that GGUF has.

mod common;

use safetensors::SafeTensors;
use victor::parts::backend::VictorBackend;
use victor::parts::weights::open_gguf;
use victor::{
    Device, DeviceTask, Engine, ModelFiles, ModelRef, OpenOptions, Request, TraceValues,
    decode_image,
};

struct Check<'a> {
    case: &'a str,
    limit: f64,
}

impl DeviceTask for Check<'_> {
    type Output = ();

    fn run<B: VictorBackend>(self, device: B::Device) {
        let golden = common::golden().join(self.case);
        let folder = common::root().join("tests/gguf").join(self.case);
        let mut files = ModelFiles::open(&ModelRef::from(&golden)).expect("a case");
        let mmproj = folder.join("mmproj.gguf");
        let mut source = open_gguf(&folder.join("decoder.gguf"), Some(&mmproj)).expect("a pair");
        // The id stands in no GGUF file.
        let id = files
            .config()
            .picture
            .as_ref()
            .map(|picture| picture.image_token_index);
        let picture = source.config.picture.as_mut().expect("a picture side");
        picture.image_token_index = id.expect("an id");
        assert_eq!(
            source.config.text_config.num_key_value_heads,
            files.config().text_config.num_key_value_heads
        );
        files.source = source;
        let engine = Engine::<B>::load(files, &device, &OpenOptions::default()).expect("a model");
        assert_eq!(engine.report.unexpected, Vec::<String>::new());

        let text = std::fs::read_to_string(golden.join("case.json")).expect("case.json");
        let case: serde_json::Value = serde_json::from_str(&text).expect("case.json");
        let prompt = case["prompt"].as_str().expect("a prompt");
        let picture = decode_image(&golden.join("image.png")).expect("a picture");
        let trace = engine
            .trace(&Request::raw(prompt, vec![picture]), 12)
            .expect("a trace");
        let file = std::fs::read(golden.join("expected.safetensors")).expect("expected");
        let file = SafeTensors::deserialize(&file).expect("expected");
        for stage in ["vision_features", "projected", "logits_prefill"] {
            let TraceValues::Float(found) = &trace.get(stage).expect(stage).values else {
                panic!("{stage} is not floats");
            };
            let expected = file.tensor(stage).expect(stage);
            let expected = expected.data().chunks_exact(4);
            let expected = expected.map(|four| f32::from_le_bytes(four.try_into().expect("four")));
            let (mut difference, mut norm) = (0.0, 0.0);
            for (found, expected) in found.iter().zip(expected) {
                difference += f64::from(found - expected).powi(2);
                norm += f64::from(expected).powi(2);
            }
            let error = (difference / norm).sqrt();
            eprintln!("{} {stage} {error:.1e}", self.case);
            assert!(
                error <= self.limit,
                "{}: {stage} is off by {error:e}",
                self.case
            );
        }
        let ids = case["expected_ids"].as_array().expect("ids");
        let ids: Vec<i64> = ids.iter().filter_map(|id| id.as_i64()).collect();
        let TraceValues::Int(found) = &trace.get("generated_ids").expect("ids").values else {
            panic!("ids are whole numbers");
        };
        assert_eq!(*found, ids, "{}", self.case);
    }
}

fn check(case: &str) {
    for device in common::devices() {
        let limit = match device {
            Device::Flex | Device::NdArray => 1e-5,
            _ => 1e-4,
        };
        device.run(Check { case, limit }).expect("a device");
    }
}

#[test]
fn clip_and_llama_with_interleaved_rows() {
    check("llava15-vicuna");
}

#[test]
fn siglip_and_qwen2() {
    check("llava-siglip-qwen2");
}
