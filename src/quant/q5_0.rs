//! `q5_0`: 32 elements, `d: f16`, `qh: u32` with the fifth bit of element j in bit j, 16 bytes of nibbles as in
//! `q4_0`; w = (q − 16)·d.
//!
//! Scales in GPU order, per two blocks: fifth bits of the first, both d, fifth bits of the second. So a pair
//! takes three words, an odd block at the end of a row two, and every fifth bit stands in one aligned word.

use super::fit::{block_scale, codes_around, nearest_f16};
use super::words::{half_at, set_half, split_nibbles, spread_bits, word_at};
use super::{GpuOrder, Layout};

pub(super) struct Q5_0;

impl Layout for Q5_0 {
    fn name(&self) -> &'static str {
        "q5_0"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(6)
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        22
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let d = half_at(bytes, 0);
        for (q, out) in codes(word_at(bytes, 2), &bytes[6..]).zip(out) {
            *out = (f32::from(q) - 16.0) * d;
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let d = nearest_f16(block_scale(values, importance, 16.0));
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        set_codes(values, codes_around(d.to_f32(), 16.0, 31.0), &mut bytes[2..]);
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 3 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(22).zip(codes.chunks_exact_mut(4)).enumerate() {
            let (low, high) = codes.split_at_mut(2);
            split_nibbles(&bytes[6..], low, high);
            let (pair, second) = (block / 2 * 3, block % 2);
            scales[pair + 2 * second] = spread_bits(word_at(bytes, 2));
            set_half(&mut scales[pair + 1..], second, [bytes[0], bytes[1]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/q5_0.wgsl")
    }

    fn wgsl_codes(&self) -> Option<&'static str> {
        Some(include_str!("../../shaders/quant/q5_0_codes.wgsl"))
    }
}

/// The 32 five-bit codes of a block, in the order of its elements.
pub(super) fn codes(fifths: u32, nibbles: &[u8]) -> impl Iterator<Item = u8> {
    let low = nibbles.iter().map(|byte| byte & 15);
    let high = nibbles.iter().map(|byte| byte >> 4);
    low.chain(high).enumerate().map(move |(j, nibble)| nibble | ((fifths >> j & 1) as u8) << 4)
}

/// Writes the codes of 32 values as `qh` and nibbles.
pub(super) fn set_codes(values: &[f32], code: impl Fn(f32) -> u8, bytes: &mut [u8]) {
    let fifths = values.iter().enumerate().fold(0, |word, (j, &v)| word | u32::from(code(v) >> 4) << j);
    bytes[..4].copy_from_slice(&fifths.to_le_bytes());
    for (j, byte) in bytes[4..].iter_mut().enumerate() {
        *byte = code(values[j]) & 15 | code(values[j + 16]) << 4;
    }
}
