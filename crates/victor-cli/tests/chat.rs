//! `victor chat` over a pipe: lines in, answers out, and nothing a user types ends it but `/quit`.

#[allow(dead_code, reason = "each test uses a part")]
mod common;

use common::{MODEL, Scene, case};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::{Output, Stdio};

/// Feeds lines to `victor chat ARGUMENTS` and waits for its end.
fn chat(scene: &Scene, arguments: &[&str], lines: &str) -> Output {
    let mut command = scene.command(&[&["chat", "--device", "cpu"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it runs");
    let mut stdin = child.stdin.take().expect("piped");
    // It may end before it has read everything.
    let _ = stdin.write_all(lines.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Every line of standard output as JSON.
fn turns(output: &Output) -> Vec<Value> {
    let errors = text(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let lines = text(&output.stdout).lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// The bundled picture, in the scene's folder.
fn strawberry(scene: &Scene) -> &'static str {
    let bundled = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/pictures/strawberry.png"
    );
    let name = "strawberry.png";
    std::fs::copy(bundled, scene.path(name)).expect("copied");
    name
}

#[test]
fn answers_are_lines_and_nothing_else() {
    let scene = Scene::new();
    let picture = strawberry(&scene);
    let lines = "Describe the picture.\n\n   \nWhat colour is it?\n/help\n";
    let done = chat(&scene, &[picture], lines);
    assert!(done.status.success());
    let answers: Vec<&str> = text(&done.stdout).lines().collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(answers[0].trim(), "A picture of strawberry.");
    assert!(!answers[1].trim().is_empty());
    let notes = text(&done.stderr);
    assert!(
        notes.contains("/image FILE") && notes.contains("/quit"),
        "{notes}"
    );
    assert!(!notes.contains("> "), "nobody types: {notes}");
}

#[test]
fn pictures_come_on_the_way_and_are_encoded_once() {
    let scene = Scene::new();
    let picture = strawberry(&scene);
    let lines =
        "What do you see?\n/image 'strawberry.png'\nDescribe the picture.\nIs it a fruit?\n";
    let turns = turns(&chat(&scene, &["--json"], lines));
    let [first, shown, asked] = &turns[..] else {
        panic!("three turns: {turns:?}");
    };
    assert_eq!(first["images"], json!([]));
    assert_eq!(first["usage"]["encoded_pictures"], 0);
    assert_eq!(shown["images"], json!([picture]));
    assert_eq!(shown["said"], "Describe the picture.");
    assert!(shown["prompt_tokens"].as_u64() > Some(265), "{shown}");
    assert_eq!(asked["images"], json!([]));
    assert_eq!(asked["turn"], 3);
    assert_eq!(asked["usage"]["encoded_pictures"], 1);
    assert_eq!(asked["usage"]["restarts"], 0);
    assert_eq!(asked["usage"]["context"], 1024);
    // The third turn prefills its own few words only.
    let prefilled = |turn: &Value| turn["usage"]["prefilled_rows"].as_u64().expect("a number");
    assert!(prefilled(asked) - prefilled(shown) < 40, "{asked}");
    assert!(prefilled(shown) - prefilled(first) > 265, "{shown}");
}

#[test]
fn mistakes_do_not_end_the_conversation() {
    let scene = Scene::new();
    strawberry(&scene);
    scene.write("text.png", "no picture");
    let lines = format!(
        "/image missing.png\n/image text.png\n/frobnicate\n/image\n{}\nWhat is in <image>?\n\
         /image strawberry.png\nDescribe the picture.\n",
        "word ".repeat(1100)
    );
    let done = chat(&scene, &["--json"], &lines);
    let turns = turns(&done);
    assert_eq!(turns.len(), 1, "{turns:?}");
    let answer = turns[0]["text"].as_str().map(str::trim);
    assert_eq!(answer, Some("A picture of strawberry."));
    let errors: Vec<&str> = text(&done.stderr)
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(errors.len(), 6, "{errors:?}");
    let parts = [
        "missing.png",
        "text.png",
        "/frobnicate: not a command",
        "/image: not a command",
        "1024 of the model's 1024",
        "<image>",
    ];
    for (error, part) in errors.iter().zip(parts) {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn a_cleared_conversation_begins_again_and_quit_ends_it() {
    let scene = Scene::new();
    let picture = strawberry(&scene);
    let lines = "Describe the picture.\n/clear\nDescribe the picture.\n/image strawberry.png\n\
                 /clear\n/image strawberry.png\nDescribe the picture.\n/quit\nNever said.\n";
    let turns = turns(&chat(&scene, &[picture, "--json"], lines));
    assert_eq!(turns.len(), 3, "{turns:?}");
    assert_eq!(turns[1]["images"], json!([]));
    assert!(
        turns[1]["prompt_tokens"].as_u64() < Some(40),
        "{}",
        turns[1]
    );
    assert_eq!(turns[2]["images"], json!([picture]));
    for field in ["text", "ids", "prompt_tokens"] {
        assert_eq!(turns[2][field], turns[0][field]);
    }
}

#[test]
fn options_are_those_of_ask_and_a_system_message() {
    let scene = Scene::new();
    let model = case(MODEL);
    let model = model.to_str().expect("UTF-8");
    let hot = [
        "--model",
        model,
        "--json",
        "--max-new-tokens",
        "4",
        "--temperature",
        "2",
        "--seed",
    ];
    let answer = |more: &[&str]| {
        let done = chat(&scene, &[&hot[..], more].concat(), "Hello.\n");
        turns(&done).swap_remove(0)
    };
    let first = answer(&["1", "--timings"]);
    assert_eq!(first["new_tokens"], 4);
    assert_eq!(first["finish_reason"], "length");
    assert!(
        first["timings"]["prefill_s"].as_f64() > Some(0.0),
        "{first}"
    );
    assert_eq!(answer(&["1"])["ids"], first["ids"]);
    assert_ne!(answer(&["2"])["ids"], first["ids"]);
    let told = answer(&["1", "--system", "Be brief and kind."]);
    assert!(told["prompt_tokens"].as_u64() > first["prompt_tokens"].as_u64());

    for (arguments, part) in [
        (vec!["missing.png"], "missing.png"),
        (vec!["--top-p", "0"], "top-p is 0"),
        (vec!["--model", "nowhere"], "nowhere"),
    ] {
        scene.fails(&[&["chat"], &arguments[..]].concat(), &[part]);
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_the_answer_and_not_the_conversation() {
    let scene = Scene::new();
    let model = case(MODEL);
    let model = model.to_str().expect("UTF-8");
    // A random model whose answer would take thousands of tokens.
    let long = ["--max-new-tokens", "3900", "--repetition-penalty", "1.3"];
    let arguments = [&["chat", "--device", "cpu", "--model", model], &long[..]].concat();
    let mut command = scene.command(&arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it runs");
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    stdin.write_all(b"Hello.\n").expect("it listens");
    let mut answer = vec![0; 8];
    stdout.read_exact(&mut answer).expect("it answers");
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(sent.expect("kill runs").success());
    stdin.write_all(b"/help\n/quit\n").expect("it listens");
    stdout.read_to_end(&mut answer).expect("read");
    let done = child.wait_with_output().expect("it ends");
    assert!(
        done.status.success(),
        "{:?}: {}",
        done.status,
        text(&done.stderr)
    );
    let notes = text(&done.stderr);
    assert!(notes.starts_with("(stopped)\n/image FILE"), "{notes}");
    assert!(answer.ends_with(b"\n"));
}
