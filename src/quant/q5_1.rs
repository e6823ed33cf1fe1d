//! `q5_1`: 32 elements, `d: f16`, `m: f16`, `qh: u32` and nibbles as in `q5_0`; w = q·d + m. The product is
//! exact in f32 (5 + 11 bits), so a fused multiply-add gives the same bits.
//!
//! Scales in GPU order, per block: the fifth bits; d and m.

use super::fit::{Affine, codes_above, error_weights, nearest_f16};
use super::q5_0::{codes, set_codes};
use super::words::{half_at, split_nibbles, spread_bits, word_at};
use super::{GpuOrder, Layout};

pub(super) struct Q5_1;

impl Layout for Q5_1 {
    fn name(&self) -> &'static str {
        "q5_1"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(7)
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        24
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let (d, m) = (half_at(bytes, 0), half_at(bytes, 2));
        for (q, out) in codes(word_at(bytes, 4), &bytes[8..]).zip(out) {
            *out = f32::from(q) * d + m;
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let fit = Affine::free((values, &weights, 31.0));
        let (d, m) = (nearest_f16(fit.scale), nearest_f16(-fit.min));
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        bytes[2..4].copy_from_slice(&m.to_le_bytes());
        set_codes(values, codes_above(d.to_f32(), m.to_f32(), 31.0), &mut bytes[4..]);
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 4 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        let words = codes.chunks_exact_mut(4).zip(scales.chunks_exact_mut(2));
        for (bytes, (codes, scales)) in row.chunks_exact(24).zip(words) {
            let (low, high) = codes.split_at_mut(2);
            split_nibbles(&bytes[8..], low, high);
            scales[0] = spread_bits(word_at(bytes, 4));
            scales[1] = word_at(bytes, 0);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/q5_1.wgsl")
    }

    fn wgsl_codes(&self) -> Option<&'static str> {
        Some(include_str!("../../shaders/quant/q5_1_codes.wgsl"))
    }
}
