//! Rotary position embedding from explicit positions.
//!
//! burn-nn's rotates adjacent pairs over a contiguous range; checkpoints rotate halves, and dropped
//! visual tokens leave gaps in the positions.

use crate::config::{RopeConfig, RopeScaling};
use burn::prelude::*;
use std::f64::consts::PI;

/// Frequencies of a decoder's heads.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    inverse_frequencies: Vec<f64>,
}

/// Cosines and sines of the positions of one set of rows.
#[derive(Clone, Debug)]
pub struct Rotary<B: Backend> {
    /// `[batch, 1, seq, head_dim / 2]`
    pub cos: Tensor<B, 4>,
    /// `[batch, 1, seq, head_dim / 2]`
    pub sin: Tensor<B, 4>,
}

impl RotaryTable {
    /// The frequencies `theta^(-2i / head_dim)`, stretched as the config says.
    pub fn new(config: &RopeConfig, head_dim: usize) -> Self {
        let frequency = |i| {
            let plain = config.theta.powf(-2.0 * i as f64 / head_dim as f64);
            match &config.scaling {
                Some(scaling) => stretched(i, plain, scaling),
                None => plain,
            }
        };
        Self {
            inverse_frequencies: (0..head_dim / 2).map(frequency).collect(),
        }
    }

    /// The frequencies, radians a position, one for each pair of a head's elements.
    pub fn inverse_frequencies(&self) -> &[f64] {
        &self.inverse_frequencies
    }

    /// Cosines and sines for `positions`, `[batch][seq]`, all of one length.
    pub fn rotary<B: Backend>(&self, positions: &[Vec<usize>], device: &B::Device) -> Rotary<B> {
        let (batch, seq) = (positions.len(), positions.first().map_or(0, Vec::len));
        let half = self.inverse_frequencies.len();
        let angles = positions.iter().flatten().flat_map(|&position| {
            self.inverse_frequencies.iter().map(move |frequency| {
                // Rounded to f32 before the product, as transformers computes it.
                f64::from(position as f32 * *frequency as f32)
            })
        });
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for angle in angles {
            cos.push(angle.cos() as f32);
            sin.push(angle.sin() as f32);
        }
        let tensor = |values: Vec<f32>| {
            Tensor::from_data(TensorData::new(values, [batch, 1, seq, half]), device)
        };
        Rotary {
            cos: tensor(cos),
            sin: tensor(sin),
        }
    }
}

fn stretched(index: usize, frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
        RopeScaling::Factors { ref factors } => {
            frequency / factors.get(index).copied().unwrap_or(1.0)
        }
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: original,
        } => {
            let wavelength = 2.0 * PI / frequency;
            if wavelength < original / high_freq_factor {
                frequency
            } else if wavelength > original / low_freq_factor {
                frequency / factor
            } else {
                let ramp = (original / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                (1.0 - ramp) * frequency / factor + ramp * frequency
            }
        }
    }
}
