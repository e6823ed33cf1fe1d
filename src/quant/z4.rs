//! `z4`: 32 elements, `s: f32`, `z: f32`, 16 bytes of nibbles as in `i4`; w = (q − z)·s. What 3- and 4-bit checkpoints
//! with zero points become while loading.

use super::fit::{codes_around, scale_and_zero};
use super::words::{float_at, set_nibbles, split_nibbles, word_at};
use super::{GpuOrder, Layout};

pub(super) struct Z4;

impl Layout for Z4 {
    fn name(&self) -> &'static str {
        "z4"
    }

    fn gguf_id(&self) -> Option<u32> {
        None
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        24
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let (s, z) = (float_at(bytes, 0), float_at(bytes, 4));
        for (j, &byte) in bytes[8..].iter().enumerate() {
            out[j] = (f32::from(byte & 15) - z) * s;
            out[j + 16] = (f32::from(byte >> 4) - z) * s;
        }
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        let (s, z) = scale_and_zero(values, 15.0);
        bytes[..4].copy_from_slice(&s.to_le_bytes());
        bytes[4..8].copy_from_slice(&z.to_le_bytes());
        set_nibbles(values, codes_around(s, z, 15.0), &mut bytes[8..]);
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 4 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(24).zip(codes.chunks_exact_mut(4)).enumerate() {
            let (low, high) = codes.split_at_mut(2);
            split_nibbles(&bytes[8..], low, high);
            (scales[2 * block], scales[2 * block + 1]) = (word_at(bytes, 0), word_at(bytes, 4));
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/z4.wgsl")
    }

    fn wgsl_codes(&self) -> Option<&'static str> {
        Some(include_str!("../../shaders/quant/z4_codes.wgsl"))
    }
}
