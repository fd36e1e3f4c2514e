//! The chat templates that come with the engine, for checkpoints that carry none.

/// The names that [`ChatTemplate::built_in`](crate::ChatTemplate::built_in) takes.
pub const BUILT_IN_TEMPLATES: &[&str] = &["vicuna_v1", "llama3", "mistral", "chatml"];

/// `vicuna_v1`, LLaVA-1.5's; the tokenizer puts `<s>` in front:
///
/// ```text
/// A chat between … questions. USER: <image>⏎
/// What is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:
/// ```
const VICUNA_V1: &str = r#"
{%- set stop = eos_token or '</s>' -%}
{%- if not messages or messages[0].role != 'system' -%}
{{- "A chat between a curious user and an artificial intelligence assistant. " -}}
{{- "The assistant gives helpful, detailed, and polite answers to the user's questions. " -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{- words(message) + ' ' -}}
{%- elif message.role == 'user' -%}{{- 'USER: ' + words(message) + ' ' -}}
{%- else -%}{{- 'ASSISTANT: ' + words(message) + stop -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
"#;

/// `llama3`; it writes its own `<|begin_of_text|>`:
///
/// ```text
/// <|begin_of_text|><|start_header_id|>user<|end_header_id|>⏎
/// ⏎
/// <image>⏎
/// What is it?<|eot_id|><|start_header_id|>assistant<|end_header_id|>⏎
/// ⏎
/// A cat.<|eot_id|>
/// ```
const LLAMA3: &str = r#"
{{- bos_token or '<|begin_of_text|>' -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + words(message)|trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}
"#;

/// `mistral`; the tokenizer puts `<s>` in front, and what the system says opens the user's first turn:
///
/// ```text
/// [INST] <image>⏎
/// What is it? [/INST] A cat.</s>[INST] Sure? [/INST]
/// ```
const MISTRAL: &str = r#"
{%- set stop = eos_token or '</s>' -%}
{%- set pending = namespace(text='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{%- set pending.text = words(message) + '\n\n' -%}
{%- elif message.role == 'user' -%}
{{- '[INST] ' + pending.text + words(message) + ' [/INST]' -}}{%- set pending.text = '' -%}
{%- else -%}{{- ' ' + words(message) + stop -}}{%- endif -%}
{%- endfor -%}
"#;

/// `chatml`, Qwen's, without its default system message:
///
/// ```text
/// <|im_start|>user⏎
/// <image>⏎
/// What is it?<|im_end|>⏎
/// <|im_start|>assistant⏎
/// A cat.<|im_end|>⏎
/// ```
const CHATML: &str = r#"
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\n' + words(message) + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"#;

/// Joins a turn's parts; each template calls it.
const WORDS: &str = r#"
{%- macro words(message) -%}
{%- for part in message.content -%}
{{- '<image>\n' if part.type == 'image' else part.text -}}
{%- endfor -%}
{%- endmacro -%}
"#;

/// The Jinja source of a built-in template.
pub(crate) fn source(name: &str) -> Option<String> {
    let body = match name {
        "vicuna_v1" => VICUNA_V1,
        "llama3" => LLAMA3,
        "mistral" => MISTRAL,
        "chatml" => CHATML,
        _ => return None,
    };
    Some([WORDS, body].concat())
}

#[cfg(test)]
mod tests {
    use super::BUILT_IN_TEMPLATES;
    use crate::{ChatTemplate, DataError, Message, Role};

    fn rendered(name: &str, generation: bool) -> Result<String, DataError> {
        let mut messages = vec![
            Message::user(1, "What is it?"),
            Message::text(Role::Assistant, "A cat."),
            Message::user(0, "Sure?"),
        ];
        if !generation {
            messages.pop();
        }
        ChatTemplate::built_in(name)?.render(&messages, generation)
    }

    #[test]
    fn each_name_renders_as_its_family_does() -> Result<(), DataError> {
        let system = "A chat between a curious user and an artificial intelligence assistant. The assistant gives \
                      helpful, detailed, and polite answers to the user's questions. ";
        assert_eq!(
            rendered("vicuna_v1", true)?,
            format!(
                "{system}USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:"
            )
        );
        assert_eq!(
            rendered("llama3", true)?,
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\nA cat.<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nSure?<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n"
        );
        assert_eq!(
            rendered("mistral", true)?,
            "[INST] <image>\nWhat is it? [/INST] A cat.</s>[INST] Sure? [/INST]"
        );
        assert_eq!(
            rendered("chatml", true)?,
            "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\nA cat.<|im_end|>\n\
             <|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
        );
        Ok(())
    }

    #[test]
    fn system_words_replace_the_default_or_open_the_first_turn() -> Result<(), DataError> {
        let messages = [
            Message::text(Role::System, "Be brief."),
            Message::user(0, "Hi"),
        ];
        let render = |name: &str| ChatTemplate::built_in(name)?.render(&messages, true);
        assert_eq!(render("vicuna_v1")?, "Be brief. USER: Hi ASSISTANT:");
        assert_eq!(render("mistral")?, "[INST] Be brief.\n\nHi [/INST]");
        Ok(())
    }

    #[test]
    fn answers_end_with_the_stop_token() -> Result<(), DataError> {
        let messages = [
            Message::user(1, "What is it?"),
            Message::text(Role::Assistant, "A cat."),
            Message::user(0, "Sure?"),
            Message::text(Role::Assistant, "Yes.\nI am."),
        ];
        let expected = [
            [" A cat.</s>", " Yes.\nI am.</s>"],
            ["A cat.<|eot_id|>", "Yes.\nI am.<|eot_id|>"],
            [" A cat.</s>", " Yes.\nI am.</s>"],
            ["A cat.<|im_end|>", "Yes.\nI am.<|im_end|>"],
        ];
        for (name, expected) in BUILT_IN_TEMPLATES.iter().zip(expected) {
            let (text, spans) =
                ChatTemplate::built_in(name)?.render_with_answer_spans(&messages)?;
            let answers: Vec<_> = spans.into_iter().map(|span| &text[span]).collect();
            assert_eq!(answers, expected, "{name}");
        }
        Ok(())
    }
}
