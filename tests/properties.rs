//! What defines the engine, on random tiny models and every backend compiled in.

mod common;
#[allow(dead_code, reason = "each test uses a part")]
#[path = "common/tiny.rs"]
mod tiny;

use burn::prelude::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tiny::{distance, features, model, sequence, values};
use victor::VlmConfig;
use victor::parts::backend::{Device, DeviceTask, VictorBackend};
use victor::parts::model::{BatchLayout, KvCache, PositionMode, Row, Sequence, Vlm};

/// Relative L2 error allowed between two ways to one result.
fn tolerance(device: Device) -> f64 {
    match device {
        Device::Flex | Device::NdArray => 1e-5,
        _ => 1e-4,
    }
}

/// Random cases: software Vulkan compiles a shader for every new shape.
fn cases(device: Device) -> u32 {
    match device {
        Device::Flex => 48,
        Device::NdArray => 24,
        _ => 3,
    }
}

/// Runs a property on random inputs on every device.
fn check<T: std::fmt::Debug>(
    strategy: impl Strategy<Value = T>,
    property: impl Fn(T, Device) -> Result<(), TestCaseError>,
) {
    for device in common::devices() {
        let config = Config {
            cases: cases(device),
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(
            config,
            proptest::test_runner::TestRng::deterministic_rng(
                proptest::test_runner::RngAlgorithm::ChaCha,
            ),
        );
        let result = runner.run(&strategy, |input| property(input, device));
        result.unwrap_or_else(|error| panic!("on {device}: {error}"));
    }
}

fn close(found: &[f32], expected: &[f32], device: Device, what: &str) -> Result<(), TestCaseError> {
    let error = distance(found, expected);
    prop_assert!(
        error <= tolerance(device),
        "{what} is off by {error:e} on {device}"
    );
    Ok(())
}

type Outcome = Result<(), TestCaseError>;

/// A model, prompts, and a seed for the rest.
type Case = (VlmConfig, Vec<Vec<usize>>, u64);

fn case(samples: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Case> {
    (
        tiny::config(),
        prop::collection::vec(tiny::gaps(), samples),
        any::<u64>(),
    )
}

struct Prompts<B: Backend> {
    model: Vlm<B>,
    sequences: Vec<Sequence>,
    features: Vec<Option<Tensor<B, 3>>>,
}

impl<B: VictorBackend> Prompts<B> {
    fn new((config, gaps, seed): &Case, device: &B::Device) -> Self {
        let sequences: Vec<Sequence> = gaps
            .iter()
            .enumerate()
            .map(|(index, gaps)| sequence(config, gaps, seed.wrapping_add(index as u64)))
            .collect();
        let features = sequences.iter().enumerate().map(|(index, sequence)| {
            let images = sequence.image_spans.len();
            let seed = seed.wrapping_add(100 + index as u64);
            (images > 0).then(|| features(config, images, seed, device))
        });
        let features = features.collect();
        Self {
            model: model(config, *seed, device),
            sequences,
            features,
        }
    }

    fn layout(&self, sequences: &[Sequence]) -> BatchLayout {
        self.model.layout(sequences).expect("a layout")
    }

    fn visual(&self, samples: std::ops::Range<usize>) -> Option<Tensor<B, 2>> {
        let features: Vec<_> = self.features[samples].iter().flatten().cloned().collect();
        (!features.is_empty()).then(|| self.model.project(Tensor::cat(features, 0)))
    }

    fn cache(&self) -> KvCache<B> {
        KvCache::new(self.model.config().text_config.num_hidden_layers)
    }

    /// Logits of the last row without any cache.
    fn uncached(&self, sample: usize, more: &[u32]) -> Vec<f32> {
        let mut sequence = self.sequences[sample].clone();
        sequence.ids.extend_from_slice(more);
        let layout = self.layout(&[sequence]);
        let embeds = self.model.embed(&layout, self.visual(sample..sample + 1));
        let hidden = self.model.forward(&layout, embeds, None);
        let rows = hidden.dims()[1];
        values(
            self.model
                .language_model
                .logits(hidden.narrow(1, rows - 1, 1)),
        )
    }
}

struct Cached<'a>(&'a Case, Device);

impl DeviceTask for Cached<'_> {
    type Output = Outcome;

    fn run<B: VictorBackend>(self, device: B::Device) -> Outcome {
        let prompts = Prompts::<B>::new(self.0, &device);
        let layout = prompts.layout(&prompts.sequences);
        let mut cache = prompts.cache();
        let samples = prompts.sequences.len();
        let mut logits = prompts
            .model
            .prefill(&layout, prompts.visual(0..samples), &mut cache);
        let mut more = vec![Vec::new(); samples];
        for step in 0..4_u32 {
            for (sample, more) in more.iter().enumerate() {
                let found = values(logits.clone().narrow(0, sample, 1));
                let expected = prompts.uncached(sample, more);
                close(
                    &found,
                    &expected,
                    self.1,
                    &format!("step {step} of sample {sample}"),
                )?;
            }
            let tokens: Vec<u32> = (0..samples as u32)
                .map(|sample| (7 * step + sample) % 60)
                .collect();
            more.iter_mut()
                .zip(&tokens)
                .for_each(|(more, token)| more.push(*token));
            logits = prompts.model.decode(&tokens, &mut cache);
        }
        check_cache_lengths(&prompts, &layout, &cache)
    }
}

/// Layers before the drop hold all rows, later ones only those that survive.
fn check_cache_lengths<B: VictorBackend>(
    prompts: &Prompts<B>,
    layout: &BatchLayout,
    cache: &KvCache<B>,
) -> Outcome {
    let config = prompts.model.config();
    let layers = config.text_config.num_hidden_layers;
    let drop = config.drop_layer().unwrap_or(layers);
    let expected: Vec<usize> =
        (0..layers).map(|layer| if layer < drop { layout.len() } else { layout.kept_len() } + 4).collect();
    prop_assert_eq!(cache.lengths(), expected);
    Ok(())
}

#[test]
fn cached_equals_uncached_step_by_step() {
    check(case(1..=1), |case, device| {
        device.run(Cached(&case, device)).expect("compiled in")
    });
}

#[test]
fn a_ragged_batch_equals_its_samples_alone() {
    check(case(2..=3), |case, device| {
        device.run(Cached(&case, device)).expect("compiled in")
    });
}

struct ChangedRows<'a>(&'a Case, Device);

impl DeviceTask for ChangedRows<'_> {
    type Output = Outcome;

    fn run<B: VictorBackend>(self, device: B::Device) -> Outcome {
        let prompts = Prompts::<B>::new(self.0, &device);
        let layout = prompts.layout(&prompts.sequences);
        let model = &prompts.model;
        let visual = prompts.visual(0..prompts.sequences.len());
        let embeds = model.embed(&layout, visual);
        let whole = model.forward(&layout, embeds.clone(), None);
        let hidden = model.forward_before_drop(&layout, embeds, None);
        let noise = layout.rows().iter().flatten().map(|row| match row {
            Row::Visual(index) => 5.0 + *index as f32,
            _ => 0.0,
        });
        let noise = TensorData::new(
            noise.collect::<Vec<f32>>(),
            [layout.batch(), layout.len(), 1],
        );
        let changed = hidden.clone() + Tensor::from_data(noise, &device);
        // Padding of a ragged batch may hold any row: nothing reads it.
        let width = model.config().text_config.hidden_size;
        let tokens = |hidden: Tensor<B, 3>| -> Vec<f32> {
            let kept = model.output_rows(&layout).into_iter().flatten();
            let hidden = values(hidden);
            let rows = hidden.chunks_exact(width).zip(kept);
            rows.filter(|(_, row)| *row != Row::Padding)
                .flat_map(|(values, _)| values.to_vec())
                .collect()
        };
        let found = tokens(model.forward_after_drop(&layout, changed, None));
        let expected = tokens(model.forward_after_drop(&layout, hidden, None));
        prop_assert!(!expected.is_empty());
        close(&tokens(whole), &expected, self.1, "the pass in one")?;
        prop_assert_eq!(
            found,
            expected,
            "later layers saw dropped rows on {}",
            self.1
        );
        Ok(())
    }
}

#[test]
fn later_layers_do_not_see_dropped_rows() {
    // A case that drops nothing would show nothing.
    let drops = case(1..=2).prop_filter("drops a picture", |(config, gaps, _)| {
        config.drop_layer().is_some() && gaps.iter().any(|gaps| gaps.len() > 1)
    });
    check(drops, |case, device| {
        device.run(ChangedRows(&case, device)).expect("compiled in")
    });
}

struct NeverDrops<'a>(&'a Case, Device);

impl DeviceTask for NeverDrops<'_> {
    type Output = Outcome;

    fn run<B: VictorBackend>(self, device: B::Device) -> Outcome {
        let (mut config, gaps, seed) = self.0.clone();
        let registers = config.num_registers();
        let layers = config.text_config.num_hidden_layers;
        if let Some(reduction) = &mut config.visual_token_reduction {
            reduction.drop_layer = layers;
        }
        let with = Prompts::<B>::new(&(config.clone(), gaps.clone(), seed), &device);
        let layout = with.layout(&with.sequences);
        let embeds = with
            .model
            .embed(&layout, with.visual(0..with.sequences.len()));
        let found = values(with.model.forward(&layout, embeds.clone(), None));

        // The same decoder without any reduction, given the same rows.
        config.visual_token_reduction = None;
        let plain = model_without_registers::<B>(&config, &with.model);
        let rows =
            BatchLayout::new(&with.sequences, registers, PositionMode::Original).expect("fits");
        let expected = values(plain.forward(&rows, embeds, None));
        close(&found, &expected, self.1, "a drop after the last layer")?;
        if registers == 0 {
            let layout = plain.layout(&with.sequences).expect("fits");
            let embeds = plain.embed(&layout, with.visual(0..with.sequences.len()));
            close(
                &found,
                &values(plain.forward(&layout, embeds, None)),
                self.1,
                "no registers",
            )?;
        }
        Ok(())
    }
}

fn model_without_registers<B: VictorBackend>(config: &VlmConfig, of: &Vlm<B>) -> Vlm<B> {
    let mut plain = Vlm::init(config, &of.device());
    plain.language_model = of.language_model.clone();
    plain.multi_modal_projector = of.multi_modal_projector.clone();
    plain.vision_tower = of.vision_tower.clone();
    plain
}

#[test]
fn a_drop_after_the_last_layer_is_no_drop() {
    check(case(1..=2), |case, device| {
        device.run(NeverDrops(&case, device)).expect("compiled in")
    });
}
