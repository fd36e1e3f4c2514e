//! The projector: visual features into the decoder's embedding space.
//!
//! Source: transformers `LlavaMultiModalProjector`.

use crate::VictorBackend;
use crate::config::{Activation, ProjectorConfig};
use crate::layers::Linear;
use crate::vision::activate;
use burn::module::Module;
use burn::prelude::*;

/// Maps visual features into the decoder's embedding space.
#[derive(Module, Debug)]
pub struct Projector<B: Backend> {
    /// The layer that sees the features; public so that training can choose its start.
    pub linear_1: Linear<B>,
    linear_2: Option<Linear<B>>,
    #[module(skip)]
    activation: Option<Activation>,
}

impl<B: VictorBackend> Projector<B> {
    /// A fresh projector from `vision_hidden` to `hidden`.
    pub fn init(
        config: &ProjectorConfig,
        vision_hidden: usize,
        hidden: usize,
        device: &B::Device,
    ) -> Self {
        match *config {
            ProjectorConfig::Linear { bias } => Self {
                linear_1: Linear::init(vision_hidden, hidden, bias, device),
                linear_2: None,
                activation: None,
            },
            ProjectorConfig::Mlp { activation, bias } => Self {
                linear_1: Linear::init(vision_hidden, hidden, bias, device),
                linear_2: Some(Linear::init(hidden, hidden, bias, device)),
                activation: Some(activation),
            },
        }
    }

    /// # Shapes
    /// - features: `[images, tokens, vision_hidden]`
    /// - output: `[images, tokens, hidden]`
    pub fn forward(&self, features: Tensor<B, 3>) -> Tensor<B, 3> {
        let hidden = self.linear_1.forward(features);
        match (&self.linear_2, self.activation) {
            (Some(linear), Some(activation)) => linear.forward(activate(activation, hidden)),
            _ => hidden,
        }
    }
}
