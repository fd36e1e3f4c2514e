//! Dequantisation of the formats with blocks of 32, in the order of operations of ggml's reference.
//!
//! Source: `dequantize_row_*` in llama.cpp's `ggml-quants.c`.

use half::f16;

/// Elements of a block.
pub(crate) const BLOCK: usize = 32;

/// A 16-bit float at `offset`.
pub(crate) fn half_at(block: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([block[offset], block[offset + 1]]).to_f32()
}

/// Scale, then 16 bytes of two 4-bit integers, the first half of the block in the low bits.
pub(crate) fn q4_0(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    for (index, byte) in block[2..18].iter().enumerate() {
        out[index] = (i32::from(byte & 15) - 8) as f32 * scale;
        out[index + BLOCK / 2] = (i32::from(byte >> 4) - 8) as f32 * scale;
    }
}

/// Scale, minimum, 4-bit integers.
pub(crate) fn q4_1(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for (index, byte) in block[4..20].iter().enumerate() {
        out[index] = f32::from(byte & 15) * scale + minimum;
        out[index + BLOCK / 2] = f32::from(byte >> 4) * scale + minimum;
    }
}

/// Scale, the fifth bits of all elements, their lower four.
pub(crate) fn q5_0(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    for (index, value) in five_bits(&block[2..22]) {
        out[index] = (i32::from(value) - 16) as f32 * scale;
    }
}

/// Scale, minimum, the fifth bits of all elements, their lower four.
pub(crate) fn q5_1(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for (index, value) in five_bits(&block[4..24]) {
        out[index] = f32::from(value) * scale + minimum;
    }
}

/// Places and values of 32 integers: 4 bytes of fifth bits, 16 bytes of lower bits.
fn five_bits(bytes: &[u8]) -> impl Iterator<Item = (usize, u8)> + '_ {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    (0..BLOCK).map(move |index| {
        let byte = bytes[4 + index % (BLOCK / 2)];
        let low = if index < BLOCK / 2 {
            byte & 15
        } else {
            byte >> 4
        };
        (index, low | ((high >> index & 1) as u8 * 16))
    })
}

/// Scale, then 8-bit integers.
pub(crate) fn q8_0(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    for (value, byte) in out.iter_mut().zip(&block[2..34]) {
        *value = f32::from(*byte as i8) * scale;
    }
}
