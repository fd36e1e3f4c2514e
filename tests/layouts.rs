//! One model in every layout that is read: what is opened computes the same.

mod common;

use safetensors::tensor::{Dtype, SafeTensors, View, serialize_to_file};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use victor::{
    AddRegisters, Device, ModelFiles, ModelRef, RegisterInit, Request, SaveOptions, Silent,
    Storage, Trace, TraceValues, Victor, VictorError, convert, decode_image, read_config,
};

/// A reference case in the original LLaVA's layout.
const ORIGINAL: &str = "llava15-vicuna-original";

/// Largest relative L2 error of logits: a change that is added rounds once more.
const TOLERANCE: f64 = 1e-5;

#[derive(Clone)]
struct Tensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl View for &Tensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.values.iter().flat_map(|value| value.to_le_bytes());
        bytes.collect::<Vec<_>>().into()
    }

    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}

/// Layouts are the same on every backend.
fn device() -> Device {
    common::devices()[0]
}

type Tensors = BTreeMap<String, Tensor>;

fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).expect("weights");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = |view: safetensors::tensor::TensorView| Tensor {
        shape: view.shape().to_vec(),
        values: view
            .data()
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes(four.try_into().expect("four bytes")))
            .collect(),
    };
    let tensors = file.tensors().into_iter();
    tensors.map(|(name, view)| (name, tensor(view))).collect()
}

fn write(tensors: &Tensors, path: &Path) {
    serialize_to_file(tensors.iter(), None, path).expect("written");
}

fn copy(names: &[&str], from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for name in names {
        fs::copy(from.join(name), to.join(name)).expect("copied");
    }
}

/// The original names of the decoder's and projector's tensors, by transformers 5 names.
fn original_name(name: &str) -> String {
    name.replace("model.language_model.", "model.")
        .replace(
            "model.multi_modal_projector.linear_1.",
            "model.mm_projector.0.",
        )
        .replace(
            "model.multi_modal_projector.linear_2.",
            "model.mm_projector.2.",
        )
        .replace(
            "model.vision_tower.",
            "model.vision_tower.vision_tower.vision_model.",
        )
}

fn trace(model: impl Into<ModelRef>) -> Trace {
    let case = common::golden().join(ORIGINAL);
    let text = fs::read_to_string(case.join("case.json")).expect("case.json");
    let expected: Value = serde_json::from_str(&text).expect("case.json");
    let picture = decode_image(&case.join("image.png")).expect("a picture");
    let prompt = expected["prompt"].as_str().expect("a prompt");
    let model = Victor::from_pretrained(model, device()).expect("a model");
    model
        .trace(&Request::raw(prompt, vec![picture]), 12)
        .expect("a trace")
}

fn floats(trace: &Trace, name: &str) -> Vec<f32> {
    match &trace.get(name).expect(name).values {
        TraceValues::Float(values) => values.clone(),
        TraceValues::Int(_) => panic!("{name} is whole numbers"),
    }
}

fn check_equal(found: &Trace, expected: &Trace) {
    for stage in ["pixel_values", "projected", "first_logits"] {
        let (found, expected) = (floats(found, stage), floats(expected, stage));
        assert_eq!(found.len(), expected.len(), "{stage}");
        let square = |sum: f64, value: f64| sum + value * value;
        let pairs = found.iter().zip(&expected);
        let difference = pairs.map(|(a, b)| f64::from(a - b)).fold(0.0, square);
        let norm = expected.iter().map(|b| f64::from(*b)).fold(0.0, square);
        let error = (difference / norm).sqrt();
        assert!(error <= TOLERANCE, "{stage} is off by {error:e}");
    }
    let ids = |trace: &Trace| trace.get("generated_ids").expect("ids").values.clone();
    assert_eq!(ids(found), ids(expected));
}

fn opened(model: &ModelRef) -> ModelFiles {
    ModelFiles::open(model).expect("files")
}

/// The reference case, converted to our layout in `dir`, and its tensors.
fn converted(dir: &Path) -> Tensors {
    let original = ModelRef::from(common::golden().join(ORIGINAL));
    convert(
        opened(&original),
        dir,
        &SaveOptions::default(),
        None,
        &|_, _| {},
    )
    .expect("converted");
    read(&dir.join("model.safetensors"))
}

#[test]
fn a_converted_model_computes_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    converted(&out);
    check_equal(&trace(&out), &trace(common::golden().join(ORIGINAL)));
    assert_eq!(
        fs::read_dir(folder.path()).expect("a folder").count(),
        1,
        "nothing half-written is left"
    );
}

#[test]
fn the_tower_may_lie_inside_the_checkpoint_and_weights_in_shards() {
    let folder = tempfile::tempdir().expect("a folder");
    let tensors = converted(&folder.path().join("hub"));
    let original = common::golden().join(ORIGINAL);
    let inside = folder.path().join("inside");
    copy(
        &[
            "config.json",
            "processor_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ],
        &original,
        &inside,
    );
    // The tower's folder keeps its config; its weights are in the checkpoint.
    copy(
        &["config.json"],
        &original.join("vision_tower"),
        &inside.join("vision_tower"),
    );
    let (mut first, mut second, mut map) = (Tensors::new(), Tensors::new(), BTreeMap::new());
    for (index, (name, tensor)) in tensors.into_iter().enumerate() {
        let name = original_name(&name);
        let (shard, file) = match index % 2 {
            0 => (&mut first, "model-00001-of-00002.safetensors"),
            _ => (&mut second, "model-00002-of-00002.safetensors"),
        };
        map.insert(name.clone(), file);
        shard.insert(name, tensor);
    }
    write(&first, &inside.join("model-00001-of-00002.safetensors"));
    write(&second, &inside.join("model-00002-of-00002.safetensors"));
    let index = inside.join("model.safetensors.index.json");
    fs::write(&index, json!({ "weight_map": map }).to_string()).expect("written");
    check_equal(&trace(&inside), &trace(&original));

    fs::remove_file(inside.join("model-00002-of-00002.safetensors")).expect("removed");
    let error = Victor::from_pretrained(&inside, device()).expect_err("a shard is missing");
    let message = error.to_string();
    assert!(message.contains("model-00002-of-00002"), "{message}");
}

#[test]
fn an_adapter_is_added_to_its_base() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut tensors = converted(&folder.path().join("hub"));
    let original = common::golden().join(ORIGINAL);
    let (base, adapter) = (folder.path().join("base"), folder.path().join("adapter"));
    let companions = [
        "config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    copy(&companions, &original, &base);
    copy(&companions, &original, &adapter);
    for place in [&base, &adapter] {
        let tower = original.join("vision_tower");
        copy(
            &["config.json", "pytorch_model.bin"],
            &tower,
            &place.join("vision_tower"),
        );
    }

    // The base is the model less the change, so that base and adapter are the model.
    let (rank, alpha) = (3, 6.0);
    let mut changes = Tensors::new();
    for module in ["layers.0.self_attn.q_proj", "layers.4.mlp.down_proj"] {
        let weight = tensors
            .get_mut(&format!("model.language_model.{module}.weight"))
            .expect("a matrix");
        let [rows, columns] = weight.shape[..] else {
            panic!("a matrix has two axes")
        };
        let wave = |count: usize| -> Vec<f32> {
            (0..count).map(|at| (at as f32 * 0.7).sin() * 0.1).collect()
        };
        let (a, b) = (wave(rank * columns), wave(rows * rank));
        for row in 0..rows {
            for column in 0..columns {
                let product: f32 = (0..rank)
                    .map(|at| b[row * rank + at] * a[at * columns + column])
                    .sum();
                weight.values[row * columns + column] -= alpha / rank as f32 * product;
            }
        }
        let name = format!("base_model.model.model.{module}");
        let tensor = |shape: [usize; 2], values| Tensor {
            shape: shape.to_vec(),
            values,
        };
        changes.insert(format!("{name}.lora_A.weight"), tensor([rank, columns], a));
        changes.insert(format!("{name}.lora_B.weight"), tensor([rows, rank], b));
    }
    let decoder = |name: &String| !name.contains("vision_tower");
    let named = tensors.into_iter().filter(|(name, _)| decoder(name));
    let named = named.map(|(name, tensor)| (original_name(&name), tensor));
    write(&named.collect(), &base.join("model.safetensors"));
    write(&changes, &adapter.join("adapter_model.safetensors"));
    let config = json!({
        "r": rank, "lora_alpha": alpha, "peft_type": "LORA",
        "base_model_name_or_path": base.to_str().expect("a path"),
    });
    fs::write(adapter.join("adapter_config.json"), config.to_string()).expect("written");

    let expected = trace(&original);
    check_equal(&trace(&adapter), &expected);
    let without = floats(&trace(&base), "first_logits");
    assert_ne!(
        without,
        floats(&expected, "first_logits"),
        "the change changes"
    );

    // Without its base an adapter says so and names it.
    fs::rename(&base, folder.path().join("moved")).expect("renamed");
    let error = Victor::from_pretrained(&adapter, device()).expect_err("no base");
    assert!(error.to_string().contains("base model"), "{error}");
    let moved = ModelRef {
        base: Some(folder.path().join("moved").to_string_lossy().into()),
        ..ModelRef::from(&adapter)
    };
    check_equal(&trace(moved), &expected);
}

/// The base has the tokenizer, the tower one of its own: the base's is taken.
#[test]
fn a_projector_is_put_over_its_base() {
    let folder = tempfile::tempdir().expect("a folder");
    let tensors = converted(&folder.path().join("hub"));
    let original = common::golden().join(ORIGINAL);
    let (base, tuned) = (folder.path().join("base"), folder.path().join("tuned"));
    copy(
        &["tokenizer.json", "tokenizer_config.json"],
        &original,
        &base,
    );
    copy(&["config.json", "processor_config.json"], &original, &tuned);
    let tower = tuned.join("vision_tower");
    copy(
        &["config.json", "pytorch_model.bin"],
        &original.join("vision_tower"),
        &tower,
    );
    let foreign = common::golden().join("llava15-qwen2-tied");
    copy(&["tokenizer.json"], &foreign, &tower);
    let (mut decoder, mut projector) = (Tensors::new(), Tensors::new());
    for (name, tensor) in tensors {
        let part = match name.contains("projector") {
            true => &mut projector,
            false if name.contains("vision_tower") => continue,
            false => &mut decoder,
        };
        part.insert(original_name(&name), tensor);
    }
    write(&decoder, &base.join("model.safetensors"));
    write(&projector, &tuned.join("mm_projector.safetensors"));
    let expected = trace(&original);
    let over = |base: &Path| ModelRef {
        base: Some(base.to_string_lossy().into()),
        ..ModelRef::from(&tuned)
    };
    check_equal(&trace(over(&base)), &expected);
    let error = Victor::from_pretrained(&tuned, device()).expect_err("no base");
    assert!(error.to_string().contains("--base"), "{error}");

    // A whole model stands on no base.
    let needless = ModelRef {
        base: Some(base.to_string_lossy().into()),
        ..ModelRef::from(&original)
    };
    let error = Victor::from_pretrained(needless, device()).expect_err("needless");
    assert!(error.to_string().contains("--base"), "{error}");
}

/// Where the tower's own processor does not pad, the model's config says that pictures are padded.
#[test]
fn padding_is_asked_for_in_the_models_config() {
    let folder = tempfile::tempdir().expect("a folder");
    let original = common::golden().join(ORIGINAL);
    let padded = folder.path().join("padded");
    copy(
        &[
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "pytorch_model.bin",
        ],
        &original,
        &padded,
    );
    let tower = padded.join("vision_tower");
    copy(
        &["config.json", "pytorch_model.bin"],
        &original.join("vision_tower"),
        &tower,
    );
    let processor = json!({
        "image_processor_type": "CLIPImageProcessor", "do_center_crop": true,
        "crop_size": 56, "size": 56, "resample": 3,
    });
    fs::write(
        tower.join("preprocessor_config.json"),
        processor.to_string(),
    )
    .expect("written");
    check_equal(&trace(&padded), &trace(&original));
    // And without a processor's file at all.
    fs::remove_file(tower.join("preprocessor_config.json")).expect("removed");
    check_equal(&trace(&padded), &trace(&original));
}

#[test]
fn a_conversion_never_replaces_its_source_or_other_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    converted(&out);
    let refused = |out: &Path| {
        let files = opened(&ModelRef::from(&folder.path().join("out")));
        convert(files, out, &SaveOptions::default(), None, &|_, _| {}).is_err()
    };
    for place in [&out, &folder.path().to_path_buf()] {
        assert!(refused(place), "the source is in there");
        assert!(out.join("model.safetensors").is_file());
    }
    let other = folder.path().join("other");
    fs::create_dir(&other).expect("a folder");
    fs::write(other.join("config.json"), "{}").expect("written");
    fs::write(other.join("notes.txt"), "mine").expect("written");
    assert!(refused(&other), "notes would be lost");
    assert!(other.join("notes.txt").is_file());
}

#[test]
fn registers_are_added_for_training() {
    let folder = tempfile::tempdir().expect("a folder");
    let original = common::golden().join(ORIGINAL);
    let picture = decode_image(&original.join("image.png")).expect("a picture");
    let inits = [
        RegisterInit::Learned { seed: 1 },
        RegisterInit::Zeros,
        RegisterInit::ImageToken,
        RegisterInit::Pooled {
            pictures: vec![picture],
        },
    ];
    let options = SaveOptions {
        storage: Storage::BF16,
        ..SaveOptions::default()
    };
    let projected = floats(&trace(&original), "projected");
    for init in inits {
        let out = folder.path().join("out");
        let registers = AddRegisters {
            num_registers: 4,
            drop_layer: 2,
            init: init.clone(),
        };
        let model = ModelRef::from(&original);
        convert(opened(&model), &out, &options, Some(&registers), &|_, _| {}).expect("converted");
        let config = read_config(&ModelRef::from(&out), &Silent).expect("a config");
        assert_eq!((config.num_registers(), config.drop_layer()), (4, Some(2)));
        let bytes = fs::read(out.join("model.safetensors")).expect("weights");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let stored = file.tensor("visual_registers").expect("registers");
        assert_eq!(stored.shape(), [4, config.text_config.hidden_size]);
        let values: Vec<f32> = stored
            .data()
            .chunks_exact(2)
            .map(|two| f32::from_bits(u32::from(u16::from_le_bytes([two[0], two[1]])) << 16))
            .collect();
        let width = config.text_config.hidden_size;
        match init {
            RegisterInit::Zeros => assert!(values.iter().all(|value| *value == 0.0)),
            RegisterInit::ImageToken => assert_eq!(values[..width], values[width..2 * width]),
            RegisterInit::Learned { .. } => assert!(values[0] != values[width]),
            // 4 × 4 visual tokens to 2 × 2 registers.
            RegisterInit::Pooled { .. } => {
                let mean = [0, 1, 4, 5]
                    .map(|row| projected[row * width])
                    .iter()
                    .sum::<f32>()
                    / 4.0;
                assert!((values[0] - mean).abs() <= mean.abs() / 128.0);
            }
        }
        Victor::from_pretrained(&out, device()).expect("opens");
    }
}

#[test]
fn numbers_that_fit_no_registers_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let model = ModelRef::from(common::golden().join(ORIGINAL));
    for (num_registers, drop_layer) in [(0, 2), (4, 0), (4, 99)] {
        let registers = AddRegisters {
            num_registers,
            drop_layer,
            init: RegisterInit::Zeros,
        };
        let options = SaveOptions::default();
        let error = convert(opened(&model), &out, &options, Some(&registers), &|_, _| {})
            .expect_err("does not fit");
        assert!(matches!(error, VictorError::Option { .. }), "{error}");
        assert!(!out.exists());
    }
}
