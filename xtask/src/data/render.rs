//! Drawing a pictogram on a canvas: recoloured, resized, turned and mirrored, with its transparency.

use image::imageops::{self, FilterType};
use image::{RgbImage, Rgba, Rgba32FImage, RgbaImage};
use rand::Rng;

use super::concepts::Concept;

/// How a pictogram is drawn.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Look {
    /// Side of the square it fills, in pixels.
    pub(crate) size: u32,
    /// Clockwise turn in degrees.
    pub(crate) angle: f32,
    pub(crate) mirrored: bool,
    /// Turn of the hue circle in degrees.
    hue: f32,
    /// Factors, 1 being unchanged.
    saturation: f32,
    brightness: f32,
    contrast: f32,
    /// Levels a channel is flattened to.
    levels: Option<u8>,
    /// Standard deviation of a blur, in pixels of the drawn size.
    blur: Option<f32>,
    /// Shrinks the picture to the 64 pixels of the smallest vendors first.
    coarse: bool,
}

impl Look {
    /// The picture as it is, only resized.
    pub(crate) fn plain(size: u32) -> Self {
        Self {
            size,
            angle: 0.0,
            mirrored: false,
            hue: 0.0,
            saturation: 1.0,
            brightness: 1.0,
            contrast: 1.0,
            levels: None,
            blur: None,
            coarse: false,
        }
    }

    /// A random look that leaves the concept's label true.
    pub(crate) fn random(
        concept: &Concept,
        sizes: std::ops::RangeInclusive<u32>,
        rng: &mut impl Rng,
    ) -> Self {
        let turn = if concept.is_oriented() { 5.0 } else { 20.0 };
        let grey = rng.random_bool(0.06) && !concept.is_coloured();
        Self {
            size: rng.random_range(sizes),
            angle: rng.random_range(-turn..=turn),
            mirrored: rng.random_bool(0.5) && !concept.is_oriented(),
            hue: rng.random_range(-8.0..=8.0),
            saturation: if grey {
                0.1
            } else {
                rng.random_range(0.75..=1.3)
            },
            brightness: rng.random_range(0.88..=1.12),
            contrast: rng.random_range(0.85..=1.2),
            levels: rng.random_bool(0.12).then(|| rng.random_range(4..=6)),
            blur: rng.random_bool(0.12).then(|| rng.random_range(0.5..=1.2)),
            coarse: rng.random_bool(0.5),
        }
    }
}

/// Draws `picture` with its centre at `centre`, in pixels from the canvas's top left corner.
pub(crate) fn draw(canvas: &mut RgbImage, picture: &RgbaImage, look: &Look, centre: (f32, f32)) {
    let sprite = prepare(picture, look);
    let (sin, cos) = look.angle.to_radians().sin_cos();
    let half = look.size as f32 / 2.0;
    let reach = half * (sin.abs() + cos.abs()) + 1.0;
    let span = |at: f32, limit: u32| {
        let first = (at - reach).floor().max(0.0) as u32;
        first..((at + reach).ceil().max(0.0) as u32).min(limit)
    };
    for y in span(centre.1, canvas.height()) {
        for x in span(centre.0, canvas.width()) {
            let (dx, dy) = (x as f32 + 0.5 - centre.0, y as f32 + 0.5 - centre.1);
            let across = dx * cos + dy * sin;
            let across = if look.mirrored { -across } else { across };
            let down = dy * cos - dx * sin;
            let [r, g, b, a] = sample(&sprite, across + half - 0.5, down + half - 0.5);
            if a > 0.0 {
                let under = canvas.get_pixel_mut(x, y);
                for (channel, over) in under.0.iter_mut().zip([r, g, b]) {
                    let mixed = over * 255.0 + f32::from(*channel) * (1.0 - a);
                    *channel = mixed.round().clamp(0.0, 255.0) as u8;
                }
            }
        }
    }
}

/// The recoloured picture at its drawn size, its colours multiplied by their opacity: resampling
/// would else mix the colour of transparent pixels into the edges.
fn prepare(picture: &RgbaImage, look: &Look) -> Rgba32FImage {
    let mut sprite = Rgba32FImage::from_fn(picture.width(), picture.height(), |x, y| {
        let [r, g, b, a] = picture.get_pixel(x, y).0.map(|c| f32::from(c) / 255.0);
        let [r, g, b] = recolour([r, g, b], look);
        Rgba([r * a, g * a, b * a, a])
    });
    if look.coarse && sprite.width() > 64 {
        sprite = imageops::resize(&sprite, 64, 64, FilterType::CatmullRom);
    }
    sprite = imageops::resize(&sprite, look.size, look.size, FilterType::CatmullRom);
    if let Some(sigma) = look.blur {
        sprite = imageops::blur(&sprite, sigma);
    }
    for pixel in sprite.pixels_mut() {
        let a = pixel[3].clamp(0.0, 1.0);
        pixel.0 = [
            pixel[0].clamp(0.0, a),
            pixel[1].clamp(0.0, a),
            pixel[2].clamp(0.0, a),
            a,
        ];
    }
    sprite
}

/// One colour, channels in 0..=1, under a look's colour changes.
fn recolour(rgb: [f32; 3], look: &Look) -> [f32; 3] {
    let [r, g, b] = rgb;
    // Luma and two chroma axes: hue turns the chroma plane, saturation scales it.
    let y = 0.299 * r + 0.587 * g + 0.114 * b;
    let i = 0.596 * r - 0.274 * g - 0.322 * b;
    let q = 0.211 * r - 0.523 * g + 0.312 * b;
    let (sin, cos) = look.hue.to_radians().sin_cos();
    let (i, q) = (
        (i * cos - q * sin) * look.saturation,
        (i * sin + q * cos) * look.saturation,
    );
    let mixed = [
        y + 0.956 * i + 0.621 * q,
        y - 0.272 * i - 0.647 * q,
        y - 1.106 * i + 1.703 * q,
    ];
    mixed.map(|c| {
        let c = ((c - 0.5) * look.contrast + 0.5) * look.brightness;
        let c = c.clamp(0.0, 1.0);
        match look.levels {
            Some(levels) => {
                let steps = f32::from(levels - 1);
                (c * steps).round() / steps
            }
            None => c,
        }
    })
}

/// The bilinear mean around a point of the sprite, transparent outside it.
fn sample(sprite: &Rgba32FImage, x: f32, y: f32) -> [f32; 4] {
    let (x0, y0) = (x.floor(), y.floor());
    let (fx, fy) = (x - x0, y - y0);
    let mut sum = [0.0; 4];
    for (dy, wy) in [(0, 1.0 - fy), (1, fy)] {
        for (dx, wx) in [(0, 1.0 - fx), (1, fx)] {
            let (px, py) = (x0 as i64 + dx, y0 as i64 + dy);
            let inside = (0..i64::from(sprite.width())).contains(&px)
                && (0..i64::from(sprite.height())).contains(&py);
            if inside {
                let pixel = sprite.get_pixel(px as u32, py as u32);
                for (total, channel) in sum.iter_mut().zip(pixel.0) {
                    *total += channel * wx * wy;
                }
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::data::concepts::tests::concept;
    use crate::data::item_rng;

    /// Left half red, right half blue, opaque.
    fn two_halves() -> RgbaImage {
        RgbaImage::from_fn(8, 8, |x, _| {
            Rgba(if x < 4 {
                [255, 0, 0, 255]
            } else {
                [0, 0, 255, 255]
            })
        })
    }

    fn drawn(look: &Look) -> RgbImage {
        let mut canvas = RgbImage::from_pixel(16, 16, Rgb([255; 3]));
        draw(&mut canvas, &two_halves(), look, (8.0, 8.0));
        canvas
    }

    #[test]
    fn a_plain_look_copies_the_picture() {
        let canvas = drawn(&Look::plain(8));
        assert_eq!(canvas.get_pixel(0, 0).0, [255; 3]);
        assert!(canvas.get_pixel(4, 8).0[2] < 3 && canvas.get_pixel(4, 8).0[0] > 252);
        assert!(canvas.get_pixel(11, 8).0[0] < 3 && canvas.get_pixel(11, 8).0[2] > 252);
        assert_eq!(canvas.get_pixel(12, 8).0, [255; 3]);
    }

    #[test]
    fn mirroring_swaps_the_sides() {
        let look = Look {
            mirrored: true,
            ..Look::plain(8)
        };
        let (plain, mirrored) = (drawn(&Look::plain(8)), drawn(&look));
        for x in 0..16 {
            assert_eq!(plain.get_pixel(x, 8), mirrored.get_pixel(15 - x, 8));
        }
    }

    #[test]
    fn oriented_concepts_are_never_mirrored() {
        let clock = concept("one o’clock", "travel-places");
        let apple = concept("red apple", "food-drink");
        for index in 0..300 {
            let rng = &mut item_rng(1, "look", index);
            let look = Look::random(&clock, 110..=210, rng);
            assert!(!look.mirrored && look.angle.abs() <= 5.0);
            assert!(Look::random(&apple, 110..=210, rng).saturation >= 0.75);
        }
    }
}
