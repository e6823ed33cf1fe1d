//! `z2`: 32 elements, `s: f32`, `z: f32`, 8 bytes of 2-bit codes; element 16·h + 4·i + j in byte 4·h + j, bits 2·i;
//! w = (q − z)·s. What 2-bit checkpoints become while loading.

use super::fit::{codes_around, scale_and_zero};
use super::words::{copy_words, float_at, word_at};
use super::{GpuOrder, Layout};

pub(super) struct Z2;

impl Layout for Z2 {
    fn name(&self) -> &'static str {
        "z2"
    }

    fn gguf_id(&self) -> Option<u32> {
        None
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        16
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let (s, z) = (float_at(bytes, 0), float_at(bytes, 4));
        for (e, out) in out.iter_mut().enumerate() {
            let byte = bytes[8 + 4 * (e / 16) + e % 4];
            *out = (f32::from(byte >> (2 * (e % 16 / 4)) & 3) - z) * s;
        }
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        let (s, z) = scale_and_zero(values, 3.0);
        let code = codes_around(s, z, 3.0);
        bytes.fill(0);
        bytes[..4].copy_from_slice(&s.to_le_bytes());
        bytes[4..8].copy_from_slice(&z.to_le_bytes());
        for (e, &v) in values.iter().enumerate() {
            bytes[8 + 4 * (e / 16) + e % 4] |= code(v) << (2 * (e % 16 / 4));
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 2, scale_halves: 4 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        // A row of an odd number of blocks ends in half a vector.
        for (block, (bytes, codes)) in row.chunks_exact(16).zip(codes.chunks_exact_mut(2)).enumerate() {
            copy_words(&bytes[8..], codes);
            (scales[2 * block], scales[2 * block + 1]) = (word_at(bytes, 0), word_at(bytes, 4));
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/z2.wgsl")
    }
}
