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
    let fail = |source| decoding_error(source, name, bytes.len());

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
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err(DataError::TruncatedImage {
            name: name.to_owned(),
            length: bytes.len(),
            source: None,
        });
    }
    // The size is known to be sane; the default allocation limit would refuse 16-bit pictures below it.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_MEGAPIXELS * 1_000_000 * 20);
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

fn decoding_error(source: ImageError, name: &str, length: usize) -> DataError {
    let name = name.to_owned();
    if ran_out_of_bytes(&source) {
        DataError::TruncatedImage {
            name,
            length,
            source: Some(source),
        }
    } else {
        DataError::CorruptImage { name, source }
    }
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
