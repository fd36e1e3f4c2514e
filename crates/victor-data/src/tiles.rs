//! LLaVA-NeXT's views of a picture: a thumbnail, then tiles of the picture fitted into the best grid resolution.

use image::{RgbImage, imageops};

use crate::processor::require_pixels;
use crate::{DataError, ImageProcessor, PixelValues, ResizeTo, Size, resize};

/// The views of one picture and what is needed to lay their features out again.
#[derive(Debug, Clone, PartialEq)]
pub struct TiledPixels {
    /// The thumbnail, then the tiles row by row; all of one size.
    pub views: Vec<PixelValues>,
    /// The picture's own size, which tells how much of the tiles is padding.
    pub original_size: Size,
    /// The grid resolution the picture was fitted into.
    pub resolution: Size,
    /// Rows of tiles.
    pub rows: usize,
    /// Columns of tiles.
    pub columns: usize,
}

impl ImageProcessor {
    /// Turns one picture into a thumbnail and tiles, as transformers' LLaVA-NeXT processor does.
    ///
    /// # Errors
    /// If the picture has no pixel, or if the processor has no grid resolutions.
    pub fn preprocess_tiles(&self, picture: &RgbImage) -> Result<TiledPixels, DataError> {
        require_pixels(picture)?;
        let original_size = Size {
            height: picture.height(),
            width: picture.width(),
        };
        let resolution = select_best_resolution(original_size, &self.image_grid_pinpoints)
            .ok_or(DataError::NoPinpoints)?;
        let side = self.output_size().0 as u32;
        let thumbnail = match self.resize {
            Some(ResizeTo::Exact(size)) => size,
            Some(ResizeTo::ShortestEdge(edge)) => Size::square(edge),
            None => Size::square(side),
        };
        let fitted = self.fit(picture, resolution);

        let mut views = vec![resize(
            picture,
            thumbnail.width,
            thumbnail.height,
            self.filter,
        )];
        for top in (0..resolution.height).step_by(side as usize) {
            for left in (0..resolution.width).step_by(side as usize) {
                views.push(imageops::crop_imm(&fitted, left, top, side, side).to_image());
            }
        }
        Ok(TiledPixels {
            views: views.iter().map(|view| self.normalize(view)).collect(),
            original_size,
            resolution,
            rows: resolution.height.div_ceil(side) as usize,
            columns: resolution.width.div_ceil(side) as usize,
        })
    }

    /// Resizes the picture to fit and centres it on black.
    fn fit(&self, picture: &RgbImage, resolution: Size) -> RgbImage {
        let (width, height) = picture.dimensions();
        let across = f64::from(resolution.width) / f64::from(width);
        let down = f64::from(resolution.height) / f64::from(height);
        let inner = if across < down {
            let height = (f64::from(height) * across).ceil() as u32;
            Size {
                height: height.min(resolution.height),
                width: resolution.width,
            }
        } else {
            let width = (f64::from(width) * down).ceil() as u32;
            Size {
                height: resolution.height,
                width: width.min(resolution.width),
            }
        };
        let resized = resize(picture, inner.width, inner.height, self.filter);
        let mut framed = RgbImage::new(resolution.width, resolution.height);
        let left = (resolution.width - inner.width) / 2;
        let top = (resolution.height - inner.height) / 2;
        imageops::replace(&mut framed, &resized, left.into(), top.into());
        framed
    }
}

/// The `[height, width]` that keeps the most of a picture's pixels, and of those the one that wastes the least.
///
/// The first of equals is taken; `None` if there is none to choose from.
pub fn select_best_resolution(original: Size, pinpoints: &[[u32; 2]]) -> Option<Size> {
    let (height, width) = (f64::from(original.height), f64::from(original.width));
    let mut best: Option<(u64, u64, Size)> = None;
    for &[rows, columns] in pinpoints {
        let scale = (f64::from(columns) / width).min(f64::from(rows) / height);
        let scaled = (width * scale) as u64 * (height * scale) as u64;
        let kept = scaled.min(u64::from(original.height) * u64::from(original.width));
        let wasted = u64::from(rows) * u64::from(columns) - kept;
        let better =
            best.is_none_or(|(most, least, _)| kept > most || (kept == most && wasted < least));
        if better {
            let size = Size {
                height: rows,
                width: columns,
            };
            best = Some((kept, wasted, size));
        }
    }
    best.map(|(_, _, size)| size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: [[u32; 2]; 5] = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]];

    fn best(height: u32, width: u32) -> Option<[u32; 2]> {
        select_best_resolution(Size { height, width }, &GRID).map(|size| [size.height, size.width])
    }

    #[test]
    fn the_resolution_follows_the_shape() {
        assert_eq!(best(100, 100), Some([112, 112]));
        assert_eq!(best(20, 40), Some([56, 112]));
        assert_eq!(best(500, 100), Some([168, 56]));
        assert_eq!(select_best_resolution(Size::square(5), &[]), None);
    }

    #[test]
    fn tiles_are_the_fitted_picture_cut_up() -> Result<(), DataError> {
        let processor = ImageProcessor {
            pad_to_square: false,
            resize: Some(ResizeTo::ShortestEdge(56)),
            filter: crate::Filter::Bicubic,
            center_crop: Some(Size::square(56)),
            rescale_factor: None,
            mean: [0.0; 3],
            std: [1.0; 3],
            do_normalize: false,
            image_grid_pinpoints: GRID.to_vec(),
        };
        let picture = RgbImage::from_fn(112, 40, |x, y| image::Rgb([x as u8, y as u8, 9]));
        let tiled = processor.preprocess_tiles(&picture)?;
        assert_eq!((tiled.views.len(), tiled.rows, tiled.columns), (3, 1, 2));
        // Eight black rows stand above the picture, which keeps its size.
        assert_eq!(tiled.views[1].values[7 * 56], 0.0);
        assert_eq!(tiled.views[1].values[8 * 56 + 5], 5.0);
        assert_eq!(tiled.views[2].values[8 * 56 + 5], 61.0);
        assert!(matches!(
            processor.preprocess(&picture),
            Err(DataError::TilesExpected { .. })
        ));
        let single = ImageProcessor {
            image_grid_pinpoints: Vec::new(),
            ..processor
        };
        assert!(matches!(
            single.preprocess_tiles(&picture),
            Err(DataError::NoPinpoints)
        ));
        Ok(())
    }
}
