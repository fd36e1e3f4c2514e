//! From logits to the next token.

use crate::VictorError;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingOptions {
    /// 0 takes the most likely token; higher values flatten the distribution.
    pub temperature: f64,
    /// Only the k most likely tokens; 0 allows all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1 allows all.
    pub top_p: f64,
    /// Divides the logits of tokens already generated or prompted; 1 changes nothing (CTRL,
    /// arXiv 1909.05858).
    pub repetition_penalty: f64,
    /// Seed of the random stream; equal seeds give equal answers.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl SamplingOptions {
    /// # Errors
    /// If a value is out of its range.
    pub fn validate(&self) -> Result<(), VictorError> {
        let checks = [
            (
                "temperature",
                self.temperature,
                self.temperature >= 0.0,
                "a number from 0 up",
            ),
            (
                "top-p",
                self.top_p,
                self.top_p > 0.0 && self.top_p <= 1.0,
                "more than 0, at most 1",
            ),
            (
                "repetition-penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0,
                "more than 0",
            ),
        ];
        for (option, value, valid, expected) in checks {
            if !valid || !value.is_finite() {
                return Err(VictorError::Option {
                    option,
                    found: value.to_string(),
                    expected,
                });
            }
        }
        Ok(())
    }
}

/// Chooses tokens for one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplingOptions,
    random: ChaCha8Rng,
    seen: BTreeSet<u32>,
}

impl Sampler {
    /// A sampler of its own random stream: `sequence` tells those of a batch apart.
    pub fn new(options: SamplingOptions, sequence: u64, prompt: &[u32]) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        random.set_stream(sequence);
        Self {
            options,
            random,
            seen: prompt.iter().copied().collect(),
        }
    }

    /// The next token. `logits` holds one value a token and is used as scratch space.
    pub fn sample(&mut self, logits: &mut [f32]) -> u32 {
        self.penalise(logits);
        let token = if self.options.temperature == 0.0 {
            argmax(logits)
        } else {
            self.draw(logits)
        };
        self.seen.insert(token);
        token
    }

    fn penalise(&self, logits: &mut [f32]) {
        let penalty = self.options.repetition_penalty as f32;
        if penalty == 1.0 {
            return;
        }
        for token in &self.seen {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = if *logit > 0.0 {
                    *logit / penalty
                } else {
                    *logit * penalty
                };
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        if self.options.top_k > 0 {
            order.truncate(self.options.top_k);
        }
        let largest = f64::from(logits[order[0]]);
        let weight = |index: &usize| {
            ((f64::from(logits[*index]) - largest) / self.options.temperature).exp()
        };
        let mut weights: Vec<f64> = order.iter().map(weight).collect();
        let total: f64 = weights.iter().sum();
        let mut reached = 0.0;
        let allowed = weights.iter().take_while(|weight| {
            let short = reached < self.options.top_p * total;
            reached += **weight;
            short
        });
        let allowed = allowed.count().max(1);
        weights.truncate(allowed);
        let mut left = self.random.random::<f64>() * weights.iter().sum::<f64>();
        for (index, weight) in order.iter().zip(&weights) {
            left -= weight;
            if left <= 0.0 {
                return *index as u32;
            }
        }
        order[allowed - 1] as u32
    }
}

/// The first of the largest values.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, value) in logits.iter().enumerate() {
        if *value > logits[best] {
            best = index;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(options: SamplingOptions, draws: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(options, 0, &[]);
        (0..draws)
            .map(|_| sampler.sample(&mut [0.0, 1.0, 2.0, 2.5]))
            .collect()
    }

    #[test]
    fn zero_temperature_is_greedy() {
        assert_eq!(tokens(SamplingOptions::default(), 3), [3, 3, 3]);
    }

    #[test]
    fn seeds_decide_and_top_k_and_top_p_cut() {
        let hot = SamplingOptions {
            temperature: 1.0,
            ..Default::default()
        };
        assert_eq!(tokens(hot, 50), tokens(hot, 50));
        assert_ne!(
            tokens(hot, 50),
            tokens(SamplingOptions { seed: 1, ..hot }, 50)
        );
        assert!(tokens(hot, 400).contains(&0));
        let two = tokens(SamplingOptions { top_k: 2, ..hot }, 400);
        assert!(two.iter().all(|token| *token >= 2) && two.contains(&2));
        // The two likeliest reach 0.53 and 0.85 of the mass.
        let nucleus = tokens(SamplingOptions { top_p: 0.6, ..hot }, 400);
        assert!(nucleus.iter().all(|token| *token >= 2) && nucleus.contains(&2));
    }

    #[test]
    fn a_penalty_turns_to_unseen_tokens() {
        let options = SamplingOptions {
            repetition_penalty: 3.0,
            ..Default::default()
        };
        assert_eq!(tokens(options, 3), [3, 2, 1]);
    }

    #[test]
    fn bad_options_are_named() {
        let bad = SamplingOptions {
            top_p: 0.0,
            ..Default::default()
        };
        assert!(
            bad.validate()
                .expect_err("0")
                .to_string()
                .starts_with("top-p is 0")
        );
    }
}
