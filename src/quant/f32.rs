//! `f32`: one element, as it is. On a device that flushes subnormals to zero, so are subnormal weights.

use super::words::{copy_words, word_at};
use super::{GpuOrder, Layout};

pub(super) struct F32;

impl Layout for F32 {
    fn name(&self) -> &'static str {
        "f32"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(0)
    }

    fn safetensors_id(&self) -> Option<&'static str> {
        Some("F32")
    }

    fn block_len(&self) -> usize {
        1
    }

    fn block_bytes(&self) -> usize {
        4
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        out[0] = f32::from_bits(word_at(bytes, 0));
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        bytes.copy_from_slice(&values[0].to_le_bytes());
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 32, scale_halves: 0 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], _scales: &mut [u32]) {
        copy_words(row, codes);
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/f32.wgsl")
    }
}
