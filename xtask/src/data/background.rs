//! What pictograms are drawn on: plain named colours, soft gradients and noise.

use image::{Rgb, RgbImage, RgbaImage};
use rand::Rng;
use rand::seq::IndexedRandom;

/// The colours a question may ask for, and what they look like.
const PALETTE: [(&str, [u8; 3]); 11] = [
    ("white", [255, 255, 255]),
    ("red", [222, 48, 44]),
    ("orange", [245, 146, 40]),
    ("yellow", [250, 222, 72]),
    ("green", [72, 168, 84]),
    ("blue", [58, 112, 214]),
    ("purple", [136, 76, 178]),
    ("pink", [246, 166, 196]),
    ("brown", [128, 84, 52]),
    ("grey", [146, 146, 146]),
    ("black", [16, 16, 16]),
];

/// A background with the name of its colour, where it has one.
pub(crate) struct Background {
    pub(crate) colour: Option<&'static str>,
    pub(crate) canvas: RgbImage,
}

impl Background {
    /// Pure white.
    pub(crate) fn white(size: u32) -> Self {
        Self {
            colour: Some("white"),
            canvas: RgbImage::from_pixel(size, size, Rgb([255; 3])),
        }
    }

    /// White half of the time, else as [`Background::varied`].
    pub(crate) fn often_white(size: u32, rng: &mut impl Rng, shown: &[&RgbaImage]) -> Self {
        if rng.random_bool(0.5) {
            Self::white(size)
        } else {
            Self::varied(size, rng, shown)
        }
    }

    /// A plain named colour most of the time, else a gradient or noise. Colours that would hide one
    /// of the `shown` pictures are passed over.
    pub(crate) fn varied(size: u32, rng: &mut impl Rng, shown: &[&RgbaImage]) -> Self {
        if rng.random_bool(0.7) {
            let (name, colour) = plain(rng, shown);
            return Self {
                colour: Some(name),
                canvas: RgbImage::from_pixel(size, size, Rgb(colour)),
            };
        }
        let (_, from) = plain(rng, shown);
        let (_, to) = plain(rng, shown);
        let canvas = if rng.random_bool(0.6) {
            gradient(size, soften(from), soften(to), rng)
        } else {
            noise(size, soften(from), rng)
        };
        Self {
            colour: None,
            canvas,
        }
    }
}

/// A named colour, a little off its palette entry, that hides none of the `shown` pictures.
fn plain(rng: &mut impl Rng, shown: &[&RgbaImage]) -> (&'static str, [u8; 3]) {
    for _ in 0..12 {
        let Some(&(name, colour)) = PALETTE.choose(rng) else {
            break;
        };
        if shown.iter().any(|picture| hides(colour, picture)) {
            continue;
        }
        if name == "white" {
            return (name, colour);
        }
        let shade = rng.random_range(-10..=10);
        return (
            name,
            colour.map(|c| (i32::from(c) + shade).clamp(0, 255) as u8),
        );
    }
    PALETTE[0]
}

/// Whether more than half of what is opaque in the picture would vanish on the colour.
fn hides(colour: [u8; 3], picture: &RgbaImage) -> bool {
    let (mut opaque, mut lost) = (0u32, 0u32);
    for pixel in picture.pixels().filter(|pixel| pixel[3] > 127) {
        opaque += 1;
        let distance: u32 = (0..3)
            .map(|c| u32::from(pixel[c].abs_diff(colour[c])))
            .sum();
        lost += u32::from(distance < 110);
    }
    lost * 2 > opaque
}

/// Halfway to white: strong colours make restless gradients.
fn soften(colour: [u8; 3]) -> [f32; 3] {
    colour.map(|c| f32::from(c) * 0.5 + 127.5)
}

fn gradient(size: u32, from: [f32; 3], to: [f32; 3], rng: &mut impl Rng) -> RgbImage {
    let (sin, cos) = rng.random_range(0.0..std::f32::consts::TAU).sin_cos();
    let half = size as f32 / 2.0;
    RgbImage::from_fn(size, size, |x, y| {
        let along = ((x as f32 - half) * cos + (y as f32 - half) * sin) / (2.0 * half);
        let t = (along + 0.5).clamp(0.0, 1.0);
        Rgb([0, 1, 2].map(|c| (from[c] + (to[c] - from[c]) * t).round() as u8))
    })
}

fn noise(size: u32, base: [f32; 3], rng: &mut impl Rng) -> RgbImage {
    let strength = rng.random_range(6.0..28.0f32);
    let mut canvas = RgbImage::new(size, size);
    for pixel in canvas.pixels_mut() {
        let shift = rng.random_range(-strength..strength);
        pixel.0 = base.map(|c| (c + shift).clamp(0.0, 255.0) as u8);
    }
    image::imageops::blur(&canvas, rng.random_range(0.5..1.5))
}

#[cfg(test)]
mod tests {
    use image::Rgba;

    use super::*;
    use crate::data::item_rng;

    #[test]
    fn a_background_never_hides_what_is_shown() {
        let black = RgbaImage::from_pixel(8, 8, Rgba([10, 10, 10, 255]));
        for index in 0..200 {
            let (name, _) = plain(&mut item_rng(1, "background", index), &[&black]);
            assert_ne!(name, "black");
        }
    }

    #[test]
    fn a_named_background_is_plain() {
        let background = Background::white(4);
        assert_eq!(background.colour, Some("white"));
        assert!(background.canvas.pixels().all(|p| p.0 == [255; 3]));
    }
}
