//! Every backend compiled in gives the same greedy tokens, over a growing cache, at shapes that are
//! large enough for a backend to fuse, tile and tune.

mod common;
#[allow(dead_code, reason = "each test uses a part")]
#[path = "common/tiny.rs"]
mod tiny;

use tiny::{Shape, build, distance, features, model, sequence, values};
use victor::VlmConfig;
use victor::parts::backend::{Device, DeviceTask, VictorBackend};
use victor::parts::model::{KvCache, PositionMode};

const STEPS: usize = 24;

/// The greedy tokens of both samples and all logits.
type Answers = (Vec<u32>, Vec<f32>);

struct Greedy<'a>(&'a VlmConfig);

impl DeviceTask for Greedy<'_> {
    type Output = Answers;

    fn run<B: VictorBackend>(self, device: B::Device) -> Self::Output {
        let model = model::<B>(self.0, 3, &device);
        let sequences = [
            sequence(self.0, &[5, 9], 1),
            sequence(self.0, &[2, 3, 4], 2),
        ];
        let visual = model.project(features(self.0, 3, 5, &device));
        let layout = model.layout(&sequences).expect("a layout");
        let mut cache = KvCache::new(self.0.text_config.num_hidden_layers);
        let mut logits = values(model.prefill(&layout, Some(visual), &mut cache));
        let (mut tokens, mut all) = (Vec::new(), Vec::new());
        for _ in 0..STEPS {
            let next: Vec<u32> = logits.chunks(tiny::VOCAB).map(largest).collect();
            tokens.extend_from_slice(&next);
            all.append(&mut logits);
            logits = values(model.decode(&next, &mut cache));
        }
        (tokens, all)
    }
}

fn largest(logits: &[f32]) -> u32 {
    let pairs = logits.iter().enumerate();
    pairs.max_by(|a, b| a.1.total_cmp(b.1)).expect("logits").0 as u32
}

#[test]
fn every_backend_gives_the_same_greedy_tokens() {
    let config = build(Shape {
        hidden: 128,
        heads: 8,
        kv_heads: 2,
        head_dim: 16,
        layers: 5,
        grid: 8,
        qkv_bias: true,
        tied: true,
        registers: 8,
        drop: 3,
        positions: PositionMode::Original,
        tiles: false,
    });
    let results: Vec<(Device, Answers)> = common::devices()
        .into_iter()
        .map(|device| (device, device.run(Greedy(&config)).expect("compiled in")))
        .collect();
    let (reference, (tokens, logits)) = &results[0];
    for (device, (other_tokens, other_logits)) in &results[1..] {
        let error = distance(other_logits, logits);
        eprintln!("{device} against {reference}: {error:.1e}");
        assert_eq!(other_tokens, tokens, "{device} against {reference}");
        assert!(
            error < 1e-4,
            "{device} against {reference}: logits are off by {error:e}"
        );
    }
}
