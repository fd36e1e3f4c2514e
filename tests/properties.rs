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
use victor::parts::model::{BatchLayout, KvCache, PositionMode, Row, Sequence, TileGrid, Vlm};

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
    grids: Vec<Vec<TileGrid>>,
}

impl<B: VictorBackend> Prompts<B> {
    fn new((config, gaps, seed): &Case, device: &B::Device) -> Self {
        let sequences: Vec<Sequence> = gaps
            .iter()
            .enumerate()
            .map(|(index, gaps)| sequence(config, gaps, seed.wrapping_add(index as u64)))
            .collect();
        let grids = gaps.iter().enumerate().map(|(index, gaps)| {
            tiny::grids(config, gaps.len() - 1, seed.wrapping_add(index as u64))
        });
        let grids: Vec<Vec<TileGrid>> = grids.collect();
        let features = grids.iter().enumerate().map(|(index, grids)| {
            let views: usize = grids.iter().map(TileGrid::views).sum();
            let seed = seed.wrapping_add(100 + index as u64);
            (views > 0).then(|| features(config, views, seed, device))
        });
        let features = features.collect();
        Self {
            model: model(config, *seed, device),
            sequences,
            features,
            grids,
        }
    }

    fn layout(&self, sequences: &[Sequence]) -> BatchLayout {
        self.model.layout(sequences).expect("a layout")
    }

    fn visual(&self, samples: std::ops::Range<usize>) -> Option<Tensor<B, 2>> {
        let grids: Vec<TileGrid> = self.grids[samples.clone()].concat();
        let features: Vec<_> = self.features[samples].iter().flatten().cloned().collect();
        let visual = |features| self.model.visual_tokens(Tensor::cat(features, 0), &grids);
        (!features.is_empty()).then(|| visual(features))
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

/// A model, `[part][sample]` prompts that follow one another, and a seed for the rest.
type Talk = (VlmConfig, Vec<Vec<Vec<usize>>>, u64);

fn talk() -> impl Strategy<Value = Talk> {
    let parts = (1_usize..=2, 2_usize..=3).prop_flat_map(|(samples, parts)| {
        prop::collection::vec(prop::collection::vec(tiny::gaps(), samples), parts)
    });
    (tiny::config(), parts, any::<u64>())
}

/// The prompts of a conversation as far as it has come.
struct Said<B: Backend> {
    prompts: Prompts<B>,
    samples: usize,
    lengths: Vec<usize>,
}

impl<B: VictorBackend> Said<B> {
    fn new((config, parts, seed): &Talk, device: &B::Device) -> Self {
        let samples = parts[0].len();
        let nothing = vec![vec![0]; samples];
        let mut prompts = Prompts::new(&(config.clone(), nothing, *seed), device);
        prompts.features = vec![None; samples];
        Self {
            prompts,
            samples,
            lengths: Vec::new(),
        }
    }

    /// Appends a part to every sample and returns its rows and visual tokens.
    fn say(
        &mut self,
        gaps: &[Vec<usize>],
        seed: u64,
        device: &B::Device,
    ) -> (BatchLayout, Option<Tensor<B, 2>>) {
        let config = self.prompts.model.config().clone();
        let part = Prompts::<B>::new(&(config, gaps.to_vec(), seed), device);
        let layout = self.prompts.layout(&part.sequences);
        let shown: Vec<_> = part.features.iter().flatten().cloned().collect();
        let grids = part.grids.concat();
        let model = &self.prompts.model;
        let visual =
            (!shown.is_empty()).then(|| model.visual_tokens(Tensor::cat(shown, 0), &grids));
        for (sample, (new, features)) in part.sequences.iter().zip(part.features).enumerate() {
            self.prompts.grids[sample].extend_from_slice(&part.grids[sample]);
            let whole = &mut self.prompts.sequences[sample];
            let start = whole.ids.len();
            whole.ids.extend_from_slice(&new.ids);
            let spans = new.image_spans.iter();
            let spans = spans.map(|span| span.start + start..span.end + start);
            whole.image_spans.extend(spans);
            let shown = &mut self.prompts.features[sample];
            let all: Vec<_> = shown.take().into_iter().chain(features).collect();
            *shown = (!all.is_empty()).then(|| Tensor::cat(all, 0));
        }
        self.lengths.push(layout.len());
        (layout, visual)
    }

    /// Decodes one token for every sample, which then belongs to what was said.
    fn decode(&mut self, token: u32, cache: &mut KvCache<B>) -> Tensor<B, 2> {
        let tokens: Vec<u32> = (0..self.samples as u32).map(|s| (token + s) % 60).collect();
        for (sequence, token) in self.prompts.sequences.iter_mut().zip(&tokens) {
            sequence.ids.push(*token);
        }
        self.prompts.model.decode(&tokens, cache)
    }

    /// The logits are those of everything said at once.
    fn check(&self, logits: &Tensor<B, 2>, device: Device, when: &str) -> Outcome {
        for sample in 0..self.samples {
            let found = values(logits.clone().narrow(0, sample, 1));
            let expected = self.prompts.uncached(sample, &[]);
            let what = format!("{when}, sample {sample} after parts of {:?}", self.lengths);
            close(&found, &expected, device, &what)?;
        }
        Ok(())
    }
}

struct InParts<'a>(&'a Talk, Device);

impl DeviceTask for InParts<'_> {
    type Output = Outcome;

    fn run<B: VictorBackend>(self, device: B::Device) -> Outcome {
        let (_, parts, seed) = self.0;
        let mut said = Said::<B>::new(self.0, &device);
        let mut cache = said.prompts.cache();
        let mut appended = Vec::new();
        for (index, gaps) in parts.iter().enumerate() {
            let part = u64::try_from(index).expect("small") + 1;
            let (layout, visual) = said.say(gaps, seed.wrapping_add(1000 * part), &device);
            let logits = said.prompts.model.prefill(&layout, visual, &mut cache);
            said.check(&logits, self.1, "prefilled")?;
            appended.push((layout.len(), layout.kept_len()));

            // Rows that were appended and forgotten leave nothing behind.
            for token in [11, 12] {
                let _ = said
                    .prompts
                    .model
                    .decode(&vec![token; said.samples], &mut cache);
            }
            cache.truncate(2);
            for step in 0..2 {
                let logits = said.decode(7 * step + 3, &mut cache);
                said.check(&logits, self.1, "decoded")?;
            }
            appended.push((2, 2));
        }
        let config = said.prompts.model.config();
        let layers = config.text_config.num_hidden_layers;
        let drop = config.drop_layer().unwrap_or(layers);
        let before: usize = appended.iter().map(|(all, _)| all).sum();
        let after: usize = appended.iter().map(|(_, kept)| kept).sum();
        let expected: Vec<usize> = (0..layers)
            .map(|layer| if layer < drop { before } else { after })
            .collect();
        prop_assert_eq!(cache.lengths(), expected);
        Ok(())
    }
}

#[test]
fn a_conversation_in_parts_equals_it_at_once() {
    check(talk(), |talk, device| {
        device.run(InParts(&talk, device)).expect("compiled in")
    });
}

struct ChangedLater<'a>(&'a Talk, Device);

impl DeviceTask for ChangedLater<'_> {
    type Output = Outcome;

    fn run<B: VictorBackend>(self, device: B::Device) -> Outcome {
        let (_, parts, seed) = self.0;
        let mut said = Said::<B>::new(self.0, &device);
        let mut cache = said.prompts.cache();
        let (layout, visual) = said.say(&parts[0], *seed, &device);
        let _ = said.prompts.model.prefill(&layout, visual, &mut cache);

        let (layout, visual) = said.say(&parts[1], seed.wrapping_add(1), &device);
        let model = &said.prompts.model;
        let embeds = model.embed(&layout, visual);
        let hidden = model.forward_before_drop(&layout, embeds, Some(&mut cache));
        let after = |hidden: Tensor<B, 3>| {
            let mut cache = cache.clone();
            let rows = model.forward_after_drop(&layout, hidden, Some(&mut cache));
            let next = model.decode(&vec![5; said.samples], &mut cache);
            (token_values(model, &layout, rows), values(next))
        };
        let expected = after(hidden.clone());
        let found = after(hidden + visual_noise(&layout, &device));
        prop_assert!(!expected.0.is_empty());
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
fn later_layers_do_not_see_rows_dropped_later() {
    let drops = talk().prop_filter(
        "drops a picture of the second part",
        |(config, parts, _)| {
            config.drop_layer().is_some() && parts[1].iter().any(|gaps| gaps.len() > 1)
        },
    );
    check(drops, |talk, device| {
        device
            .run(ChangedLater(&talk, device))
            .expect("compiled in")
    });
}

/// What to add to hidden rows so that those of visual tokens change, `[batch, rows, 1]`.
fn visual_noise<B: Backend>(layout: &BatchLayout, device: &B::Device) -> Tensor<B, 3> {
    let noise = layout.rows().iter().flatten().map(|row| match row {
        Row::Visual(index) => 5.0 + *index as f32,
        _ => 0.0,
    });
    let noise: Vec<f32> = noise.collect();
    let shape = [layout.batch(), layout.len(), 1];
    Tensor::from_data(TensorData::new(noise, shape), device)
}

/// The rows that hold a token; padding of a ragged batch may hold anything: nothing reads it.
fn token_values<B: VictorBackend>(
    model: &Vlm<B>,
    layout: &BatchLayout,
    hidden: Tensor<B, 3>,
) -> Vec<f32> {
    let width = model.config().text_config.hidden_size;
    let kept = model.output_rows(layout).into_iter().flatten();
    let hidden = values(hidden);
    let rows = hidden.chunks_exact(width).zip(kept);
    rows.filter(|(_, row)| *row != Row::Padding)
        .flat_map(|(values, _)| values.to_vec())
        .collect()
}

struct ChangedRows<'a>(&'a Case, Device);

impl DeviceTask for ChangedRows<'_> {
    type Output = Outcome;

    fn run<B: VictorBackend>(self, device: B::Device) -> Outcome {
        let prompts = Prompts::<B>::new(self.0, &device);
        let layout = prompts.layout(&prompts.sequences);
        let model = &prompts.model;
        let visual = prompts.visual(0..prompts.sequences.len());
        let hidden = model.forward_before_drop(&layout, model.embed(&layout, visual), None);
        let changed = hidden.clone() + visual_noise(&layout, &device);
        let tokens = |hidden| {
            let rows = model.forward_after_drop(&layout, hidden, None);
            token_values(model, &layout, rows)
        };
        let (found, expected) = (tokens(changed), tokens(hidden));
        prop_assert!(!expected.is_empty());
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
    plain.picture = of.picture.clone();
    plain
}

#[test]
fn a_drop_after_the_last_layer_is_no_drop() {
    check(case(1..=2), |case, device| {
        device.run(NeverDrops(&case, device)).expect("compiled in")
    });
}
