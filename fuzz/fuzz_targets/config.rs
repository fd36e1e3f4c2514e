//! `config.json`: the Hub's, and the original LLaVA's with its tower's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use victor_model::parameters::{Part, matrix_parameters, part_parameters};
use victor_model::{RotaryTable, VlmConfig, cost};
use victor_weights::{parse_config, parse_original_config};

fuzz_target!(|bytes: &[u8]| {
    victor_fuzz::within(bytes.len(), 1 << 22, 1024, || read(bytes));
});

fn read(bytes: &[u8]) {
    let Ok(config) = serde_json::from_slice(bytes) else {
        return;
    };
    let path = Path::new("config.json");
    let tower = serde_json::Value::default();
    let tower = config.get("vision_config").unwrap_or(&tower);
    for parsed in [
        parse_config(&config, path),
        parse_original_config(&config, tower, path),
    ] {
        let _ = parsed.map(|config| count(&config));
    }
}

/// What is computed from a config before any weight is looked for.
fn count(config: &VlmConfig) {
    for part in Part::ALL {
        part_parameters(config, part);
    }
    matrix_parameters(config);
    let visual = config.visual_tokens();
    for reduced in [false, true] {
        cost::prompt_cost(config, 64, visual, reduced);
    }
    RotaryTable::new(&config.text_config.rope, config.text_config.head_dim);
}
