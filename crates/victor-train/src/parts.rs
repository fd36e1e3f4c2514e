//! The four parts of the model that a stage trains or freezes.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};
use std::fmt;
use victor_model::{VictorBackend, Vlm};

/// A part of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Pixels to features.
    VisionTower,
    /// Features to the decoder's embedding space.
    #[serde(alias = "multi_modal_projector")]
    Projector,
    /// The visual registers.
    #[serde(alias = "visual_registers")]
    Registers,
    /// Embedding, layers and head.
    #[serde(alias = "language_model")]
    Decoder,
}

impl Part {
    /// All of them, in the order of the computation.
    pub const ALL: [Part; 4] = [
        Part::VisionTower,
        Part::Projector,
        Part::Registers,
        Part::Decoder,
    ];

    /// Its name in checkpoints.
    pub fn module_name(self) -> &'static str {
        match self {
            Part::VisionTower => "vision_tower",
            Part::Projector => "multi_modal_projector",
            Part::Registers => "visual_registers",
            Part::Decoder => "language_model",
        }
    }

    /// Whether the model has it.
    pub(crate) fn is_in<B: VictorBackend>(self, model: &Vlm<B>) -> bool {
        match self {
            Part::VisionTower | Part::Projector => model.picture.is_some(),
            Part::Registers => model.visual_registers.is_some(),
            Part::Decoder => true,
        }
    }

    /// Shows its parameters to a visitor, always in the same order.
    pub(crate) fn visit<B: VictorBackend>(
        self,
        model: &Vlm<B>,
        visitor: &mut impl ModuleVisitor<B>,
    ) {
        match self {
            Part::VisionTower => {
                if let Some(picture) = &model.picture {
                    picture.vision_tower.visit(visitor);
                }
            }
            Part::Projector => {
                if let Some(picture) = &model.picture {
                    picture.multi_modal_projector.visit(visitor);
                }
            }
            Part::Registers => model.visual_registers.visit(visitor),
            Part::Decoder => model.language_model.visit(visitor),
        }
    }

    /// Its parameters: which they are and how many axes they have.
    pub(crate) fn parameters<B: VictorBackend>(self, model: &Vlm<B>) -> Vec<(ParamId, usize)> {
        let mut ids = Ids(Vec::new());
        self.visit(model, &mut ids);
        ids.0
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::VisionTower => "vision_tower",
            Part::Projector => "projector",
            Part::Registers => "registers",
            Part::Decoder => "decoder",
        })
    }
}

/// Tracks the parts named and takes the others out of the graph, so that nothing before the first
/// trained part is tracked either.
pub(crate) fn track<B: VictorBackend>(mut model: Vlm<B>, trained: &[Part]) -> Vlm<B> {
    let tracking = |part| Tracking(trained.contains(&part));
    model.picture = model.picture.map(|mut picture| {
        let tower = picture.vision_tower;
        picture.vision_tower = tower.map(&mut tracking(Part::VisionTower));
        let projector = picture.multi_modal_projector;
        picture.multi_modal_projector = projector.map(&mut tracking(Part::Projector));
        picture
    });
    model.visual_registers = model
        .visual_registers
        .map(|registers| registers.set_require_grad(trained.contains(&Part::Registers)));
    model.language_model = model.language_model.map(&mut tracking(Part::Decoder));
    model
}

struct Tracking(bool);

impl<B: Backend> ModuleMapper<B> for Tracking {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.set_require_grad(self.0)
    }
}

/// The parameters of the decoder's layers before the drop; none where nothing is dropped.
pub(crate) fn before_drop<B: VictorBackend>(model: &Vlm<B>) -> Vec<ParamId> {
    let mut ids = Ids(Vec::new());
    let layers = model.language_model.layers().iter();
    for layer in layers.take(model.config().drop_layer().unwrap_or(0)) {
        layer.visit(&mut ids);
    }
    ids.0.into_iter().map(|(id, _)| id).collect()
}

struct Ids(Vec<(ParamId, usize)>);

impl<B: Backend> ModuleVisitor<B> for Ids {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.push((param.id, D));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Train, tiny_model};
    use burn::module::list_param_ids;

    #[test]
    fn the_parts_hold_every_parameter_once() {
        let model = tiny_model::<Train>(2, Some(1));
        let mut of_parts: Vec<ParamId> = Part::ALL
            .iter()
            .flat_map(|part| part.parameters(&model))
            .map(|(id, _)| id)
            .collect();
        let mut all = list_param_ids(&model);
        of_parts.sort();
        all.sort();
        assert_eq!(of_parts, all);
    }
}
