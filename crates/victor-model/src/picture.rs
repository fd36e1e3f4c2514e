//! The picture side: vision tower, projector and, for LLaVA-NeXT, the end of a row of patches.
//!
//! Source: transformers `modeling_llava.py` and `modeling_llava_next.py`.

use crate::VictorBackend;
use crate::config::{PictureConfig, VisionSelect};
use crate::layers::normal;
use crate::projector::Projector;
use crate::tiles::TileGrid;
use crate::vision::VisionTower;
use burn::module::{Module, Param};
use burn::prelude::*;

/// Pixels to visual tokens.
#[derive(Module, Debug)]
pub struct PictureEncoder<B: Backend> {
    /// Pixels to features.
    pub vision_tower: VisionTower<B>,
    /// Features to the decoder's embedding space.
    pub multi_modal_projector: Projector<B>,
    /// `[hidden]`, LLaVA-NeXT's visual token at the end of every row of patches.
    pub image_newline: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    select: VisionSelect,
    /// Patches along a side of a view.
    side: usize,
}

impl<B: VictorBackend> PictureEncoder<B> {
    /// The picture side of a decoder of width `hidden`.
    pub fn init(config: &PictureConfig, hidden: usize, device: &B::Device) -> Self {
        let vision = &config.vision_config;
        let newline = || normal([hidden], 1.0 / (hidden as f64).sqrt(), device);
        Self {
            vision_tower: VisionTower::init(vision, config.vision_layers(), device),
            multi_modal_projector: Projector::init(
                &config.projector,
                vision.hidden_size,
                hidden,
                device,
            ),
            image_newline: config.image_grid_pinpoints.is_some().then(newline),
            select: config.vision_feature_select_strategy,
            side: vision.image_size / vision.patch_size,
        }
    }

    /// The selected rows of the tower's selected hidden state.
    ///
    /// # Shapes
    /// - pixel_values: `[views, channels, height, width]`
    /// - output: `[views, tokens, vision_hidden]`
    pub fn encode(&self, pixel_values: Tensor<B, 4>) -> Tensor<B, 3> {
        let features = self.vision_tower.forward(pixel_values);
        match self.select {
            VisionSelect::Full => features,
            VisionSelect::Default => {
                let tokens = features.dims()[1];
                features.narrow(1, 1, tokens - 1)
            }
        }
    }

    /// # Shapes
    /// - features: `[views, tokens, vision_hidden]`
    /// - output: `[views, tokens, hidden]`
    pub fn project(&self, features: Tensor<B, 3>) -> Tensor<B, 3> {
        self.multi_modal_projector.forward(features)
    }

    /// Visual tokens of all pictures in order: for LLaVA-NeXT the thumbnail's, then the tiles' without
    /// padding, put together to rows of the picture with `image_newline` after each; for others the
    /// tokens as they are.
    ///
    /// # Shapes
    /// - projected: `[views, tokens, hidden]`, the views of all pictures in order
    /// - grids: one a picture; read by LLaVA-NeXT only
    /// - output: `[visual tokens, hidden]`
    ///
    /// # Panics
    /// If the grids do not have as many views as there are.
    pub fn merge(&self, projected: Tensor<B, 3>, grids: &[TileGrid]) -> Tensor<B, 2> {
        let [views, tokens, _] = projected.dims();
        let projected = projected.flatten(0, 1);
        let Some(newline) = &self.image_newline else {
            return projected;
        };
        let expected: usize = grids.iter().map(TileGrid::views).sum();
        assert_eq!(views, expected, "views given and expected differ");
        let end = views * tokens;
        let mut before = 0;
        let mut index = Vec::new();
        for grid in grids {
            let rows = grid.tokens(self.side).into_iter();
            index.extend(rows.map(|patch| patch.map_or(end, |patch| before + patch) as i32));
            before += grid.views() * tokens;
        }
        let length = index.len();
        let index = Tensor::from_data(TensorData::new(index, [length]), &projected.device());
        Tensor::cat(vec![projected, newline.val().unsqueeze()], 0).select(0, index)
    }
}
