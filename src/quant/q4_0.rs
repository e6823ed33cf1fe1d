//! `q4_0`: 32 elements, `d: f16`, 16 bytes of nibbles; element j in the low nibble of byte j, element j + 16
//! in its high nibble; w = (q − 8)·d.

use super::fit::{block_scale, codes_around, nearest_f16};
use super::words::{half_at, set_half, split_nibbles};
use super::{GpuOrder, Layout};

pub(super) struct Q4_0;

impl Layout for Q4_0 {
    fn name(&self) -> &'static str {
        "q4_0"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(2)
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        18
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let d = half_at(bytes, 0);
        for (j, &byte) in bytes[2..].iter().enumerate() {
            out[j] = (f32::from(byte & 15) - 8.0) * d;
            out[j + 16] = (f32::from(byte >> 4) - 8.0) * d;
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let d = nearest_f16(block_scale(values, importance, 8.0));
        let code = codes_around(d.to_f32(), 8.0, 15.0);
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        for (j, byte) in bytes[2..].iter_mut().enumerate() {
            *byte = code(values[j]) | code(values[j + 16]) << 4;
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 1 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(18).zip(codes.chunks_exact_mut(4)).enumerate() {
            let (low, high) = codes.split_at_mut(2);
            split_nibbles(&bytes[2..], low, high);
            set_half(scales, block, [bytes[0], bytes[1]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/q4_0.wgsl")
    }

    fn wgsl_codes(&self) -> Option<&'static str> {
        Some(include_str!("../../shaders/quant/q4_0_codes.wgsl"))
    }
}
