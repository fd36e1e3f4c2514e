//! The `victor` binary from outside: what it answers, how it refuses, and what it leaves behind.

mod common;

use common::{MODEL, Scene, case, record, safetensors_file};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// `caption IMAGE --model MODEL --device cpu --max-new-tokens 12` and more.
fn caption(scene: &Scene, model: &str, images: &[&str], more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["caption"];
    arguments.extend(images);
    arguments.extend([
        "--model",
        model,
        "--device",
        "cpu",
        "--max-new-tokens",
        "12",
    ]);
    arguments.extend(more);
    let output = scene.succeeds(&arguments);
    output.lines().map(str::to_owned).collect()
}

#[test]
fn traces_hold_every_stage_and_the_reference_tokens() {
    for name in [
        "llava15-vicuna",
        "llava15-llama3",
        "llava15-two-images",
        "victor-vicuna-m4-k3",
        "victor-llama3-m1-k1",
        "victor-two-images-m4-k2",
    ] {
        let (scene, folder) = (Scene::new(), case(name));
        let described = std::fs::read_to_string(folder.join("case.json")).expect("case.json");
        let described: Value = serde_json::from_str(&described).expect("JSON");
        let prompt = described["prompt"].as_str().expect("a prompt");
        let count = described["expected_ids"].as_array().map_or(0, Vec::len);
        let count = count.to_string();
        let mut arguments = vec!["trace", "--model", text(&folder), "--prompt", prompt];
        arguments.extend(["--device", "cpu", "--out", "trace.safetensors"]);
        arguments.extend(["--max-new-tokens", &count]);
        let images = described["images"].as_array().expect("images");
        let images: Vec<_> = images
            .iter()
            .map(|image| folder.join(image.as_str().expect("a name")))
            .collect();
        for image in &images {
            arguments.extend(["--image", text(image)]);
        }
        assert_eq!(scene.succeeds(&arguments), "");

        let file = std::fs::read(scene.path("trace.safetensors")).expect("the trace");
        let trace = SafeTensors::deserialize(&file).expect("safetensors");
        let mut names = trace.names();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "first_logits",
                "generated_ids",
                "input_ids",
                "inputs_embeds",
                "logits_prefill",
                "pixel_values",
                "projected",
                "vision_features"
            ]
        );
        let ids = trace.tensor("generated_ids").expect("ids").data();
        let ids: Vec<i64> = ids
            .chunks_exact(8)
            .map(|id| i64::from_le_bytes(id.try_into().expect("eight bytes")))
            .collect();
        assert_eq!(json!(ids), described["expected_ids"], "{name}");
    }
}

#[test]
fn a_trace_needs_no_picture() {
    let (scene, model) = (Scene::new(), case(MODEL));
    let prompt = ["--prompt", "USER: Hello ASSISTANT:", "--out", "t"];
    scene.succeeds(&[&["trace", "--model", text(&model)], &prompt[..]].concat());
    let file = std::fs::read(scene.path("t")).expect("the trace");
    let trace = SafeTensors::deserialize(&file).expect("safetensors");
    assert!(trace.tensor("generated_ids").is_ok() && trace.tensor("pixel_values").is_err());
}

#[test]
fn one_caption_streams_what_json_holds() {
    let (scene, model) = (Scene::new(), case(MODEL));
    let (model, picture) = (text(&model), scene.picture("a.png", 60, 40));
    let plain = scene.succeeds(&[
        "caption",
        picture,
        "--model",
        model,
        "--max-new-tokens",
        "12",
    ]);
    let lines = caption(&scene, model, &[picture], &["--json", "--timings"]);
    let [line] = &lines[..] else {
        panic!("one line: {lines:?}");
    };
    let answer: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(
        plain,
        format!("{}\n", answer["text"].as_str().expect("text"))
    );
    assert!(plain.trim().len() > 5, "{plain:?}");
    assert_eq!(answer["image"], "a.png");
    assert_eq!(answer["finish_reason"], "length");
    assert_eq!(answer["new_tokens"], 12);
    assert_eq!(answer["ids"].as_array().map(Vec::len), Some(12));
    assert!(answer["prompt_tokens"].as_u64() > Some(20), "{answer}");
    assert_eq!(answer["timings"]["batch_size"], 1);

    let asked = [
        "ask",
        picture,
        victor::CAPTION_PROMPT,
        "--model",
        model,
        "--max-new-tokens",
        "12",
    ];
    assert_eq!(scene.succeeds(&asked), plain);
}

#[test]
fn many_captions_come_in_order_whatever_the_batch() {
    let (scene, model) = (Scene::new(), case(MODEL));
    let names = ["c.png", "a.jpg", "b.png", "e.bmp", "d.png"];
    for (index, name) in (1..).zip(names) {
        scene.picture(name, 16 * index, 90 - 12 * index);
    }
    let lines = caption(&scene, text(&model), &names, &[]);
    let told: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split(": ").next())
        .collect();
    assert_eq!(told, names);
    for size in ["1", "2", "5"] {
        let more = ["--batch-size", size];
        assert_eq!(
            caption(&scene, text(&model), &names, &more),
            lines,
            "by {size}"
        );
    }
    for (name, line) in names.iter().zip(&lines) {
        let alone = caption(&scene, text(&model), &[name], &[]).join(" ");
        assert_eq!(line, &format!("{name}: {}", alone.trim()));
    }
}

#[test]
fn odd_shapes_are_captioned() {
    let (scene, model) = (Scene::new(), case(MODEL));
    scene.picture("dot.png", 1, 1);
    scene.picture("line.png", 1, 20_000);
    scene.picture("wide.png", 20_000, 1);
    let lines = caption(
        &scene,
        text(&model),
        &["dot.png", "line.png", "wide.png"],
        &[],
    );
    assert_eq!(lines.len(), 3, "{lines:?}");
}

#[test]
fn seeds_repeat_and_bad_options_are_named() {
    let (scene, model) = (Scene::new(), case(MODEL));
    let (model, picture) = (text(&model), scene.picture("a.png", 60, 40));
    let hot = |seed| {
        caption(
            &scene,
            model,
            &[picture],
            &["--temperature", "9", "--seed", seed],
        )
    };
    assert_eq!(hot("1"), hot("1"));
    assert_ne!(hot("1"), hot("2"));
    let ask = ["ask", picture, "What?", "--model", model];
    scene.fails(
        &[&ask[..], &["--top-p", "1.5"]].concat(),
        &["top-p is 1.5", "at most 1"],
    );
    scene.fails(
        &[&ask[..], &["--temperature=-1"]].concat(),
        &["temperature is -1"],
    );
}

#[test]
fn info_reads_no_weights() {
    let (scene, model) = (Scene::new(), case(MODEL));
    std::fs::create_dir(scene.path("bare")).expect("made");
    std::fs::copy(model.join("config.json"), scene.path("bare/config.json")).expect("copied");
    let line = scene.succeeds(&["info", "--model", "bare", "--json"]);
    let facts: Value = serde_json::from_str(&line).expect("JSON");
    // Four registers of width 48; 16 visual tokens and the registers in three of six layers.
    assert_eq!(facts["reduction_parameters"], 4 * 48);
    assert_eq!(facts["reduced"]["final_tokens"], 4);
    assert_eq!(facts["reduced"]["mean_tokens"], 12.0);
    assert_eq!(facts["unreduced"]["final_tokens"], 16);
    assert_eq!(facts["config"]["text_config"]["num_hidden_layers"], 6);
    let table = scene.succeeds(&["info", "--model", "bare"]);
    for part in [
        "visual_registers",
        "4 registers a picture",
        "image rows, mean",
        "FastV",
    ] {
        assert!(table.contains(part), "{table}");
    }
}

#[test]
fn info_tells_of_tiles_and_of_decoders_alone() {
    let scene = Scene::new();
    std::fs::create_dir(scene.path("bare")).expect("made");
    let next = json!({"model_type": "llava_next", "text_config": {"model_type": "mistral"}});
    scene.write("bare/config.json", next.to_string());
    let table = scene.succeeds(&["info", "--model", "bare"]);
    for part in ["336 × 672", "one picture (2928 tokens)"] {
        assert!(table.contains(part), "{table}");
    }
    let decoder = json!({"model_type": "qwen2", "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 99});
    scene.write("bare/config.json", decoder.to_string());
    let table = scene.succeeds(&["info", "--model", "bare"]);
    assert!(table.contains("none: text only"), "{table}");
    for absent in ["NaN", "image rows", "reduction  none"] {
        assert!(!table.contains(absent), "{table}");
    }
}

#[test]
fn eval_scores_captions_and_questions() {
    let (scene, model) = (Scene::new(), case(MODEL));
    let (model, picture) = (text(&model), scene.picture("a.png", 60, 40));
    let answer = scene.succeeds(&[
        "ask",
        picture,
        "How many?",
        "--model",
        model,
        "--max-new-tokens",
        "12",
    ]);
    let records = json!([
        record(
            "1",
            "a.png",
            "Say.",
            "x",
            json!({ "label": "zebra", "group": "animals" })
        ),
        record(
            "2",
            "a.png",
            "How many?",
            "x",
            json!({ "type": "count", "answer": answer.trim() })
        ),
        record(
            "3",
            "a.png",
            "How many?",
            "x",
            json!({ "type": "count", "answer": "nine" })
        ),
    ]);
    scene.write("set.json", records.to_string());
    let eval = [
        "eval",
        "--data",
        "set.json",
        "--model",
        model,
        "--max-new-tokens",
        "12",
    ];
    let more = ["--json", "--out", "answers.jsonl", "--batch-size", "2"];
    let report: Value =
        serde_json::from_str(&scene.succeeds(&[&eval[..], &more].concat())).expect("JSON");
    assert_eq!(report["captions"]["absent"], 1);
    assert_eq!(report["captions"]["labels"], 1);
    assert_eq!(report["questions"]["percent"], 50.0);
    assert_eq!(report["questions"]["kinds"][0]["type"], "count");
    let answers = std::fs::read_to_string(scene.path("answers.jsonl")).expect("answers");
    let correct = answers.lines().map(|line| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        line["correct"].as_bool().expect("a verdict")
    });
    assert_eq!(correct.collect::<Vec<_>>(), [false, true, false]);

    let table = scene.succeeds(&[&eval[..], &["--limit", "1"]].concat());
    assert!(
        table.contains("animals") && !table.contains("questions"),
        "{table}"
    );

    let unscored = json!([record("odd", "a.png", "Say.", "x", json!({}))]);
    scene.write("set.json", unscored.to_string());
    scene.fails(
        &[&eval[..], &["--out", "more.jsonl"]].concat(),
        &["set.json", "record odd"],
    );
}

#[test]
fn training_writes_a_model_that_answers() {
    let (scene, model) = (Scene::new(), case(MODEL));
    let picture = scene.picture("a.png", 60, 40);
    let records = json!([record("1", picture, "Say.", "A cat.", json!({}))]);
    scene.write("set.json", records.to_string());
    let recipe = format!(
        "model = {:?}\noutput = \"run\"\nmax_steps = 50\n[[data]]\njson = \"set.json\"\n",
        text(&model)
    );
    scene.write("recipe.toml", recipe);
    let train = ["train", "--config", "recipe.toml", "--device", "cpu"];
    scene.fails(
        &[&train[..], &["--set", "max_step=2"]].concat(),
        &["--set", "max_step"],
    );
    let more = [
        "--preset",
        "stage2",
        "--set",
        "max_steps=2",
        "--set",
        "gradient_accumulation=1",
    ];
    assert_eq!(scene.succeeds(&[&train[..], &more].concat()), "run/model\n");
    let lines = caption(&scene, "run/model", &[picture], &["--json"]);
    assert_eq!(lines.len(), 1, "{lines:?}");

    scene.write("recipe.toml", "learning_rat = 1.0");
    scene.fails(&train, &["recipe.toml", "learning_rat"]);
}

#[test]
fn bad_pictures_are_named_before_the_model_is_opened() {
    let scene = Scene::new();
    let good = scene.picture("good.png", 30, 30);
    scene.write("notes.txt", "not a picture");
    scene.picture("whole.jpg", 64, 64);
    let jpeg = std::fs::read(scene.path("whole.jpg")).expect("read");
    scene.write("cut.jpg", &jpeg[..jpeg.len() / 2]);
    let mut huge = jpeg.clone();
    let frame = huge.windows(2).position(|marker| marker == [0xFF, 0xC0]);
    let frame = frame.expect("a baseline frame");
    huge[frame + 5..frame + 9].copy_from_slice(&[0x4E, 0x20, 0x4E, 0x20]);
    scene.write("huge.jpg", huge);
    scene.write("empty.png", "");
    // That there is no such model would be said if the model came first.
    for (bad, parts) in [
        ("none.png", &["none.png", "no such file"][..]),
        ("notes.txt", &["notes.txt", "not a picture"]),
        ("empty.png", &["empty.png", "not a picture"]),
        ("cut.jpg", &["cut.jpg", "cut short"]),
        ("huge.jpg", &["huge.jpg", "20000 × 20000 = 400 megapixels"]),
        (".", &["."]),
    ] {
        scene.fails(&["ask", bad, "What?", "--model", "nowhere"], parts);
        let many = [
            "caption",
            good,
            good,
            bad,
            "--batch-size",
            "1",
            "--model",
            "nowhere",
        ];
        scene.fails(&many, parts);
        let trace = [
            "trace", "--image", bad, "--prompt", "<image>", "--model", "nowhere",
        ];
        scene.fails(&[&trace[..], &["--out", "t.safetensors"]].concat(), parts);
    }
}

#[test]
fn prompts_that_do_not_fit_are_refused() {
    let (scene, model) = (Scene::new(), case(MODEL));
    let picture = scene.picture("a.png", 30, 30);
    let trace = [
        "trace",
        "--model",
        text(&model),
        "--out",
        "t",
        "--image",
        picture,
        "--prompt",
    ];
    for (prompt, count) in [("no marker", "0"), ("<image> <image>", "2")] {
        let said = format!("has {count} `<image>` markers and there are 1 pictures");
        scene.fails(&[&trace[..], &[prompt]].concat(), &[&said]);
    }
    let ask = ["ask", picture, "And <image>?", "--model", text(&model)];
    scene.fails(&ask, &["has 2 `<image>` markers and there are 1 pictures"]);
    let long = format!("<image>{}", " picture".repeat(5000));
    scene.fails(
        &[&trace[..], &[&long]].concat(),
        &["positions", "4096", "shorten"],
    );
}

#[test]
fn stored_halves_trace_the_same_bytes_however_they_are_kept() {
    let scene = Scene::new();
    let (model, picture) = (scene.model(), scene.picture("a.png", 30, 30));
    let trace = |dtype: &str| {
        let mut arguments = vec!["trace", "--model", model, "--image", picture];
        arguments.extend(["--prompt", "<image> What?", "--device", "cpu"]);
        arguments.extend(["--out", "trace.safetensors", "--dtype", dtype]);
        scene.succeeds(&arguments);
        std::fs::read(scene.path("trace.safetensors")).expect("a trace")
    };
    let expected = trace("f32");
    assert_eq!(trace("auto"), expected);
    assert_eq!(trace("f16"), expected);
    assert_ne!(trace("bf16"), expected);
}

#[test]
fn damaged_weights_are_named() {
    let scene = Scene::new();
    let (model, picture) = (scene.model(), scene.picture("a.png", 30, 30));
    let ask = ["ask", picture, "What?", "--model", model];
    let entry = |start, end| json!({ "dtype": "F32", "shape": [4], "data_offsets": [start, end] });
    let header = |first, second| json!({ "a": first, "b": second }).to_string();
    let mut beyond = safetensors_file("{}", 0);
    beyond[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    for (what, file) in [
        ("a header longer than the file", beyond),
        ("a header cut short", safetensors_file("{\"a\": ", 0)),
        (
            "offsets beyond the data",
            safetensors_file(&header(entry(0, 16), entry(16, 32)), 16),
        ),
        (
            "overlapping tensors",
            safetensors_file(&header(entry(0, 16), entry(8, 24)), 24),
        ),
        (
            "offsets and shape that differ",
            safetensors_file(&header(entry(0, 16), entry(16, 20)), 20),
        ),
        ("nothing", Vec::new()),
        ("three bytes", vec![1, 2, 3]),
    ] {
        scene.write("model/model.safetensors", file);
        eprintln!("{what}");
        scene.fails(&ask, &["model.safetensors", "damaged"]);
    }
    std::fs::remove_file(scene.path("model/model.safetensors")).expect("removed");
    scene.fails(&ask, &["model", "holds no checkpoint"]);
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let scene = Scene::new();
    let (model, picture) = (scene.model(), scene.picture("a.png", 30, 30));
    let ask = ["ask", picture, "What?", "--model", model];
    let is_norm = |name: &str| name.contains("layers.1.input_layernorm");
    scene.reshape(|name, shape| {
        Some(match is_norm(name) {
            true => vec![47],
            false => shape.into(),
        })
    });
    scene.fails(&ask, &["layers.1.input_layernorm", "[47]", "[48]"]);
    scene.reshape(|name, shape| (!is_norm(name)).then(|| shape.into()));
    scene.fails(&ask, &["1 tensors are missing", "layers.1.input_layernorm"]);
}

#[test]
fn configs_that_are_not_understood_are_named() {
    let scene = Scene::new();
    let (model, picture) = (scene.model(), scene.picture("a.png", 30, 30));
    let ask = ["ask", picture, "What?", "--model", model];
    scene.edit("model/config.json", |config| {
        config["text_config"]["model_type"] = json!("mamba")
    });
    scene.fails(&ask, &["config.json", "model_type", "mamba", "expected"]);
    scene.edit("model/config.json", |config| {
        config["model_type"] = json!("paligemma")
    });
    scene.fails(
        &ask,
        &["config.json", "model_type", "paligemma", "expected"],
    );
    scene.fails(&["info", "--model", model], &["paligemma"]);
    scene.write("model/config.json", "{\"model_type\": ");
    scene.fails(&ask, &["config.json", "not valid JSON"]);
    scene.fails(&["info", "--model", "nowhere"], &["nowhere", "Hub id"]);
}

#[test]
fn usage_errors_are_told_apart() {
    let scene = Scene::new();
    let refused = |arguments: &[&str], part: &str| {
        let done = scene.run(arguments);
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{errors}");
        assert!(done.stdout.is_empty() && errors.contains(part), "{errors}");
    };
    refused(&["caption"], "<IMAGE>");
    refused(
        &["caption", "a.png", "--max-new-tokens", "0"],
        "max-new-tokens",
    );
    refused(
        &["caption", "a.png", "--device", "gpu"],
        "unknown device `gpu`",
    );
    if !cfg!(feature = "metal") {
        refused(
            &["caption", "a.png", "--device", "metal"],
            "--features metal",
        );
    }
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_any_work() {
    let (scene, model) = (Scene::new(), case(MODEL));
    let trace = [
        "trace",
        "--model",
        text(&model),
        "--prompt",
        "Hello",
        "--out",
    ];
    scene.fails(
        &[&trace[..], &["none/t.safetensors"]].concat(),
        &["none", "no folder"],
    );
    scene.fails(&[&trace[..], &["."]].concat(), &["is a folder"]);
    scene.fails(
        &["eval"],
        &[
            "data/pictograms/test-singles.json",
            "cargo xtask data pictograms",
        ],
    );
    let eval = [
        "eval",
        "--data",
        "none.json",
        "--model",
        text(&model),
        "--out",
    ];
    scene.fails(
        &[&eval[..], &["none/a.jsonl"]].concat(),
        &["none/a.jsonl", "no folder"],
    );
    scene.fails(
        &[&eval[..], &["a.jsonl"]].concat(),
        &["none.json", "no such file"],
    );
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let (scene, model) = (Scene::new(), case(MODEL));
    let mut command = scene.command(&["info", "--model", text(&model)]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let done = command.stdout(writer).output().expect("the binary runs");
    assert_eq!(done.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
}
