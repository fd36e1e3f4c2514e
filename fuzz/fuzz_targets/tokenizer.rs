//! `tokenizer.json`, read from a folder as a checkpoint's is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;
use victor_data::Tokenizer;

const TEXT: &str = "A photo: <image>\nwhat's in it? <s> 12 \u{e9}\u{2581}\u{1f600}";

/// A folder of this process, in memory where the system has one there.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let parent = Some(memory).filter(|folder| folder.is_dir());
    let name = format!("victor-fuzz-{}", std::process::id());
    let folder = parent.unwrap_or_else(std::env::temp_dir).join(name);
    std::fs::create_dir_all(&folder).expect("a folder for the input");
    folder
});

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(FOLDER.join("tokenizer.json"), bytes).expect("the input as a file");
    victor_fuzz::within(bytes.len(), 1 << 25, 1024, || {
        let Ok(tokenizer) = Tokenizer::from_dir(&FOLDER) else {
            return;
        };
        let span = 0..1;
        let _ = tokenizer.encode_with_spans(TEXT, true, std::slice::from_ref(&span));
        let ids = tokenizer.encode_prompt(TEXT).unwrap_or_default();
        let _ = tokenizer.decode(&ids, true);
        let mut stream = tokenizer.decode_stream(false);
        for id in ids {
            let _ = stream.push(id);
        }
        let _ = (tokenizer.max_id(), tokenizer.end_ids());
    });
});
