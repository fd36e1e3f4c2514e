//! Tests of chat templates: detection, limits, failures, spans.

use std::path::Path;

use super::*;
use crate::Content;

const PARTS: &str = "{% for m in messages %}{{ m.role }}: {% for c in m.content %}{% if c.type == 'image' %}<image>\n\
                     {% else %}{{ c.text }}{% endif %}{% endfor %}</s>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::from_source(source, "test.jinja").expect("the template compiles")
}

fn conversation() -> Vec<Message> {
    vec![
        Message::user(1, "What is \"it\"?"),
        Message::text(Role::Assistant, "A cat."),
    ]
}

#[test]
fn templates_that_print_strings_get_strings() {
    for source in [
        "{% for m in messages %}[{{ m['content'] }}]{% endfor %}",
        "{% for m in messages %}[{{ m.content.strip() }}]{% endfor %}",
        "{% for m in messages %}{{ '[' + m['content'] + ']' }}{% endfor %}",
    ] {
        let text = template(source)
            .render(&conversation(), false)
            .expect("renders");
        assert_eq!(text, "[<image>\nWhat is \"it\"?][A cat.]", "{source}");
    }
}

#[test]
fn the_template_of_llava_1_5_renders_with_its_generation_blocks() {
    // The constructs of llava-hf's template: selectattr, upper, string addition, generation blocks.
    let source = "{% for message in messages %}{{ message['role'].upper() + ': '}}\
                  {% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}\
                  {% for content in message['content'] | selectattr('type', 'equalto', 'text') %}\
                  {% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endfor %}\
                  {% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";
    let template = template(source);
    let (text, spans) = template
        .render_with_answer_spans(&conversation())
        .expect("renders");
    assert_eq!(text, "USER: <image>\nWhat is \"it\"? ASSISTANT: A cat. ");
    assert_eq!(&text[spans[0].clone()], " A cat.");
}

#[test]
fn a_runaway_template_is_stopped() {
    let source = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
    let error = template(source)
        .render(&conversation(), false)
        .expect_err("it loops");
    assert!(
        matches!(error, DataError::RunawayTemplate { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("test.jinja"), "{error}");
}

#[test]
fn what_raise_exception_says_is_kept() {
    let source = "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}{{ messages[0].content }}";
    let error = template(source)
        .render(&conversation(), false)
        .expect_err("it refuses");
    let cause = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(cause.contains("one turn only"), "{cause}");
}

#[test]
fn bad_jinja_names_its_file() {
    let error =
        ChatTemplate::from_source("{% if %}", "x/chat_template.jinja").expect_err("not Jinja");
    assert!(
        error.to_string().contains("x/chat_template.jinja"),
        "{error}"
    );
}

#[test]
fn unknown_names_list_what_exists() {
    let text = ChatTemplate::built_in("v0")
        .expect_err("no such template")
        .to_string();
    for name in BUILT_IN_TEMPLATES {
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn a_template_that_rewrites_the_past_has_no_spans() {
    let source = "{{ messages|length }}".to_owned() + PARTS;
    let messages = [conversation(), conversation()].concat();
    let error = template(&source)
        .render_with_answer_spans(&messages)
        .expect_err("unstable");
    assert!(
        matches!(error, DataError::NotPrefixStable { message: 1, .. }),
        "{error}"
    );
}

#[test]
fn spaces_inside_an_answer_stay_and_empty_answers_still_stop() {
    let template = template(PARTS);
    let mut messages = conversation();
    messages[1] = Message {
        role: Role::Assistant,
        content: vec![Content::Text(String::new())],
    };
    let (text, spans) = template
        .render_with_answer_spans(&messages)
        .expect("renders");
    assert_eq!(&text[spans[0].clone()], "</s>");
}

#[test]
fn json_is_written_as_python_writes_it() {
    let text = template(
        "{{ {'a': [1, 'é<b>'], 'c': none} | tojson }}{{ messages[0].content[1].text and '' }}",
    )
    .render(&conversation(), false)
    .expect("renders");
    assert_eq!(text, r#"{"a": [1, "é<b>"], "c": null}"#);
}

#[test]
fn every_place_for_a_template_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let write =
        |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    let render = |dir: &Path| {
        ChatTemplate::from_dir(dir).and_then(|found| found.render(&conversation(), false))
    };

    let missing = render(dir.path()).expect_err("nothing there").to_string();
    assert!(missing.contains("vicuna_v1"), "{missing}");

    let config = r#"{"eos_token": {"content": "<E>"}, "chat_template": [
        {"name": "tool", "template": "tool"}, {"name": "default", "template": "config{{ eos_token }}"}]}"#;
    write("tokenizer_config.json", config);
    assert_eq!(render(dir.path()).expect("renders"), "config<E>");
    write(
        "chat_template.json",
        r#"{"chat_template": "json{{ eos_token }}{{ bos_token }}"}"#,
    );
    assert_eq!(render(dir.path()).expect("renders"), "json<E>");
    write("chat_template.jinja", "jinja\n");
    assert_eq!(render(dir.path()).expect("renders"), "jinja");
}

#[test]
fn a_template_from_metadata_gets_the_vocabularys_tokens() {
    let tokenizer = crate::tokenizer::tests::byte_level();
    let source = "{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}";
    let template = template(source).with_tokens_of(&tokenizer);
    let text = template
        .render(&[Message::text(Role::User, "Hi")], true)
        .expect("renders");
    assert_eq!(text, "<s>Hi</s>");
}
