//! A decoder alone: opens without a tower or a processor, answers text as it does inside a LLaVA
//! checkpoint, and refuses pictures before any work.

mod common;

use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;
use victor::{
    Device, GenerateOptions, Info, ModelFiles, ModelRef, Request, RgbImage, SaveOptions, Victor,
    VictorError, convert,
};

/// The decoder of a reference case as the Hub has decoders.
fn decoder_alone(case: &Path, out: &Path) {
    let text = std::fs::read_to_string(case.join("config.json")).expect("config.json");
    let config: Value = serde_json::from_str(&text).expect("config.json");
    let decoder = config["text_config"].to_string();
    std::fs::write(out.join("config.json"), decoder).expect("written");
    for file in [
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ] {
        std::fs::copy(case.join(file), out.join(file)).expect("copied");
    }
    let mut shards = Vec::new();
    for entry in std::fs::read_dir(case).expect("the case") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            shards.push(std::fs::read(&path).expect("a shard"));
        }
    }
    let mut tensors = Vec::new();
    for shard in &shards {
        let shard = SafeTensors::deserialize(shard).expect("a shard");
        for (name, view) in shard.tensors() {
            if let Some(rest) = name.strip_prefix("model.language_model.") {
                tensors.push((format!("model.{rest}"), view));
            } else if name.starts_with("lm_head.") {
                tensors.push((name, view));
            }
        }
    }
    let file = out.join("model.safetensors");
    safetensors::serialize_to_file(tensors, None, &file).expect("written");
}

fn answer(model: &Victor, prompt: &str) -> Vec<u32> {
    let options = GenerateOptions {
        max_new_tokens: 10,
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let mut generation = model
        .generate(&Request::raw(prompt, Vec::new()), &options)
        .expect("started");
    generation.by_ref().for_each(|token| {
        token.expect("a token");
    });
    generation.completion().ids
}

#[test]
fn a_decoder_answers_as_it_does_inside_llava() {
    for case in ["llava15-llama3", "llava15-qwen2-tied"] {
        let case = common::golden().join(case);
        let folder = tempfile::tempdir().expect("a folder");
        decoder_alone(&case, folder.path());
        for device in common::devices() {
            let whole = Victor::from_pretrained(&case, device).expect("the case");
            let alone = Victor::from_pretrained(folder.path(), device).expect("the decoder");
            assert_eq!(alone.report().unexpected, Vec::<String>::new());
            for prompt in ["How many rockets are there?", "Yes"] {
                let (expected, found) = (answer(&whole, prompt), answer(&alone, prompt));
                assert_eq!(expected.len(), 10);
                assert_eq!(found, expected, "{prompt} on {device}");
            }
        }
    }
}

#[test]
fn a_picture_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    decoder_alone(&common::golden().join("llava15-llama3"), folder.path());
    let model = Victor::from_pretrained(folder.path(), Device::Flex).expect("the decoder");
    let picture = RgbImage::new(3, 2);
    let refused = model.generate(&Request::caption(picture), &GenerateOptions::default());
    let Err(error) = refused else {
        panic!("a picture was taken");
    };
    assert!(matches!(error, VictorError::TextOnly { pictures: 1 }));
    assert!(error.to_string().contains("reads text only"), "{error}");
}

#[test]
fn a_decoder_is_counted_and_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let (folder, out) = (dir.path().join("decoder"), dir.path().join("out"));
    std::fs::create_dir(&folder).expect("a folder");
    decoder_alone(&common::golden().join("llava15-llama3"), &folder);
    let model = Victor::from_pretrained(&folder, Device::Flex).expect("the decoder");
    let info = model.info();
    assert_eq!(info.visual_tokens, 0);
    assert_eq!(info.reduced, info.unreduced);
    let counted: Vec<usize> = info.parts.iter().map(|part| part.parameters).collect();
    assert_eq!(counted, [0, 0, 0, info.parameters]);

    convert(
        ModelFiles::open(&ModelRef::from(&folder)).expect("files"),
        &out,
        &SaveOptions::default(),
        None,
        &|_, _| {},
    )
    .expect("written");
    let written = Victor::from_pretrained(&out, Device::Flex).expect("what was written");
    assert_eq!(Info::new(written.config()), info);
    assert_eq!(answer(&written, "Yes"), answer(&model, "Yes"));
}
