//! `mxfp4`: 32 elements, a byte `e` with the exponent of a power of two, 16 bytes of nibbles as in `q4_0`;
//! w = 2^(e − 128)·level, where a code is a sign above a float of 2 bits of exponent and 1 of mantissa, here doubled
//! (OCP Microscaling Formats 1.0: E8M0 and E2M1).
//!
//! The exponent 255, which the specification calls not a number, is a power of two like others, as in ggml; the large
//! levels are then infinite.
//!
//! Scales in GPU order: e as a half word.

use super::fit::{error_weights, extreme, inverse, level_error};
use super::levels;
use super::words::{set_half, split_nibbles};
use super::{GpuOrder, Layout};

/// What the codes 0 to 7 stand for, doubled; those from 8 on are their negatives.
const LEVELS: [i8; 8] = [0, 1, 2, 3, 4, 6, 8, 12];

pub(super) struct MXFP4;

impl Layout for MXFP4 {
    fn name(&self) -> &'static str {
        "mxfp4"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(39)
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        17
    }

    fn levels(&self) -> &'static [i8] {
        &levels::FLOAT
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        scales.fill(power(bytes[0]));
        for (j, &byte) in bytes[1..].iter().enumerate() {
            levels[j] = level(byte & 15);
            levels[j + 16] = level(byte >> 4);
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        // The exponent by which the extreme falls between the two largest levels, and its neighbours.
        let near = (extreme(values).abs() / 8.0).max(f32::MIN_POSITIVE).to_bits() >> 23;
        let near = near.clamp(1, 250) as u8 + 1;
        let error = |e: &u8| level_error(values, &weights, power(*e), nearest_level);
        let tried = [near, near - 1, near + 1].map(|e| (error(&e), e));
        let e = tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).map_or(near, |(_, e)| e);
        bytes[0] = e;
        let inverse = inverse(power(e));
        for (j, byte) in bytes[1..].iter_mut().enumerate() {
            *byte = nearest_code(values[j] * inverse) | nearest_code(values[j + 16] * inverse) << 4;
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 1 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(17).zip(codes.chunks_exact_mut(4)).enumerate() {
            let (low, high) = codes.split_at_mut(2);
            split_nibbles(&bytes[1..], low, high);
            set_half(scales, block, [bytes[0], 0]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/mxfp4.wgsl")
    }
}

/// 2^(e − 128), subnormal for the least two.
fn power(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// What a code stands for, doubled. The negative zero is a zero.
pub(super) fn level(code: u8) -> i8 {
    let level = LEVELS[usize::from(code & 7)];
    if code < 8 { level } else { -level }
}

/// The nearest level to v.
pub(super) fn nearest_level(v: f32) -> f32 {
    f32::from(level(nearest_code(v)))
}

/// The code of the nearest level to v.
pub(super) fn nearest_code(v: f32) -> u8 {
    let middles = LEVELS.windows(2).map(|pair| (f32::from(pair[0]) + f32::from(pair[1])) / 2.0);
    let code = middles.filter(|middle| v.abs() > *middle).count() as u8;
    code | u8::from(v < 0.0 && code > 0) << 3
}
