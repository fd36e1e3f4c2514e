//! Headers of safetensors files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use victor_weights::formats::safetensors::spans;

fuzz_target!(|bytes: &[u8]| {
    let Ok(spans) = victor_fuzz::within(bytes.len(), 1 << 20, 64, || spans(bytes)) else {
        return;
    };
    for span in spans.values() {
        assert!(bytes.get(span.bytes.clone()).is_some());
    }
});
