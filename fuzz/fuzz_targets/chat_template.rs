//! Chat templates: compiled and rendered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use victor_data::{ChatTemplate, Message, Role};

fuzz_target!(|source: &str| {
    // As much as the longest rendering may be, several times over.
    victor_fuzz::within(source.len(), 1 << 28, 1024, || {
        let Ok(template) = ChatTemplate::from_source(source, "fuzzed") else {
            return;
        };
        let messages = [
            Message::text(Role::System, "Answer briefly."),
            Message::user(1, "What is this?"),
            Message::text(Role::Assistant, "A cat."),
        ];
        let _ = template.render(&messages[..2], true);
        let _ = template.render_with_answer_spans(&messages);
    });
});
