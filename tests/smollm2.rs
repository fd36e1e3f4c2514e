//! SmolLM2-135M-Instruct from its GGUF file: the ids and the greedy tokens of llama.cpp.
//!
//! `crates/victor/tests/fixtures/smollm2_greedy.json` holds what llama-cpp-python gives on the same
//! numbers in F32 (`xtask/python/gguf_greedy.py`). The model is fetched by `cargo xtask weights smollm2`:
//!
//!     VICTOR_SMOLLM2=data/smollm2.gguf cargo test --release --test smollm2 -- --ignored

mod common;

use serde_json::Value;
use victor::{GenerateOptions, ModelFiles, ModelRef, Request, SamplingOptions, Victor};

fn cases() -> Vec<Value> {
    let fixture = common::root().join("crates/victor/tests/fixtures/smollm2_greedy.json");
    let text = std::fs::read_to_string(fixture).expect("the fixture");
    serde_json::from_str(&text).expect("JSON")
}

fn ids(case: &Value, field: &str) -> Vec<u32> {
    let ids = case[field].as_array().expect("ids");
    let ids = ids.iter().map(|id| id.as_u64().expect("an id") as u32);
    ids.collect()
}

#[test]
#[ignore = "needs a file of 98 MB, which VICTOR_SMOLLM2 names"]
fn greedy_tokens_equal_llama_cpp() {
    let path = std::env::var("VICTOR_SMOLLM2").expect("VICTOR_SMOLLM2 names the GGUF file");
    let model = ModelRef::new(path);
    let files = ModelFiles::open(&model).expect("files");
    let victor = Victor::from_pretrained(model, common::devices()[0]).expect("a model");
    let cases = cases();
    assert!(cases.len() >= 5);
    for case in &cases {
        let prompt = case["prompt"].as_str().expect("a prompt");
        let encoded = files.tokenizer.encode(prompt, true).expect("ids");
        assert_eq!(encoded, ids(case, "prompt_ids"), "{prompt}");
        let expected = ids(case, "ids");
        let options = GenerateOptions {
            max_new_tokens: expected.len(),
            sampling: SamplingOptions::default(),
            ..Default::default()
        };
        let (completions, _) = victor
            .generate_batch(&[Request::raw(prompt, Vec::new())], &options)
            .expect("an answer");
        assert_eq!(completions[0].ids, expected, "{prompt}");
    }
}

/// Its own template adds a system message unless one is given; with an empty one it knows the capital,
/// in llama.cpp and here.
#[test]
#[ignore = "needs a file of 98 MB, which VICTOR_SMOLLM2 names"]
fn the_chat_template_of_the_file_is_used() {
    let path = std::env::var("VICTOR_SMOLLM2").expect("VICTOR_SMOLLM2 names the GGUF file");
    let files = ModelFiles::open(&ModelRef::new(path.as_str())).expect("files");
    let victor = Victor::from_pretrained(path, common::devices()[0]).expect("a model");
    let system = |text| victor::Message::text(victor::Role::System, text);
    let question = victor::Message::text(victor::Role::User, "The capital of France is");
    let messages = vec![system(""), question.clone()];
    for (case, messages) in cases().iter().zip([vec![question], messages.clone()]) {
        let text = files.template.render(&messages, true).expect("text");
        assert_eq!(Some(text.as_str()), case["prompt"].as_str());
    }
    let request = Request {
        prompt: victor::Prompt::Chat(messages),
        images: Vec::new(),
    };
    let (completions, _) = victor
        .generate_batch(&[request], &GenerateOptions::default())
        .expect("an answer");
    assert!(
        completions[0].text.contains("Paris"),
        "{}",
        completions[0].text
    );
}
