//! GGUF files: decoders, `mmproj` files, and the tokenizers in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use victor_weights::gguf::{GgufFile, Vocabulary, tensors, text_config, vision};

fuzz_target!(|bytes: &[u8]| {
    victor_fuzz::within(bytes.len(), 1 << 20, 128, || read(bytes));
});

fn read(bytes: &[u8]) {
    let Ok(file) = GgufFile::from_bytes(Path::new("fuzzed.gguf"), bytes.to_vec()) else {
        return;
    };
    for key in file.metadata().keys() {
        let shown = file.metadata().get(key).map(|value| value.to_string());
        assert!(shown.is_some_and(|shown| shown.len() < 1000));
    }
    let _ = (
        text_config(&file),
        vision(&file),
        Vocabulary::from_file(&file),
    );
    for name in file.tensor_names() {
        let _ = file.tensor(name).map(|tensor| tensor.to_f32());
    }
    // By our names, q and k put back into order.
    for tensor in tensors(&file).unwrap_or_default().values() {
        let _ = tensor.to_f32();
    }
}
