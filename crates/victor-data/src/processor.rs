//! From an RGB picture to the numbers a vision tower reads: pad, resize, crop, rescale, normalise.
//!
//! The order and the rounding are those of transformers' CLIP, SigLIP, BiT and LLaVA image processors.

use image::RgbImage;

use crate::resize::{Canvas, Span, resize_window};
use crate::{DataError, Filter};

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl Size {
    /// Both sides the same.
    pub fn square(side: u32) -> Self {
        Self {
            height: side,
            width: side,
        }
    }
}

/// What a picture is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResizeTo {
    /// The shorter side becomes this long, the longer follows, rounded down.
    ShortestEdge(u32),
    /// Both sides are given; the aspect ratio may change.
    Exact(Size),
}

/// How one checkpoint wants its pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    /// Whether the picture is first centred on a square of the mean colour (`image_aspect_ratio: "pad"`).
    pub pad_to_square: bool,
    /// The resizing, if there is any.
    pub resize: Option<ResizeTo>,
    /// How resizing weighs pixels.
    pub filter: Filter,
    /// The centre that is cut out, if one is; black is added where the picture is smaller.
    pub center_crop: Option<Size>,
    /// What the bytes are multiplied by, if by anything.
    pub rescale_factor: Option<f64>,
    /// The mean of each channel, on the rescaled values; also the padding's colour.
    pub mean: [f64; 3],
    /// The standard deviation of each channel, on the rescaled values.
    pub std: [f64; 3],
    /// Whether mean and deviation are applied.
    pub do_normalize: bool,
    /// LLaVA-NeXT's grid resolutions as `[height, width]`; empty for every other processor.
    pub image_grid_pinpoints: Vec<[u32; 2]>,
}

/// A picture as a vision tower reads it.
///
/// # Shapes
/// - values: `[channels, height, width]`, row-major
#[derive(Debug, Clone, PartialEq)]
pub struct PixelValues {
    /// Always 3: red, green, blue.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// The normalised values.
    pub values: Vec<f32>,
}

impl ImageProcessor {
    /// The `(height, width)` of what [`preprocess`](Self::preprocess) returns.
    pub fn output_size(&self) -> (usize, usize) {
        let size = self.fixed_size().unwrap_or(Size::square(0));
        (size.height as usize, size.width as usize)
    }

    /// Turns one picture into one view for the tower.
    ///
    /// Only the pixels that survive the crop are computed, so a 1 × 20000 picture costs no more than another.
    ///
    /// # Errors
    /// If the picture has no pixel, or if the processor is one that cuts pictures into tiles.
    pub fn preprocess(&self, picture: &RgbImage) -> Result<PixelValues, DataError> {
        if !self.image_grid_pinpoints.is_empty() {
            return Err(DataError::TilesExpected {
                pinpoints: self.image_grid_pinpoints.len(),
            });
        }
        require_pixels(picture)?;
        let canvas = if self.pad_to_square {
            Canvas::square(picture, self.padding_colour())
        } else {
            Canvas::bare(picture)
        };
        Ok(self.normalize(&self.resize_and_crop(&canvas)))
    }

    /// Rescales and normalises a picture that already has its size.
    pub fn normalize(&self, picture: &RgbImage) -> PixelValues {
        let tables = [0, 1, 2].map(|channel| self.normalized_levels(channel));
        let values = (0..3)
            .flat_map(|channel| {
                let table = &tables[channel];
                picture
                    .pixels()
                    .map(move |pixel| table[usize::from(pixel[channel])])
            })
            .collect();
        PixelValues {
            channels: 3,
            height: picture.height() as usize,
            width: picture.width() as usize,
            values,
        }
    }

    /// The one size every picture comes out with; `None` if it would vary.
    pub(crate) fn fixed_size(&self) -> Option<Size> {
        match (self.center_crop, self.resize) {
            (Some(size), _) | (None, Some(ResizeTo::Exact(size))) => Some(size),
            (None, Some(ResizeTo::ShortestEdge(edge))) if self.pad_to_square => {
                Some(Size::square(edge))
            }
            // Tiles are cut to this size.
            (None, Some(ResizeTo::ShortestEdge(edge))) if !self.image_grid_pinpoints.is_empty() => {
                Some(Size::square(edge))
            }
            _ => None,
        }
    }

    fn resize_and_crop(&self, canvas: &Canvas<'_>) -> RgbImage {
        let (height, width) = self.resized_size(canvas);
        let crop = self.fixed_size().unwrap_or(Size {
            height: canvas.height,
            width: canvas.width,
        });
        let (rows, above) = crop_axis(height, crop.height);
        let (columns, before) = crop_axis(width, crop.width);
        let inner = resize_window(canvas, columns, rows, self.filter);
        if inner.dimensions() == (crop.width, crop.height) {
            return inner;
        }
        let mut framed = RgbImage::new(crop.width, crop.height);
        image::imageops::replace(&mut framed, &inner, before.into(), above.into());
        framed
    }

    /// The `(height, width)` of the whole picture after resizing, which can exceed 32 bits for thin pictures.
    fn resized_size(&self, canvas: &Canvas<'_>) -> (u64, u64) {
        let (height, width) = (u64::from(canvas.height), u64::from(canvas.width));
        match self.resize {
            None => (height, width),
            Some(ResizeTo::Exact(size)) => (size.height.into(), size.width.into()),
            Some(ResizeTo::ShortestEdge(edge)) => {
                let edge = u64::from(edge);
                // Through a float, as in Python: the quotient is rounded before it is cut.
                let long = |long: u64, short: u64| ((edge * long) as f64 / short as f64) as u64;
                if width <= height {
                    (long(height, width), edge)
                } else {
                    (edge, long(width, height))
                }
            }
        }
    }

    pub(crate) fn padding_colour(&self) -> [u8; 3] {
        self.mean.map(|mean| (mean * 255.0) as u8)
    }

    /// What each byte becomes in a channel, in the single precision and the order of transformers.
    fn normalized_levels(&self, channel: usize) -> [f32; 256] {
        std::array::from_fn(|level| {
            let value = match self.rescale_factor {
                Some(factor) => (level as f64 * factor) as f32,
                None => level as f32,
            };
            if self.do_normalize {
                (value - self.mean[channel] as f32) / self.std[channel] as f32
            } else {
                value
            }
        })
    }
}

pub(crate) fn require_pixels(picture: &RgbImage) -> Result<(), DataError> {
    let (width, height) = picture.dimensions();
    if width == 0 || height == 0 {
        return Err(DataError::EmptyImage { width, height });
    }
    Ok(())
}

/// The stretch of an axis that a centre crop keeps, and how many black pixels go before it.
fn crop_axis(full: u64, crop: u32) -> (Span, u32) {
    let wanted = u64::from(crop);
    if full >= wanted {
        let start = (full - wanted) / 2;
        let len = crop;
        (Span { full, start, len }, 0)
    } else {
        let missing = crop - full as u32;
        let span = Span::whole(full as u32);
        (span, missing.div_ceil(2))
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn clip(side: u32) -> ImageProcessor {
        ImageProcessor {
            pad_to_square: false,
            resize: Some(ResizeTo::ShortestEdge(side)),
            filter: Filter::Bicubic,
            center_crop: Some(Size::square(side)),
            rescale_factor: Some(1.0 / 255.0),
            mean: [0.5, 0.4, 0.3],
            std: [0.5, 0.25, 0.2],
            do_normalize: true,
            image_grid_pinpoints: Vec::new(),
        }
    }

    fn pattern(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 37 + y) as u8, (y * 59) as u8, (x * y) as u8])
        })
    }

    #[test]
    fn the_centre_of_the_resized_picture_is_kept() -> Result<(), DataError> {
        for (width, height, to_width, to_height) in [(50, 31, 22, 14), (31, 50, 14, 22)] {
            let picture = pattern(width, height);
            let whole = crate::resize(&picture, to_width, to_height, Filter::Bicubic);
            let (left, top) = ((to_width - 14) / 2, (to_height - 14) / 2);
            let cut = image::imageops::crop_imm(&whole, left, top, 14, 14).to_image();
            assert_eq!(clip(14).preprocess(&picture)?, clip(14).normalize(&cut));
        }
        Ok(())
    }

    #[test]
    fn extreme_shapes_are_computed() -> Result<(), DataError> {
        for (width, height) in [(1, 1), (1, 20_000), (20_000, 1)] {
            for pad_to_square in [false, true] {
                let processor = ImageProcessor {
                    pad_to_square,
                    ..clip(336)
                };
                let pixels = processor.preprocess(&pattern(width, height))?;
                assert_eq!(
                    (pixels.channels, pixels.height, pixels.width),
                    (3, 336, 336)
                );
                assert_eq!(pixels.values.len(), 3 * 336 * 336);
                assert!(pixels.values.iter().all(|value| value.is_finite()));
            }
        }
        Ok(())
    }

    #[test]
    fn small_pictures_are_framed_in_black() -> Result<(), DataError> {
        let processor = ImageProcessor {
            resize: None,
            ..clip(4)
        };
        let picture = RgbImage::from_pixel(1, 6, Rgb([255; 3]));
        let pixels = processor.preprocess(&picture)?;
        // Two of the three missing columns go before the picture.
        assert_eq!(pixels.values[..4], [-1.0, -1.0, 1.0, -1.0]);
        Ok(())
    }

    #[test]
    fn padding_has_the_mean_colour() -> Result<(), DataError> {
        let processor = ImageProcessor {
            pad_to_square: true,
            ..clip(4)
        };
        assert_eq!(processor.padding_colour(), [127, 102, 76]);
        let picture = RgbImage::from_pixel(4, 2, Rgb([255; 3]));
        let pixels = processor
            .normalize(&processor.resize_and_crop(&Canvas::square(&picture, [127, 102, 76])));
        assert_eq!(pixels, processor.preprocess(&picture)?);
        assert!((pixels.values[0] - (127.0 / 255.0 - 0.5) / 0.5).abs() < 1e-6);
        assert_eq!(pixels.values[4], 1.0);
        Ok(())
    }

    #[test]
    fn no_pixel_is_an_error() {
        let error = clip(4).preprocess(&RgbImage::new(0, 5)).expect_err("empty");
        assert!(matches!(error, DataError::EmptyImage { .. }));
    }
}
