//! `q8_0`: 32 elements, `d: f16`, 32 signed bytes; w = q·d.

use super::fit::{extreme, inverse, nearest_f16};
use super::words::{copy_words, half_at, set_half};
use super::{GpuOrder, Layout};

pub(super) struct Q8_0;

impl Layout for Q8_0 {
    fn name(&self) -> &'static str {
        "q8_0"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(8)
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        34
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let d = half_at(bytes, 0);
        for (&q, out) in bytes[2..].iter().zip(out) {
            *out = f32::from(q.cast_signed()) * d;
        }
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        let d = nearest_f16(extreme(values).abs() / 127.0);
        let inverse = inverse(d.to_f32());
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        for (byte, v) in bytes[2..].iter_mut().zip(values) {
            *byte = ((v * inverse).round().clamp(-127.0, 127.0) as i8).cast_unsigned();
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 8, scale_halves: 1 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(34).zip(codes.chunks_exact_mut(8)).enumerate() {
            copy_words(&bytes[2..], codes);
            set_half(scales, block, [bytes[0], bytes[1]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/q8_0.wgsl")
    }

    fn wgsl_codes(&self) -> Option<&'static str> {
        Some(include_str!("../../shaders/quant/q8_0_codes.wgsl"))
    }
}
