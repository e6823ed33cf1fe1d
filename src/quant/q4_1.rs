//! `q4_1`: 32 elements, `d: f16`, `m: f16`, 16 bytes of nibbles as in `q4_0`; w = q·d + m. The product is exact
//! in f32 (4 + 11 bits), so a fused multiply-add gives the same bits.

use super::fit::{Affine, codes_above, error_weights, nearest_f16};
use super::words::{half_at, split_nibbles, word_at};
use super::{GpuOrder, Layout};

pub(super) struct Q4_1;

impl Layout for Q4_1 {
    fn name(&self) -> &'static str {
        "q4_1"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(3)
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        20
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let (d, m) = (half_at(bytes, 0), half_at(bytes, 2));
        for (j, &byte) in bytes[4..].iter().enumerate() {
            out[j] = f32::from(byte & 15) * d + m;
            out[j + 16] = f32::from(byte >> 4) * d + m;
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let fit = Affine::free((values, &weights, 15.0));
        let (d, m) = (nearest_f16(fit.scale), nearest_f16(-fit.min));
        let code = codes_above(d.to_f32(), m.to_f32(), 15.0);
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        bytes[2..4].copy_from_slice(&m.to_le_bytes());
        for (j, byte) in bytes[4..].iter_mut().enumerate() {
            *byte = code(values[j]) | code(values[j + 16]) << 4;
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 2 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for ((bytes, codes), scales) in row.chunks_exact(20).zip(codes.chunks_exact_mut(4)).zip(scales) {
            let (low, high) = codes.split_at_mut(2);
            split_nibbles(&bytes[4..], low, high);
            *scales = word_at(bytes, 0);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/q4_1.wgsl")
    }

    fn wgsl_codes(&self) -> Option<&'static str> {
        Some(include_str!("../../shaders/quant/q4_1_codes.wgsl"))
    }
}
