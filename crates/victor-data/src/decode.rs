//! Picture files to RGB pixels: sniffed by content, measured before decoding, upright, without alpha.
//!
//! Pillow is the model, except for 16-bit samples (scaled here, clipped there) and alpha (composited on white here,
//! dropped there).

use std::error::Error as StdError;
use std::io::{self, Cursor};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use crate::DataError;

/// The most pixels a picture may announce, in millions.
pub const MAX_MEGAPIXELS: u64 = 100;
/// What a decoder may take beside the pixels: tables, colour profiles, the padding of tiles.
const OTHER_BYTES: u64 = 32 << 20;

/// Reads a picture file as upright 8-bit RGB.
///
/// # Errors
/// Distinct ones for a missing file, an unreadable file, bytes that are no picture, a truncated or damaged picture, and a
/// header that announces more than [`MAX_MEGAPIXELS`].
pub fn decode_image(path: &Path) -> Result<RgbImage, DataError> {
    let bytes = std::fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => DataError::NoSuchFile {
            path: path.to_owned(),
            expected: "a picture (PNG, JPEG, WebP, GIF, BMP or TIFF); check the path",
        },
        _ => DataError::ReadFile {
            path: path.to_owned(),
            source,
        },
    })?;
    decode_image_bytes(&bytes, &path.display().to_string())
}

/// Reads a picture from memory as upright 8-bit RGB; `name` is what errors call it.
///
/// # Errors
/// As [`decode_image`], without those of the file system.
pub fn decode_image_bytes(bytes: &[u8], name: &str) -> Result<RgbImage, DataError> {
    let Ok(format) = image::guess_format(bytes) else {
        return Err(DataError::NotAnImage {
            name: name.to_owned(),
            length: bytes.len(),
            head: bytes[..bytes.len().min(8)].to_vec(),
        });
    };
    let fail = |source: ImageError| {
        let name = name.to_owned();
        if ran_out_of_bytes(&source) || is_cut_short(format, bytes) {
            DataError::TruncatedImage {
                name,
                length: bytes.len(),
                source: Some(source),
            }
        } else {
            DataError::CorruptImage { name, source }
        }
    };

    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format)
        .into_decoder()
        .map_err(fail)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_MEGAPIXELS * 1_000_000 {
        return Err(DataError::ImageTooLarge {
            name: name.to_owned(),
            width,
            height,
            limit_megapixels: MAX_MEGAPIXELS,
        });
    }
    if width == 0 || height == 0 {
        return Err(DataError::EmptyImage { width, height });
    }
    // The JPEG decoder fills what is missing with grey and reports success.
    if format == ImageFormat::Jpeg && is_cut_short(format, bytes) {
        return Err(DataError::TruncatedImage {
            name: name.to_owned(),
            length: bytes.len(),
            source: None,
        });
    }
    // The size is known to be sane; the default allocation limit would refuse large 16-bit pictures, and let a small one
    // take as much.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(u64::from(width) * u64::from(height) * 20 + OTHER_BYTES);
    decoder.set_limits(limits).map_err(fail)?;
    // A broken EXIF block is no reason to refuse a picture.
    let orientation = decoder
        .orientation()
        .unwrap_or(image::metadata::Orientation::NoTransforms);

    let mut picture = DynamicImage::from_decoder(decoder).map_err(fail)?;
    picture.apply_orientation(orientation);
    Ok(into_rgb(picture))
}

/// Drops alpha by compositing on white and brings every sample to 8 bits.
fn into_rgb(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let rgba = picture.into_rgba8();
    let mut rgb = RgbImage::new(rgba.width(), rgba.height());
    for (target, source) in rgb.pixels_mut().zip(rgba.pixels()) {
        let [red, green, blue, alpha] = source.0;
        target.0 = [red, green, blue].map(|channel| over_white(channel, alpha));
    }
    rgb
}

fn over_white(channel: u8, alpha: u8) -> u8 {
    let (channel, alpha) = (u32::from(channel), u32::from(alpha));
    ((channel * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

fn ran_out_of_bytes(error: &ImageError) -> bool {
    if let ImageError::IoError(inner) = error {
        return inner.kind() == io::ErrorKind::UnexpectedEof;
    }
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return io.kind() == io::ErrorKind::UnexpectedEof;
        }
        cause = inner.source();
    }
    false
}

/// Whether the file lacks its end, for the formats whose decoders do not say so.
fn is_cut_short(format: ImageFormat, bytes: &[u8]) -> bool {
    match format {
        ImageFormat::Jpeg => !jpeg_is_complete(bytes),
        ImageFormat::Gif => bytes.last() != Some(&b';'),
        ImageFormat::WebP => match bytes.get(4..8) {
            Some(&[a, b, c, d]) => {
                u64::from(u32::from_le_bytes([a, b, c, d])) + 8 > bytes.len() as u64
            }
            _ => true,
        },
        _ => false,
    }
}

/// Whether a JPEG's markers lead to its end-of-image marker.
///
/// Segments are stepped over by their lengths, so the end marker of an EXIF thumbnail does not count.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    while at + 1 < bytes.len() {
        // Entropy-coded data, fill bytes and restart markers carry no length.
        if bytes[at] != 0xFF || matches!(bytes[at + 1], 0x00 | 0x01 | 0xD0..=0xD7 | 0xFF) {
            at += 1;
            continue;
        }
        if bytes[at + 1] == 0xD9 {
            return true;
        }
        let Some(&[high, low]) = bytes.get(at + 2..at + 4) else {
            return false;
        };
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{GrayAlphaImage, ImageBuffer, Luma, LumaA, Rgba, RgbaImage};

    use super::*;

    /// `im = Image.new("RGB", (4, 2), (200, 10, 10)); im.paste((10, 10, 200), (2, 0, 4, 2))`, saved by Pillow 12.0.0
    /// with EXIF orientation 6 (`exif[274] = 6`), quality 95, no subsampling.
    const TURNED: &[u8] = include_bytes!("../tests/fixtures/turned.jpg");
    /// `Image.new("CMYK", (2, 2), (255, 0, 0, 0)).save("cyan.jpg", quality=95)`.
    const CYAN: &[u8] = include_bytes!("../tests/fixtures/cyan.jpg");

    fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        picture
            .into()
            .write_to(&mut Cursor::new(&mut bytes), format)
            .expect("encodes");
        bytes
    }

    fn noise() -> RgbImage {
        RgbImage::from_fn(40, 30, |x, y| {
            image::Rgb([(x * 91 + y * 37) as u8, (x * y) as u8, 7])
        })
    }

    fn error_of(bytes: &[u8]) -> DataError {
        decode_image_bytes(bytes, "cat").expect_err("no picture")
    }

    #[test]
    fn a_turned_picture_stands_upright() {
        let picture = decode_image_bytes(TURNED, "turned").expect("a picture");
        assert_eq!(picture.dimensions(), (2, 4));
        assert!(picture[(0, 0)][0] > 150 && picture[(0, 3)][2] > 150);
    }

    #[test]
    fn cmyk_and_grey_become_rgb() {
        let cyan = decode_image_bytes(CYAN, "cyan").expect("a picture");
        let [red, green, blue] = cyan[(0, 0)].0;
        assert!(red < 3 && green > 252 && blue > 252, "{red} {green} {blue}");
        let grey = image::GrayImage::from_pixel(2, 2, Luma([77]));
        let grey = decode_image_bytes(&encoded(grey, ImageFormat::Png), "grey").expect("a picture");
        assert_eq!(grey[(1, 1)].0, [77; 3]);
    }

    #[test]
    fn sixteen_bits_are_scaled() {
        let deep = ImageBuffer::<Luma<u16>, _>::from_fn(3, 1, |x, _| {
            Luma([[0, 257 * 100, 65535][x as usize]])
        });
        let picture =
            decode_image_bytes(&encoded(deep, ImageFormat::Png), "deep").expect("a picture");
        assert_eq!([0, 1, 2].map(|x| picture[(x, 0)][0]), [0, 100, 255]);
    }

    #[test]
    fn alpha_shows_white() {
        let clear = RgbaImage::from_fn(3, 1, |x, _| Rgba([0, 100, 200, [0, 128, 255][x as usize]]));
        let picture =
            decode_image_bytes(&encoded(clear, ImageFormat::Png), "clear").expect("a picture");
        assert_eq!(
            [0, 1, 2].map(|x| picture[(x, 0)].0),
            [[255; 3], [127, 177, 227], [0, 100, 200]]
        );
        let clear = GrayAlphaImage::from_pixel(1, 1, LumaA([0, 0]));
        let picture =
            decode_image_bytes(&encoded(clear, ImageFormat::Png), "clear").expect("a picture");
        assert_eq!(picture[(0, 0)].0, [255; 3]);
    }

    #[test]
    fn pictures_cut_short_are_called_so() {
        for format in [
            ImageFormat::Png,
            ImageFormat::Jpeg,
            ImageFormat::WebP,
            ImageFormat::Gif,
            ImageFormat::Bmp,
        ] {
            let bytes = encoded(noise(), format);
            decode_image_bytes(&bytes, "whole").expect("a picture");
            for percent in [20, 60, 95] {
                let error = error_of(&bytes[..bytes.len() * percent / 100]);
                assert!(
                    matches!(error, DataError::TruncatedImage { .. }),
                    "{format:?} {percent}: {error:?}"
                );
            }
        }
    }

    #[test]
    fn a_huge_header_is_refused_before_decoding() {
        let mut bytes = encoded(noise(), ImageFormat::Gif);
        bytes[6..10].copy_from_slice(&[0xFF; 4]);
        let error = error_of(&bytes).to_string();
        assert!(
            error.contains("65535 × 65535") && error.contains("limit is 100"),
            "{error}"
        );
    }

    #[test]
    fn other_bytes_and_missing_files_are_told_apart() {
        for bytes in [&b""[..], b"hello", b"<html>"] {
            assert!(matches!(error_of(bytes), DataError::NotAnImage { .. }));
        }
        let error = decode_image(Path::new("/nowhere/cat.png")).expect_err("no file");
        assert!(matches!(error, DataError::NoSuchFile { .. }));
        assert!(error.to_string().contains("/nowhere/cat.png"), "{error}");
    }
}
