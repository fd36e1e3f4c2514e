//! Differentiable backends.

use crate::VictorBackend;
use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;

impl<B: VictorBackend, C: CheckpointStrategy> VictorBackend for Autodiff<B, C> {}
