//! `nvfp4`: 64 elements in 4 groups of 16: a byte of scale for each, then for each 8 bytes of nibbles, its element j in
//! the low nibble of byte j, its element j + 8 in the high nibble; w = scale/2·level with the levels of `mxfp4`.
//!
//! A scale is an unsigned float of 4 bits of exponent and 3 of mantissa (E4M3, bias 7); bit 7 does not count, and 0x7f,
//! which is not a number elsewhere, is zero, as in ggml. All products are exact in f32 (4 + 3 bits).
//!
//! A file may hold a factor for the whole tensor beside it; that is not the business of a block.
//!
//! Scales in GPU order: the four bytes.

use super::fit::{error_weights, inverse, level_error, level_scale};
use super::levels;
use super::mxfp4::{level, nearest_code, nearest_level};
use super::words::{split_nibbles, word_at};
use super::{GpuOrder, Layout};

pub(super) struct NVFP4;

impl Layout for NVFP4 {
    fn name(&self) -> &'static str {
        "nvfp4"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(40)
    }

    fn block_len(&self) -> usize {
        64
    }

    fn block_bytes(&self) -> usize {
        36
    }

    fn levels(&self) -> &'static [i8] {
        &levels::FLOAT
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        let groups = bytes[4..].chunks_exact(8).zip(levels.chunks_exact_mut(16));
        for ((&byte, scale), (nibbles, levels)) in bytes.iter().zip(scales).zip(groups) {
            *scale = half_scale(byte);
            for (j, &byte) in nibbles.iter().enumerate() {
                levels[j] = level(byte & 15);
                levels[j + 8] = level(byte >> 4);
            }
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let (scales, nibbles) = bytes.split_at_mut(4);
        let groups = values.chunks_exact(16).zip(weights.chunks_exact(16));
        for ((values, weights), (scale, nibbles)) in
            groups.zip(scales.iter_mut().zip(nibbles.chunks_exact_mut(8)))
        {
            let fit = level_scale(values, weights, [0.0, 12.0], nearest_level).abs();
            // Scales grow with their bytes.
            let above = (1..0x7f).find(|&scale| half_scale(scale) >= fit).unwrap_or(0x7e);
            let error = |scale: &u8| level_error(values, weights, half_scale(*scale), nearest_level);
            let tried = [above, above - 1].map(|scale| (error(&scale), scale));
            *scale = tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).map_or(above, |(_, scale)| scale);
            let inverse = inverse(half_scale(*scale));
            for (j, byte) in nibbles.iter_mut().enumerate() {
                *byte = nearest_code(values[j] * inverse) | nearest_code(values[j + 8] * inverse) << 4;
            }
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 2 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        let words = codes.chunks_exact_mut(8).zip(scales);
        for (bytes, (codes, scales)) in row.chunks_exact(36).zip(words) {
            for (nibbles, codes) in bytes[4..].chunks_exact(8).zip(codes.chunks_exact_mut(2)) {
                let (low, high) = codes.split_at_mut(1);
                split_nibbles(nibbles, low, high);
            }
            *scales = word_at(bytes, 0);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/nvfp4.wgsl")
    }
}

/// Half of what a byte of scale stands for.
fn half_scale(byte: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(byte >> 3 & 15), u32::from(byte & 7));
    match byte {
        0x7f => 0.0,
        _ if exponent == 0 => mantissa as f32 / 1024.0,
        _ => f32::from_bits((exponent + 119) << 23 | mantissa << 20),
    }
}
