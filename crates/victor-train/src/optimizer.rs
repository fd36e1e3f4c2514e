//! AdamW with a learning rate for each part, after clipping the norm of all gradients together.

use crate::{Part, TrainConfig, parts};
use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ModuleVisitor, Param, ParamId};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{AdamW, AdamWConfig, GradientsParams, Optimizer};
use burn::prelude::*;
use std::collections::HashMap;
use victor_model::{VictorBackend, Vlm};

pub(crate) type Model<B> = Vlm<Autodiff<B>>;
pub(crate) type Adam<B> = OptimizerAdaptor<AdamW, Model<B>, Autodiff<B>>;

/// The optimisers of a run.
pub(crate) struct Optimizers<B: VictorBackend> {
    /// With and without weight decay.
    pub(crate) adam: [Adam<B>; 2],
    groups: Vec<Group>,
    max_grad_norm: f64,
}

/// Parameters that share a learning rate and a decay.
struct Group {
    ids: Vec<ParamId>,
    learning_rate: f64,
    /// Which optimiser.
    adam: usize,
}

impl<B: VictorBackend> Optimizers<B> {
    pub(crate) fn new(config: &TrainConfig, model: &Model<B>) -> Self {
        let adam = |weight_decay| {
            AdamWConfig::new()
                .with_beta_1(config.adam_beta1 as f32)
                .with_beta_2(config.adam_beta2 as f32)
                .with_epsilon(config.adam_epsilon as f32)
                .with_weight_decay(weight_decay)
                .init()
        };
        let front = parts::before_drop(model);
        let mut groups = Vec::new();
        for part in Part::ALL.into_iter().filter(|part| config.trains(*part)) {
            let parameters = part.parameters(model);
            let rate = config.learning_rate_of(part);
            let slow = config.before_drop_learning_rate.unwrap_or(rate);
            // Vectors (biases, norms) are never decayed.
            for (adam, is_matrix) in [(0, true), (1, false)] {
                for (learning_rate, in_front) in [(rate, false), (slow, true)] {
                    let ids = parameters.iter().filter(|(id, axes)| {
                        (*axes > 1) == is_matrix && front.contains(id) == in_front
                    });
                    groups.push(Group {
                        ids: ids.map(|(id, _)| *id).collect(),
                        learning_rate,
                        adam,
                    });
                }
            }
        }
        Self {
            adam: [adam(config.weight_decay as f32), adam(0.0)],
            groups,
            max_grad_norm: config.max_grad_norm,
        }
    }

    /// Changes the model by the gradients; returns their norm before clipping.
    ///
    /// `factor` scales every learning rate.
    pub(crate) fn step(
        &mut self,
        mut model: Model<B>,
        gradients: GradientsParams,
        factor: f64,
    ) -> (Model<B>, f64) {
        let mut norm = SquaredNorm::<B> {
            gradients: &gradients,
            sum: None,
        };
        model.visit(&mut norm);
        let norm = norm
            .sum
            .map_or(0.0, |sum| sum.into_scalar().elem::<f64>().sqrt());
        let clip = self.max_grad_norm > 0.0 && norm > self.max_grad_norm;

        let numbers = self.groups.iter().enumerate();
        let group_of = numbers
            .flat_map(|(number, group)| group.ids.iter().map(move |id| (*id, number)))
            .collect();
        let mut split = Split {
            gradients,
            scale: clip.then(|| self.max_grad_norm / norm),
            group_of,
            groups: self.groups.iter().map(|_| GradientsParams::new()).collect(),
        };
        model.visit(&mut split);
        for (group, gradients) in self.groups.iter().zip(split.groups) {
            if !gradients.is_empty() {
                let adam = &mut self.adam[group.adam];
                model = adam.step(group.learning_rate * factor, model, gradients);
            }
        }
        (model, norm)
    }
}

/// The model with its trained parts tracked and the others not.
pub(crate) fn trainable<B: VictorBackend>(model: Vlm<B>, trained: &[Part]) -> Model<B> {
    parts::track(Model::<B>::from_inner(model), trained)
}

struct SquaredNorm<'a, B: Backend> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<B, 1>>,
}

impl<B: VictorBackend> ModuleVisitor<Autodiff<B>> for SquaredNorm<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Autodiff<B>, D>>) {
        if let Some(gradient) = self.gradients.get::<B, D>(param.id) {
            let squared = gradient.square().sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + squared,
                None => squared,
            });
        }
    }
}

struct Split {
    gradients: GradientsParams,
    scale: Option<f64>,
    group_of: HashMap<ParamId, usize>,
    groups: Vec<GradientsParams>,
}

impl<B: VictorBackend> ModuleVisitor<Autodiff<B>> for Split {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Autodiff<B>, D>>) {
        let Some(group) = self.group_of.get(&param.id) else {
            return;
        };
        if let Some(gradient) = self.gradients.remove::<B, D>(param.id) {
            let gradient = match self.scale {
                Some(scale) => gradient.mul_scalar(scale),
                None => gradient,
            };
            self.groups[*group].register(param.id, gradient);
        }
    }
}
