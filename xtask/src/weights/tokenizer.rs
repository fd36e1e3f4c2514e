//! The tokenizer's files in Hugging Face's layout: `tokenizer.json` as Llama-2's fast tokenizer has it,
//! `tokenizer_config.json`, and Vicuna's chat template.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::output;
use super::vocabulary::Vocabulary;

/// The text that stands for a picture in a prompt.
pub(super) const IMAGE_TOKEN: &str = "<image>";

/// The files of a tokenizer, in the order [`write()`] takes them.
pub(super) const FILES: [&str; 3] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
];

/// Vicuna's turns. A rendered prompt that ends in `ASSISTANT:` is a prefix of the text with its answer.
const CHAT_TEMPLATE: &str = "{% for m in messages %}{% if m['role'] == 'user' %}USER: \
{% for c in m['content'] %}{% if c['type']=='image' %}<image>\n\
{% else %}{{ c['text'] }}{% endif %}{% endfor %} {% else %}ASSISTANT: \
{% for c in m['content'] %}{{ c['text'] }}{% endfor %}</s>{% endif %}{% endfor %}\
{% if add_generation_prompt %}ASSISTANT:{% endif %}";

/// Writes the files; the picture's token takes the id after the last piece.
pub(super) fn write(folder: &Path, vocabulary: &Vocabulary, positions: usize) -> Result<()> {
    let [tokenizer, config, template] = FILES;
    output::json(&folder.join(tokenizer), &definition(vocabulary))?;
    output::json(&folder.join(config), &settings(positions))?;
    output::bytes(&folder.join(template), CHAT_TEMPLATE.as_bytes())
}

fn settings(positions: usize) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "LlavaProcessor",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        // Not the end of a text: what it masks out of a loss would take the end's lesson along.
        "pad_token": "<unk>",
        "image_token": IMAGE_TOKEN,
        "extra_special_tokens": { "image_token": IMAGE_TOKEN },
        "model_max_length": positions,
        "clean_up_tokenization_spaces": false,
    })
}

fn definition(vocabulary: &Vocabulary) -> Value {
    let ids = vocabulary.pieces().iter().enumerate();
    let vocab: Map<String, Value> = ids.map(|(id, piece)| (piece.clone(), id.into())).collect();
    let added = |id: usize, content: &str| {
        json!({
            "id": id,
            "content": content,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": true,
        })
    };
    let begin = json!({ "SpecialToken": { "id": "<s>", "type_id": 0 } });
    let sequence = |id: &str, kind: u8| json!({ "Sequence": { "id": id, "type_id": kind } });
    let begin_second = json!({ "SpecialToken": { "id": "<s>", "type_id": 1 } });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [
            added(0, "<unk>"),
            added(1, "<s>"),
            added(2, "</s>"),
            added(vocab.len(), IMAGE_TOKEN),
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                { "type": "Prepend", "prepend": "\u{2581}" },
                { "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" },
            ],
        },
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, sequence("A", 0)],
            "pair": [begin, sequence("A", 0), begin_second, sequence("B", 1)],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [1], "tokens": ["<s>"] } },
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                { "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " },
                { "type": "ByteFallback" },
                { "type": "Fuse" },
                { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": "<unk>",
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": vocabulary.merges(),
        },
    })
}
