//! Dequantisation of the formats with blocks of 256 (`Q*_K`), in the order of operations of ggml's
//! reference.
//!
//! Source: `dequantize_row_q*_K` in llama.cpp's `ggml-quants.c`.

use super::blocks::half_at;

/// Elements of a block.
const BLOCK: usize = 256;

/// Sixteen bytes of 4-bit scales and minima, 2-bit integers, scale and minimum of the block.
pub(crate) fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 80), half_at(block, 82));
    for (group, values) in out.chunks_exact_mut(16).enumerate() {
        let scales = block[group];
        let step = scale * f32::from(scales & 15);
        let shift = minimum * f32::from(scales >> 4);
        let packed = &block[16..80];
        for (offset, value) in values.iter_mut().enumerate() {
            *value = step * f32::from(two_bits(packed, group * 16 + offset)) - shift;
        }
    }
}

/// High bits, 2-bit integers, sixteen 6-bit scales in twelve bytes, scale of the block.
pub(crate) fn q3_k(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 108);
    let (high, packed, scales) = (&block[..32], &block[32..96], &block[96..108]);
    for (group, values) in out.chunks_exact_mut(16).enumerate() {
        let low = scales[group % 8] >> (group / 8 * 4) & 15;
        let top = scales[8 + group % 4] >> (group / 4 * 2) & 3;
        let step = scale * (i32::from(low | top << 4) - 32) as f32;
        for (offset, value) in values.iter_mut().enumerate() {
            let index = group * 16 + offset;
            let bit = high[index % 32] >> (index / 32) & 1;
            let integer = i32::from(two_bits(packed, index)) - i32::from(1 - bit) * 4;
            *value = step * integer as f32;
        }
    }
}

/// The 2-bit integer of an element: halves of 128 elements in 32 bytes, four layers of 32 each.
fn two_bits(packed: &[u8], index: usize) -> u8 {
    let (half, layer) = (index / 128, index % 128 / 32);
    packed[half * 32 + index % 32] >> (layer * 2) & 3
}

/// Scale and minimum of the block, eight 6-bit scales and minima, 4-bit integers.
pub(crate) fn q4_k(block: &[u8], out: &mut [f32]) {
    let packed = &block[16..144];
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let (step, shift) = step_and_shift(block, group);
        for (value, byte) in values.iter_mut().zip(&packed[group / 2 * 32..]) {
            *value = step * f32::from(nibble(*byte, group)) - shift;
        }
    }
}

/// As `q4_k`, with fifth bits before the lower four.
pub(crate) fn q5_k(block: &[u8], out: &mut [f32]) {
    let (high, packed) = (&block[16..48], &block[48..176]);
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let (step, shift) = step_and_shift(block, group);
        let bytes = packed[group / 2 * 32..].iter().zip(high);
        for (value, (byte, high)) in values.iter_mut().zip(bytes) {
            let integer = nibble(*byte, group) | (high >> group & 1) << 4;
            *value = step * f32::from(integer) - shift;
        }
    }
}

/// Even groups of 32 stand in the low bits of their bytes, odd ones in the high bits.
fn nibble(byte: u8, group: usize) -> u8 {
    if group.is_multiple_of(2) {
        byte & 15
    } else {
        byte >> 4
    }
}

/// What an integer of a group of 32 is multiplied with, and what is subtracted.
fn step_and_shift(block: &[u8], group: usize) -> (f32, f32) {
    let scales = &block[4..16];
    let (scale, minimum) = if group < 4 {
        (scales[group] & 63, scales[group + 4] & 63)
    } else {
        let low = scales[group + 4];
        (
            low & 15 | scales[group - 4] >> 6 << 4,
            low >> 4 | scales[group] >> 6 << 4,
        )
    };
    (
        half_at(block, 0) * f32::from(scale),
        half_at(block, 2) * f32::from(minimum),
    )
}

/// Lower four bits, upper two, sixteen 8-bit scales, scale of the block.
pub(crate) fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = half_at(block, 208);
    for (index, value) in out.iter_mut().enumerate().take(BLOCK) {
        // Halves of 128 elements, quarters of 32; two quarters share the bytes of lower bits.
        let (half, quarter, place) = (index / 128, index % 128 / 32, index % 32);
        let byte = low[half * 64 + quarter % 2 * 32 + place];
        let low = nibble(byte, quarter / 2);
        let high = high[half * 32 + place] >> (quarter * 2) & 3;
        let step = scale * f32::from(scales[index / 16] as i8);
        *value = step * (i32::from(low | high << 4) - 32) as f32;
    }
}
