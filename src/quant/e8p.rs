//! `e8p`: 32 elements, 16 bytes of nibbles as in `i4`, no scale; w = (2·q − 15)/4. What points of the lattice E8 with the
//! offset of a quarter become while loading (Tseng et al. 2024, QuIP#, arXiv 2402.04396, the codebook E8P): each of their
//! coordinates is one of these sixteen numbers. It takes 4 bits where the file has 2, and needs no table in a shader.

use super::fit::codes_around;
use super::words::{set_nibbles, split_nibbles};
use super::{GpuOrder, Layout};

pub(super) struct E8P;

impl Layout for E8P {
    fn name(&self) -> &'static str {
        "e8p"
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
        for (j, &byte) in bytes.iter().enumerate() {
            out[j] = f32::from(byte & 15) * 0.5 - 3.75;
            out[j + 16] = f32::from(byte >> 4) * 0.5 - 3.75;
        }
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        set_nibbles(values, codes_around(0.5, 7.5, 15.0), bytes);
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 0 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], _scales: &mut [u32]) {
        for (bytes, codes) in row.chunks_exact(16).zip(codes.chunks_exact_mut(4)) {
            let (low, high) = codes.split_at_mut(2);
            split_nibbles(bytes, low, high);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/e8p.wgsl")
    }
}
