//! `f16`: one element, IEEE binary16.

use super::fit::nearest_f16;
use super::words::{copy_words, half_at};
use super::{GpuOrder, Layout};

pub(super) struct F16;

impl Layout for F16 {
    fn name(&self) -> &'static str {
        "f16"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(1)
    }

    fn safetensors_id(&self) -> Option<&'static str> {
        Some("F16")
    }

    fn block_len(&self) -> usize {
        1
    }

    fn block_bytes(&self) -> usize {
        2
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        out[0] = half_at(bytes, 0);
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        bytes.copy_from_slice(&nearest_f16(values[0]).to_le_bytes());
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 16, scale_halves: 0 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], _scales: &mut [u32]) {
        copy_words(row, codes);
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/f16.wgsl")
    }
}
