//! Pillow's 8-bit resampling, bit for bit: 22-bit fixed-point weights, columns first, each pass rounded to 8 bits.
//!
//! Pillow up to 12.x is meant; 13 runs the vertical pass first where the height shrinks much more than the width.
//! Only the asked-for window of the resized picture is computed, and padding is never stored, so extreme shapes cost no
//! more than their result.

use image::RgbImage;

/// Weights are scaled by this power of two, so that eight bits of pixel and two of overshoot still fit in 32.
const PRECISION_BITS: u32 = 32 - 8 - 2;
const CHANNELS: usize = 3;

/// How a pixel's neighbours are weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// A triangle, Pillow's number 2.
    Bilinear,
    /// A cubic with a = −0.5, Pillow's number 3.
    Bicubic,
}

impl Filter {
    /// How far the curve reaches, in source pixels, when nothing shrinks.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        const A: f64 = -0.5;
        let x = distance.abs();
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// Resizes a picture to `width × height` as Pillow's `Image.resize` does.
///
/// # Panics
/// If either picture has no pixel.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let canvas = Canvas::bare(image);
    resize_window(&canvas, Span::whole(width), Span::whole(height), filter)
}

/// A stretch of one axis of the resized picture: `len` pixels from `start` of `full`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) full: u64,
    pub(crate) start: u64,
    pub(crate) len: u32,
}

impl Span {
    pub(crate) fn whole(size: u32) -> Self {
        Self {
            full: u64::from(size),
            start: 0,
            len: size,
        }
    }
}

/// A picture lying on a larger rectangle of one colour.
pub(crate) struct Canvas<'a> {
    image: &'a RgbImage,
    pub(crate) width: u32,
    pub(crate) height: u32,
    left: u32,
    top: u32,
    fill: [u8; CHANNELS],
}

impl<'a> Canvas<'a> {
    pub(crate) fn bare(image: &'a RgbImage) -> Self {
        Self::centred(image, image.width(), image.height(), [0; CHANNELS])
    }

    /// The smallest square that holds the picture, centred, the odd pixel going to the right or the bottom.
    pub(crate) fn square(image: &'a RgbImage, fill: [u8; CHANNELS]) -> Self {
        let side = image.width().max(image.height());
        Self::centred(image, side, side, fill)
    }

    /// A `width × height` canvas, no smaller than the picture.
    pub(crate) fn centred(
        image: &'a RgbImage,
        width: u32,
        height: u32,
        fill: [u8; CHANNELS],
    ) -> Self {
        Self {
            image,
            width,
            height,
            left: (width - image.width()) / 2,
            top: (height - image.height()) / 2,
            fill,
        }
    }

    fn is_fill_row(&self, row: u32) -> bool {
        !(self.top..self.top + self.image.height()).contains(&row)
    }

    /// Writes row `row` of the canvas into `line`, which is `width` pixels long.
    fn read_row(&self, row: u32, line: &mut [u8]) {
        for pixel in line.chunks_exact_mut(CHANNELS) {
            pixel.copy_from_slice(&self.fill);
        }
        if !self.is_fill_row(row) {
            let stride = self.image.width() as usize * CHANNELS;
            let from = (row - self.top) as usize * stride;
            let at = self.left as usize * CHANNELS;
            line[at..at + stride].copy_from_slice(&self.image.as_raw()[from..from + stride]);
        }
    }
}

/// Computes the window `columns × rows` of the canvas resized to `columns.full × rows.full`.
pub(crate) fn resize_window(
    canvas: &Canvas<'_>,
    columns: Span,
    rows: Span,
    filter: Filter,
) -> RgbImage {
    let across = Taps::new(canvas.width, columns, filter);
    let down = Taps::new(canvas.height, rows, filter);

    let needed = down.source_range();
    let stride = columns.len as usize * CHANNELS;
    let mut narrow = vec![0; needed.len() * stride];
    let mut line = vec![0; canvas.width as usize * CHANNELS];
    let mut fill_row: Option<Vec<u8>> = None;
    for (target, row) in narrow.chunks_exact_mut(stride).zip(needed.clone()) {
        if canvas.is_fill_row(row as u32)
            && let Some(known) = &fill_row
        {
            target.copy_from_slice(known);
            continue;
        }
        canvas.read_row(row as u32, &mut line);
        across.apply_to_row(&line, target);
        if canvas.is_fill_row(row as u32) {
            fill_row = Some(target.to_vec());
        }
    }

    let mut out = RgbImage::new(columns.len, rows.len);
    let mut sums = vec![0; stride];
    for (index, target) in out.chunks_exact_mut(stride).enumerate() {
        let (first, weights) = down.at(index);
        let from = (first - needed.start) * stride;
        let Some(weights) = weights else {
            target.copy_from_slice(&narrow[from..from + stride]);
            continue;
        };
        sums.fill(HALF);
        for (source, &weight) in narrow[from..].chunks_exact(stride).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(source) {
                *sum += i32::from(value) * weight;
            }
        }
        for (value, &sum) in target.iter_mut().zip(&sums) {
            *value = to_pixel(sum);
        }
    }
    out
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn to_pixel(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// For each pixel of a span, the source pixels it is made of.
struct Taps {
    /// The first source pixel and how many there are.
    bounds: Vec<(usize, usize)>,
    /// `stride` fixed-point weights for each pixel; none where the axis keeps its size and the pass is skipped.
    weights: Vec<i32>,
    stride: usize,
}

impl Taps {
    fn new(source: u32, span: Span, filter: Filter) -> Self {
        let outputs = span.start..span.start + u64::from(span.len);
        if span.full == u64::from(source) {
            return Self {
                bounds: outputs.map(|at| (at as usize, 1)).collect(),
                weights: Vec::new(),
                stride: 0,
            };
        }
        let scale = f64::from(source) / span.full as f64;
        // Shrinking widens the curve, so that every source pixel counts.
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let shrink = 1.0 / stretch;
        let stride = support.ceil() as usize * 2 + 1;

        let mut bounds = Vec::with_capacity(span.len as usize);
        let mut weights = Vec::with_capacity(span.len as usize * stride);
        let mut exact = Vec::with_capacity(stride);
        for output in outputs {
            let centre = (output as f64 + 0.5) * scale;
            let first = ((centre - support + 0.5) as i64).max(0);
            let end = ((centre + support + 0.5) as i64).min(i64::from(source));
            exact.clear();
            let mut total = 0.0;
            for offset in 0..end - first {
                let weight = filter.weight(((offset + first) as f64 - centre + 0.5) * shrink);
                exact.push(weight);
                total += weight;
            }
            if total != 0.0 {
                exact.iter_mut().for_each(|weight| *weight /= total);
            }
            bounds.push((first as usize, exact.len()));
            exact.resize(stride, 0.0);
            weights.extend(exact.iter().map(|&weight| to_fixed(weight)));
        }
        Self {
            bounds,
            weights,
            stride,
        }
    }

    /// The first source pixel of output `index`, and its weights unless the pass is skipped.
    fn at(&self, index: usize) -> (usize, Option<&[i32]>) {
        let (first, count) = self.bounds[index];
        let from = index * self.stride;
        let weights = (self.stride > 0).then(|| &self.weights[from..from + count]);
        (first, weights)
    }

    /// The source pixels that any output of the span reads.
    fn source_range(&self) -> std::ops::Range<usize> {
        let start = self.bounds.iter().map(|&(first, _)| first).min();
        let end = self
            .bounds
            .iter()
            .map(|&(first, count)| first + count)
            .max();
        start.unwrap_or(0)..end.unwrap_or(0)
    }

    fn apply_to_row(&self, line: &[u8], target: &mut [u8]) {
        for (index, pixel) in target.chunks_exact_mut(CHANNELS).enumerate() {
            let (first, weights) = self.at(index);
            let source = &line[first * CHANNELS..];
            let Some(weights) = weights else {
                pixel.copy_from_slice(&source[..CHANNELS]);
                continue;
            };
            let mut sums = [HALF; CHANNELS];
            for (value, &weight) in source.chunks_exact(CHANNELS).zip(weights) {
                for channel in 0..CHANNELS {
                    sums[channel] += i32::from(value[channel]) * weight;
                }
            }
            pixel.copy_from_slice(&sums.map(to_pixel));
        }
    }
}

/// Rounds half away from zero, by truncation, as the C cast does.
fn to_fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1_u32 << PRECISION_BITS);
    (scaled + 0.5_f64.copysign(scaled)) as i32
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use proptest::prelude::*;

    use super::*;

    /// What Pillow 12.0.0 makes of [`pattern`], one after the other; written by
    ///
    /// ```python
    /// y, x, c = np.mgrid[:17, :23, :3]
    /// im = Image.fromarray(((x * 37 + y * 59 + c * 101 + x * y * 7) % 256).astype(np.uint8))
    /// sizes = [(9, 31), (40, 7), (23, 5), (5, 17), (7, 7), (46, 34)]
    /// open("pillow_resized.bin", "wb").write(b"".join(im.resize(s, f).tobytes() for f in (2, 3) for s in sizes))
    /// ```
    const PILLOW: &[u8] = include_bytes!("../tests/fixtures/pillow_resized.bin");

    fn pattern(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([0, 1, 2].map(|c| ((x * 37 + y * 59 + c * 101 + x * y * 7) % 256) as u8))
        })
    }

    #[test]
    fn bytes_are_pillows() {
        let picture = pattern(23, 17);
        let mut expected = PILLOW;
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            for (width, height) in [(9, 31), (40, 7), (23, 5), (5, 17), (7, 7), (46, 34)] {
                let (now, rest) = expected.split_at((width * height * 3) as usize);
                let resized = resize(&picture, width, height, filter);
                assert_eq!(resized.as_raw(), now, "{filter:?} {width}×{height}");
                expected = rest;
            }
        }
        assert!(expected.is_empty());
    }

    /// One pass along one axis, stated without tables: each output from its own weights.
    fn pass(source: &[u8], full: usize, filter: Filter) -> Vec<u8> {
        if full == source.len() {
            return source.to_vec();
        }
        let scale = source.len() as f64 / full as f64;
        let stretch = scale.max(1.0);
        (0..full)
            .map(|output| {
                let centre = (output as f64 + 0.5) * scale;
                let reach = filter.support() * stretch;
                let within = |at: &usize| {
                    *at as i64 >= (centre - reach + 0.5) as i64
                        && (*at as i64) < (centre + reach + 0.5) as i64
                };
                let taps: Vec<usize> = (0..source.len()).filter(within).collect();
                let weight = |at: usize| filter.weight((at as f64 - centre + 0.5) / stretch);
                let total: f64 = taps.iter().map(|&at| weight(at)).sum();
                let sum: f64 = taps
                    .iter()
                    .map(|&at| (weight(at) / total * 4_194_304.0).round() * f64::from(source[at]))
                    .sum();
                ((sum + 2_097_152.0) / 4_194_304.0)
                    .floor()
                    .clamp(0.0, 255.0) as u8
            })
            .collect()
    }

    fn stated(picture: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
        let mut narrow = RgbImage::new(width, picture.height());
        for y in 0..picture.height() {
            for c in 0..3 {
                let row: Vec<u8> = (0..picture.width()).map(|x| picture[(x, y)][c]).collect();
                for (x, value) in (0..).zip(pass(&row, width as usize, filter)) {
                    narrow[(x, y)][c] = value;
                }
            }
        }
        let mut out = RgbImage::new(width, height);
        for x in 0..width {
            for c in 0..3 {
                let column: Vec<u8> = (0..narrow.height()).map(|y| narrow[(x, y)][c]).collect();
                for (y, value) in (0..).zip(pass(&column, height as usize, filter)) {
                    out[(x, y)][c] = value;
                }
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn tables_agree_with_the_statement(
            (width, height) in (1_u32..40, 1_u32..40),
            (to_width, to_height) in (1_u32..60, 1_u32..60),
            cubic: bool,
        ) {
            let picture = pattern(width, height);
            let filter = if cubic { Filter::Bicubic } else { Filter::Bilinear };
            let resized = resize(&picture, to_width, to_height, filter);
            // The statement divides where the table multiplies, which may move a weight by its last bit.
            for (ours, theirs) in resized.iter().zip(stated(&picture, to_width, to_height, filter).iter()) {
                prop_assert!(ours.abs_diff(*theirs) <= 1);
            }
        }

        #[test]
        fn a_window_is_cut_from_the_whole(
            (width, height) in (1_u32..30, 1_u32..30),
            (to_width, to_height) in (4_u32..50, 4_u32..50),
        ) {
            let picture = pattern(width, height);
            let whole = resize(&picture, to_width, to_height, Filter::Bicubic);
            let (left, top) = (to_width / 3, to_height / 4);
            let span = |full: u32, start: u32| Span { full: full.into(), start: start.into(), len: full - start - 1 };
            let (columns, rows) = (span(to_width, left), span(to_height, top));
            let window = resize_window(&Canvas::bare(&picture), columns, rows, Filter::Bicubic);
            let cut = image::imageops::crop_imm(&whole, left, top, columns.len, rows.len).to_image();
            prop_assert_eq!(window, cut);
        }

        #[test]
        fn a_canvas_is_a_padded_picture((width, height) in (1_u32..30, 1_u32..30), side in 1_u32..30) {
            let picture = pattern(width, height);
            let square = width.max(height);
            let mut padded = RgbImage::from_pixel(square, square, Rgb([9, 99, 199]));
            let (left, top) = ((square - width) / 2, (square - height) / 2);
            image::imageops::replace(&mut padded, &picture, left.into(), top.into());
            let canvas = Canvas::square(&picture, [9, 99, 199]);
            let resized = resize_window(&canvas, Span::whole(side), Span::whole(side), Filter::Bicubic);
            prop_assert_eq!(resized, resize(&padded, side, side, Filter::Bicubic));
        }
    }
}
