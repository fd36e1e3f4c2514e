//! Picture files.
#![no_main]

use image::ImageReader;
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;

/// Larger pictures are within what is allowed, and only slow.
const MOST_PIXELS: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let reader = ImageReader::new(Cursor::new(bytes));
    let size = reader
        .with_guessed_format()
        .map(ImageReader::into_dimensions);
    if let Ok(Ok((width, height))) = size
        && u64::from(width) * u64::from(height) > MOST_PIXELS
    {
        return;
    }
    victor_fuzz::within(bytes.len(), 1 << 27, 16, || {
        let _ = victor_data::decode_image_bytes(bytes, "fuzzed");
    });
});
