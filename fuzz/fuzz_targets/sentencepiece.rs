//! SentencePiece's `tokenizer.model`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use victor_data::Tokenizer;

const TEXT: &str = "A photo: <image>\nwhat's in it? <s> 12 \u{e9}\u{2581}\u{1f600}";

fuzz_target!(|bytes: &[u8]| {
    victor_fuzz::within(bytes.len(), 1 << 22, 1024, || {
        let Ok(tokenizer) = Tokenizer::from_sentencepiece(bytes, "fuzzed") else {
            return;
        };
        let ids = tokenizer.encode_prompt(TEXT).unwrap_or_default();
        let _ = tokenizer.decode(&ids, false);
        let _ = (tokenizer.max_id(), tokenizer.end_ids());
    });
});
