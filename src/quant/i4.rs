//! `i4`: 32 elements, `s: f32`, 16 bytes of nibbles; element j in the low nibble of byte j, element j + 16 in its high
//! nibble; w = (q − 8)·s. What 4-bit checkpoints with scales in f32 or bf16 become while loading.

use super::fit::{codes_around, extreme};
use super::words::{float_at, set_nibbles, split_nibbles, word_at};
use super::{GpuOrder, Layout};

pub(super) struct I4;

impl Layout for I4 {
    fn name(&self) -> &'static str {
        "i4"
    }

    fn gguf_id(&self) -> Option<u32> {
        None
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        20
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let s = float_at(bytes, 0);
        for (j, &byte) in bytes[4..].iter().enumerate() {
            out[j] = (f32::from(byte & 15) - 8.0) * s;
            out[j + 16] = (f32::from(byte >> 4) - 8.0) * s;
        }
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        // The element of the largest magnitude becomes code 0, so the eighth negative code is used.
        let s = extreme(values) / -8.0;
        bytes[..4].copy_from_slice(&s.to_le_bytes());
        set_nibbles(values, codes_around(s, 8.0, 15.0), &mut bytes[4..]);
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 2 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(20).zip(codes.chunks_exact_mut(4)).enumerate() {
            let (low, high) = codes.split_at_mut(2);
            split_nibbles(&bytes[4..], low, high);
            scales[block] = word_at(bytes, 0);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/i4.wgsl")
    }

    fn wgsl_codes(&self) -> Option<&'static str> {
        Some(include_str!("../../shaders/quant/i4_codes.wgsl"))
    }
}
