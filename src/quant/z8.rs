//! `z8`: 32 elements, `s: f32`, `z: f32`, 32 signed bytes; w = (q − z)·s. What checkpoints of 5 to 8 bits with zero points
//! become while loading.

use super::fit::{codes_around, scale_and_zero};
use super::words::{copy_words, float_at, word_at};
use super::{GpuOrder, Layout};

pub(super) struct Z8;

impl Layout for Z8 {
    fn name(&self) -> &'static str {
        "z8"
    }

    fn gguf_id(&self) -> Option<u32> {
        None
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        40
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let (s, z) = (float_at(bytes, 0), float_at(bytes, 4));
        for (&q, out) in bytes[8..].iter().zip(out) {
            *out = (f32::from(q.cast_signed()) - z) * s;
        }
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        let (s, z) = scale_and_zero(values, 255.0);
        let code = codes_around(s, z, 255.0);
        bytes[..4].copy_from_slice(&s.to_le_bytes());
        bytes[4..8].copy_from_slice(&(z - 128.0).to_le_bytes());
        for (byte, &v) in bytes[8..].iter_mut().zip(values) {
            *byte = code(v) ^ 128;
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 8, scale_halves: 4 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(40).zip(codes.chunks_exact_mut(8)).enumerate() {
            copy_words(&bytes[8..], codes);
            (scales[2 * block], scales[2 * block + 1]) = (word_at(bytes, 0), word_at(bytes, 4));
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/z8.wgsl")
    }

    fn wgsl_codes(&self) -> Option<&'static str> {
        Some(include_str!("../../shaders/quant/z8_codes.wgsl"))
    }
}
