//! The loop on a tiny random model with features held in memory.

use crate::batch::{Batch, Loader, PictureSource, Visual};
use crate::order::{BatchOrder, Shape, random};
use crate::run::{Finished, Run};
use crate::stage::picture_config;
use crate::testing::{Inner, MARKER, tiny_config, tiny_model};
use crate::trainer::Trainer;
use crate::{Metrics, Part, Progress, Sample, TrainConfig, TrainError};
use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use std::path::Path;
use victor_model::{VictorBackend, Vlm};

const TOKENS: usize = 4;
const WIDTH: usize = 8;

/// Features that are a function of the picture's number.
struct Memory;

impl PictureSource for Memory {
    fn append(&mut self, image: u32, into: &mut Vec<f32>) -> Result<(), TrainError> {
        into.extend(
            (0..TOKENS * WIDTH).map(|i| ((i as u32 * 37 + image * 101) % 17) as f32 / 8.0 - 1.0),
        );
        Ok(())
    }

    fn gives_pixels(&self) -> bool {
        false
    }
}

/// `count` samples of ragged lengths; every fifth has no picture.
fn samples(count: u32) -> Vec<Sample> {
    let sample = |number: u32| {
        let mut ids = vec![1, 3 + number % 5];
        let pictures = !number.is_multiple_of(5);
        if pictures {
            ids.push(MARKER);
        }
        ids.extend((0..number % 4).map(|i| 8 + i));
        let question = ids.len();
        ids.extend([12 + number % 7, 20 + number % 3, 2]);
        Sample {
            learned: (0..ids.len()).map(|at| at >= question).collect(),
            images: if pictures { vec![number] } else { Vec::new() },
            ids,
        }
    };
    (0..count).map(sample).collect()
}

fn loader(samples: &[Sample]) -> Loader<'_> {
    Loader {
        samples,
        pictures: Box::new(Memory),
        marker: MARKER,
        visual_tokens: TOKENS,
        vision_hidden: WIDTH,
        skip_bad: false,
        seed: 3,
        feature_dropout: 0.0,
        feature_noise: 0.0,
        visual_sample: None,
        shifts: None,
    }
}

fn config(output: &Path) -> TrainConfig {
    TrainConfig {
        output: output.into(),
        train: vec![Part::Projector, Part::Registers, Part::Decoder],
        batch_size: 4,
        learning_rate: 1e-2,
        checkpoint_every: 0,
        seed: 3,
        ..TrainConfig::default()
    }
}

fn batch(samples: &[Sample]) -> Batch {
    let entries: Vec<usize> = (0..samples.len()).collect();
    loader(samples)
        .batch(&entries, &mut random(0, 0))
        .expect("a batch")
}

fn model() -> Vlm<Inner> {
    let model = tiny_model(2, Some(1));
    // Draws the weights now, so that clones of the model share them.
    values(&model);
    model
}

fn run(
    config: &TrainConfig,
    samples: &[Sample],
    model: Vlm<Inner>,
    stop_after: Option<usize>,
) -> Finished<Inner> {
    let shape = |sample: &Sample| Shape {
        pictures: !sample.images.is_empty(),
        rows: sample.rows(TOKENS, 2),
    };
    let mut loader = loader(samples);
    loader.feature_dropout = config.feature_dropout;
    loader.feature_noise = config.feature_noise;
    loader.visual_sample = config.visual_sample;
    let shapes = samples.iter().map(shape).collect();
    Run {
        config,
        order: BatchOrder::new(shapes, &[(0..samples.len(), 1.0)], config.batch_size, 3),
        loader,
        validation: vec![batch(samples)],
        progress: Progress::Hidden,
        stop_after,
    }
    .go(crate::optimizer::trainable(model, &config.train))
    .expect("trained")
}

#[test]
fn a_tiny_model_learns_one_pictures_caption() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = TrainConfig {
        max_steps: Some(150),
        batch_size: 1,
        ..config(dir.path())
    };
    let done = run(&config, &samples(2)[1..], model(), None);
    assert!(done.loss < 0.01, "{}", done.loss);
    assert!(done.validation_loss.expect("validated") < 0.01);
    assert!(dir.path().join("loss.svg").is_file());
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let (whole, parted) = (tempfile::tempdir(), tempfile::tempdir());
    let (whole, parted) = (whole.expect("a directory"), parted.expect("a directory"));
    let (samples, start) = (samples(23), model());
    let recipe = |output: &Path| TrainConfig {
        max_steps: Some(9),
        gradient_accumulation: 2,
        weight_decay: 0.1,
        feature_dropout: 0.2,
        feature_noise: 0.1,
        visual_sample: Some(3),
        ..config(output)
    };
    let uninterrupted = run(&recipe(whole.path()), &samples, start.clone(), None);

    let mut config = recipe(parted.path());
    config.checkpoint_every = 4;
    // Dies after the sixth step: the last checkpoint is of the fourth.
    run(&config, &samples, start.clone(), Some(6));
    config.resume = true;
    let resumed = run(&config, &samples, start, None);

    assert_eq!(uninterrupted.loss.to_bits(), resumed.loss.to_bits());
    assert_eq!(values(&uninterrupted.model), values(&resumed.model));
    let losses = |dir: &Path| -> Vec<f64> {
        let text = std::fs::read_to_string(dir.join("metrics.jsonl")).expect("metrics");
        let metrics = text
            .lines()
            .map(|line| serde_json::from_str::<Metrics>(line).expect("JSON"));
        metrics.map(|metrics| metrics.loss).collect()
    };
    assert_eq!(losses(whole.path()), losses(parted.path()));
}

#[test]
fn a_step_sees_as_many_visual_tokens_as_asked() {
    let samples = samples(6);
    let entries: Vec<usize> = (0..samples.len()).collect();
    let mut loader = loader(&samples);
    let all = loader.batch(&entries, &mut random(0, 0)).expect("a batch");
    loader.visual_sample = Some(2);
    let some = loader.batch(&entries, &mut random(0, 0)).expect("a batch");
    let (Visual::Features(all), Visual::Features(seen)) = (all.visual, some.visual) else {
        panic!("pictures give features");
    };
    assert_eq!(seen.len() * 2, all.len());
    for (image, places) in some.chosen.iter().enumerate() {
        assert!(places.len() == 2 && places[0] == 0 && places[1] < TOKENS);
        for (number, place) in places.iter().enumerate() {
            let [from, to] = [image * TOKENS + place, image * 2 + number].map(|at| at * WIDTH);
            assert_eq!(all[from..from + WIDTH], seen[to..to + WIDTH]);
        }
    }
}

#[test]
fn to_choose_all_visual_tokens_is_to_choose_none() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let (samples, start) = (samples(12), model());
    let [all, chosen] = [None, Some(TOKENS)].map(|visual_sample| {
        let config = TrainConfig {
            max_steps: Some(3),
            visual_sample,
            ..config(dirs[usize::from(visual_sample.is_some())].path())
        };
        run(&config, &samples, start.clone(), None)
    });
    assert_eq!(values(&all.model), values(&chosen.model));
}

#[test]
fn another_recipe_cannot_resume() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = config(dir.path());
    config.max_steps = Some(2);
    config.checkpoint_every = 1;
    let samples = samples(8);
    run(&config, &samples, model(), None);
    let load = |config: &TrainConfig, samples| {
        let model = crate::optimizer::trainable(model(), &config.train);
        let mut optimizers = crate::optimizer::Optimizers::<Inner>::new(config, &model);
        let store = crate::checkpoint::CheckpointStore {
            output: dir.path(),
            config,
            samples,
        };
        store.load(model, &mut optimizers).map(|(_, step)| step)
    };
    assert_eq!(load(&config, 8).expect("the same"), 2);
    assert!(
        load(&config, 9)
            .expect_err("other data")
            .to_string()
            .contains("`data`")
    );
    config.seed = 4;
    assert!(
        load(&config, 8)
            .expect_err("other")
            .to_string()
            .contains("`seed`")
    );
}

#[test]
fn only_trained_parts_change() {
    let samples = samples(4);
    for trained in [
        vec![Part::Projector],
        vec![Part::Registers],
        vec![Part::Decoder],
        vec![Part::Projector, Part::Registers],
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let config = TrainConfig {
            train: trained.clone(),
            ..config(dir.path())
        };
        let before = crate::optimizer::trainable(model(), &trained);
        let mut trainer = Trainer::<Inner>::new(&config, &before);
        let (after, outcome) = trainer
            .step(before.clone(), &[batch(&samples)], 1.0)
            .expect("a step");
        assert!(outcome.grad_norm > 0.0);
        for part in Part::ALL {
            let of = |model| {
                let mut values = Values(Vec::new());
                part.visit(model, &mut values);
                values.0
            };
            let changed = of(&before) != of(&after);
            assert_eq!(changed, trained.contains(&part), "{part} of {trained:?}");
        }
    }
}

#[test]
fn accumulated_batches_give_the_step_of_one_large_batch() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path());
    let samples = samples(6);
    let start = crate::optimizer::trainable(model(), &config.train);
    let step = |batches: &[Batch]| {
        let mut trainer = Trainer::<Inner>::new(&config, &start);
        trainer.step(start.clone(), batches, 1.0).expect("a step").1
    };
    let large = step(&[batch(&samples)]);
    let small = step(&[batch(&samples[..2]), batch(&samples[2..])]);
    assert!((large.loss - small.loss).abs() < 1e-5);
    assert!((large.grad_norm - small.grad_norm).abs() < 1e-4);
    assert_eq!(large.rows, small.rows);
}

fn values<B: VictorBackend>(model: &Vlm<B>) -> Vec<f32> {
    let mut values = Values(Vec::new());
    model.visit(&mut values);
    values.0
}

#[test]
fn models_without_one_tensor_a_picture_are_refused() {
    let path = Path::new("model");
    let mut vlm = tiny_config(2, Some(1));
    assert!(picture_config(&vlm, path).is_ok());
    if let Some(picture) = &mut vlm.picture {
        picture.image_grid_pinpoints = Some(vec![[8, 16]]);
    }
    let tiles = picture_config(&vlm, path).expect_err("tiles");
    assert!(matches!(tiles, TrainError::Tiles { .. }));
    vlm.picture = None;
    let text = picture_config(&vlm, path).expect_err("no tower");
    assert!(matches!(text, TrainError::TextOnly { .. }));
}

struct Values(Vec<f32>);

impl<B: Backend> ModuleVisitor<B> for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.extend(param.val().into_data().iter::<f32>());
    }
}

/// `cargo test --release -p victor-train speed -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn speed_of_the_default_model() {
    let mut vlm = tiny_config(16, Some(3));
    if let Some(picture) = &mut vlm.picture {
        picture.vision_config.hidden_size = 384;
        picture.vision_config.image_size = 224;
        picture.vision_config.patch_size = 14;
    }
    vlm.text_config.hidden_size = 288;
    vlm.text_config.intermediate_size = 768;
    vlm.text_config.num_hidden_layers = 6;
    vlm.text_config.num_attention_heads = 6;
    vlm.text_config.num_key_value_heads = 6;
    vlm.text_config.head_dim = 48;
    vlm.text_config.vocab_size = 8192;
    let ids: Vec<u32> = (0..30)
        .map(|i| if i == 2 { MARKER } else { 40 + i })
        .collect();
    let sample = Sample {
        learned: (0..30).map(|i| i > 12).collect(),
        ids,
        images: vec![0],
    };
    let samples = vec![sample; 16];
    let mut loader = loader(&samples);
    loader.pictures = Box::new(Constant);
    loader.visual_tokens = 256;
    loader.vision_hidden = 384;
    let batch = loader
        .batch(&(0..16).collect::<Vec<_>>(), &mut random(0, 0))
        .expect("a batch");
    for train in [
        vec![Part::Projector, Part::Registers],
        vec![Part::Projector, Part::Registers, Part::Decoder],
    ] {
        let config = TrainConfig {
            train,
            ..config(Path::new("/nowhere"))
        };
        let model = Vlm::<Inner>::init(&vlm, &Default::default());
        let mut model = crate::optimizer::trainable(model, &config.train);
        let mut trainer = Trainer::<Inner>::new(&config, &model);
        let mut best = f64::MAX;
        for _ in 0..5 {
            let clock = std::time::Instant::now();
            (model, _) = trainer
                .step(model, std::slice::from_ref(&batch), 1e-6)
                .expect("a step");
            best = best.min(clock.elapsed().as_secs_f64());
        }
        eprintln!("{:?}: {:.2} samples/s", config.train, 16.0 / best);
    }
}

struct Constant;

impl PictureSource for Constant {
    fn append(&mut self, _: u32, into: &mut Vec<f32>) -> Result<(), TrainError> {
        into.extend((0..256 * 384).map(|i| (i % 7) as f32 / 7.0 - 0.4));
        Ok(())
    }

    fn gives_pixels(&self) -> bool {
        false
    }
}
