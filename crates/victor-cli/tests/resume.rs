//! A run that is killed and resumed ends where one left alone ends.

#[allow(dead_code, reason = "each test uses a part")]
mod common;

use common::{MODEL, Scene, case};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STEPS: usize = 120;

fn start(scene: &Scene, output: &str, more: &[&str]) -> Child {
    let output = format!("output={output:?}");
    Command::new(env!("CARGO_BIN_EXE_victor"))
        .args([
            "train",
            "--config",
            "recipe.toml",
            "--device",
            "cpu",
            "--set",
            &output,
        ])
        .args(more)
        .current_dir(scene.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started")
}

fn losses(metrics: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(metrics).unwrap_or_default();
    // The last line of a killed run may be cut.
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .map(|line| json!([line["step"], line["loss"], line["grad_norm"]]))
        .collect()
}

#[test]
fn a_killed_run_resumes_to_the_same_losses() {
    let scene = Scene::new();
    let picture = scene.picture("a.png", 60, 40);
    let answers = [
        "A cat.",
        "Two dogs in a row.",
        "A very red house on a hill.",
        "Nothing.",
    ];
    let records = answers.iter().enumerate().map(|(id, answer)| {
        json!({"id": id, "image": picture, "conversations": [
            {"from": "human", "value": "<image>\nSay."}, {"from": "gpt", "value": answer}]})
    });
    scene.write("set.json", Value::from_iter(records).to_string());
    let recipe = format!(
        "model = {:?}\nmax_steps = {STEPS}\nbatch_size = 2\ncheckpoint_every = 7\n\
         feature_dropout = 0.2\ntrain = [\"projector\", \"registers\", \"decoder\"]\n\
         [[data]]\njson = \"set.json\"\n",
        case(MODEL).canonicalize().expect("the case")
    );
    scene.write("recipe.toml", recipe);

    assert!(start(&scene, "alone", &[]).wait().expect("ended").success());
    let alone = losses(&scene.path("alone/metrics.jsonl"));
    assert_eq!(alone.len(), STEPS);

    let metrics = scene.path("killed/metrics.jsonl");
    let mut child = start(&scene, "killed", &[]);
    let clock = Instant::now();
    while losses(&metrics).len() < 20 {
        assert!(
            clock.elapsed() < Duration::from_secs(120),
            "no step was taken"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    let before = losses(&metrics).len();
    assert!(before < STEPS, "the run ended before it was killed");

    assert!(
        start(&scene, "killed", &["--resume"])
            .wait()
            .expect("ended")
            .success()
    );
    assert_eq!(losses(&metrics), alone);
}
