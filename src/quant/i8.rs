//! `i8`: 32 elements, `s: f32`, 32 signed bytes; w = q·s. What 8-bit checkpoints with scales in f32 or bf16 become while
//! loading.

use super::fit::{extreme, inverse};
use super::words::{copy_words, float_at, word_at};
use super::{GpuOrder, Layout};

pub(super) struct I8;

impl Layout for I8 {
    fn name(&self) -> &'static str {
        "i8"
    }

    fn gguf_id(&self) -> Option<u32> {
        None
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        36
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let s = float_at(bytes, 0);
        for (&q, out) in bytes[4..].iter().zip(out) {
            *out = f32::from(q.cast_signed()) * s;
        }
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        // The greatest finite scale still decodes to finite values.
        let s = (extreme(values).abs() / 127.0).min(f32::MAX / 128.0);
        let inverse = inverse(s);
        bytes[..4].copy_from_slice(&s.to_le_bytes());
        for (byte, v) in bytes[4..].iter_mut().zip(values) {
            *byte = ((v * inverse).round().clamp(-127.0, 127.0) as i8).cast_unsigned();
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 8, scale_halves: 2 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(36).zip(codes.chunks_exact_mut(8)).enumerate() {
            copy_words(&bytes[4..], codes);
            scales[block] = word_at(bytes, 0);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/i8.wgsl")
    }

    fn wgsl_codes(&self) -> Option<&'static str> {
        Some(include_str!("../../shaders/quant/i8_codes.wgsl"))
    }
}
