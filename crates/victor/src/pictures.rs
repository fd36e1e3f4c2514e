//! From pictures to visual tokens: what a picture will take in a prompt, its views, and the tower.

use crate::VictorError;
use crate::engine::Engine;
use burn::prelude::*;
use victor_backend::VictorBackend;
use victor_data::{ImageProcessor, PixelValues, RgbImage, Size, Tokenizer, select_best_resolution};
use victor_model::{PictureConfig, TileGrid, VisionFamily};

/// Views the tower computes at once; more would only cost memory.
const VISION_BATCH: usize = 16;

/// A picture as the tower reads it.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    /// The picture, or for LLaVA-NeXT its thumbnail and tiles; all of one size.
    pub(crate) views: Vec<PixelValues>,
    /// How the tiles stand.
    pub(crate) grid: TileGrid,
}

impl<B: VictorBackend> Engine<B> {
    /// Whether pictures are cut into tiles.
    pub(crate) fn has_tiles(&self) -> bool {
        let picture = self.model.config().picture.as_ref();
        picture.is_some_and(|picture| picture.image_grid_pinpoints.is_some())
    }

    /// How pictures will be cut; nothing of them but their size is looked at.
    pub(crate) fn grids(&self, images: &[RgbImage]) -> Result<Vec<TileGrid>, VictorError> {
        let Some(processor) = &self.processor else {
            return match images.len() {
                0 => Ok(Vec::new()),
                pictures => Err(VictorError::TextOnly { pictures }),
            };
        };
        let (side, _) = processor.output_size();
        let grid = |image: &RgbImage| {
            let size = Size {
                height: image.height(),
                width: image.width(),
            };
            let best = select_best_resolution(size, &processor.image_grid_pinpoints);
            let tiles = |pixels: u32| (pixels as usize).div_ceil(side);
            TileGrid {
                rows: best.map_or(0, |best| tiles(best.height)),
                columns: best.map_or(0, |best| tiles(best.width)),
                height: size.height as usize,
                width: size.width as usize,
            }
        };
        Ok(images.iter().map(grid).collect())
    }

    /// Visual tokens of a picture.
    pub(crate) fn visual_rows(&self, grid: &TileGrid) -> usize {
        let Some(config) = &self.model.config().picture else {
            return 0;
        };
        if config.image_grid_pinpoints.is_some() {
            let vision = &config.vision_config;
            return grid.visual_tokens(vision.image_size / vision.patch_size);
        }
        let size = self.processor.as_ref().map(ImageProcessor::output_size);
        size.map_or(0, |(height, width)| config.visual_tokens_of(height, width))
    }

    /// The views of a picture.
    pub(crate) fn picture(&self, image: &RgbImage, grid: TileGrid) -> Result<Picture, VictorError> {
        let Some(processor) = &self.processor else {
            return Err(VictorError::TextOnly { pictures: 1 });
        };
        let views = if grid.views() > 1 {
            processor.preprocess_tiles(image)?.views
        } else {
            vec![processor.preprocess(image)?]
        };
        let size = processor.output_size();
        match views.iter().find(|view| (view.height, view.width) != size) {
            Some(view) => Err(VictorError::PictureSize {
                found: (view.height, view.width),
                expected: size.0,
            }),
            None => Ok(Picture { views, grid }),
        }
    }

    /// Visual tokens of all pictures in order, `[visual tokens, hidden]`; `None` without pictures.
    pub(crate) fn visual_tokens(&self, pictures: &[&Picture]) -> Option<Tensor<B, 2>> {
        let features = self.features(pictures)?;
        Some(self.merge(features, pictures))
    }

    /// The selected hidden state of every view, `[views, tokens, vision_hidden]`; `None` without pictures.
    pub(crate) fn features(&self, pictures: &[&Picture]) -> Option<Tensor<B, 3>> {
        let views: Vec<&PixelValues> = pictures.iter().flat_map(|picture| &picture.views).collect();
        let batches = views.chunks(VISION_BATCH).map(|batch| {
            let (channels, height, width) = (batch[0].channels, batch[0].height, batch[0].width);
            let values: Vec<f32> = batch
                .iter()
                .flat_map(|view| &view.values)
                .copied()
                .collect();
            let shape = [batch.len(), channels, height, width];
            self.model.encode_images(Tensor::from_data(
                TensorData::new(values, shape),
                &self.device,
            ))
        });
        let batches: Vec<_> = batches.collect();
        (!batches.is_empty()).then(|| Tensor::cat(batches, 0))
    }

    /// Projects features and puts tiles together, `[visual tokens, hidden]`.
    pub(crate) fn merge(&self, features: Tensor<B, 3>, pictures: &[&Picture]) -> Tensor<B, 2> {
        let grids: Vec<TileGrid> = pictures.iter().map(|picture| picture.grid).collect();
        self.model.visual_tokens(features, &grids)
    }
}

/// Files of one folder may come from several models: better said before the weights are read.
pub(crate) fn check_parts(
    config: &PictureConfig,
    tokenizer: &Tokenizer,
    processor: &ImageProcessor,
) -> Result<(), VictorError> {
    tokenizer.image_marking(config.image_token_index)?;
    let expected = config.vision_config.image_size;
    let found = processor.output_size();
    let fits = match config.vision_config.family {
        // DINOv2's position table is resampled to the picture.
        VisionFamily::Dinov2 if config.image_grid_pinpoints.is_none() => {
            found.0.min(found.1) >= config.vision_config.patch_size
        }
        _ => found == (expected, expected),
    };
    if !fits {
        return Err(VictorError::PictureSize { found, expected });
    }
    let sides = |[height, width]: &[u32; 2]| [*height as usize, *width as usize];
    let found: Vec<[usize; 2]> = processor.image_grid_pinpoints.iter().map(sides).collect();
    let expected = config.image_grid_pinpoints.clone().unwrap_or_default();
    // A processor without any gives the thumbnail alone.
    if !found.is_empty() && found != expected {
        return Err(VictorError::Pinpoints { found, expected });
    }
    Ok(())
}
