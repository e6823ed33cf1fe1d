//! `bf16`: one element, the upper half of an f32. On a device that flushes subnormals to zero, so are subnormal
//! weights.

use half::bf16;

use super::words::copy_words;
use super::{GpuOrder, Layout};

pub(super) struct BF16;

impl Layout for BF16 {
    fn name(&self) -> &'static str {
        "bf16"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(30)
    }

    fn safetensors_id(&self) -> Option<&'static str> {
        Some("BF16")
    }

    fn block_len(&self) -> usize {
        1
    }

    fn block_bytes(&self) -> usize {
        2
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        out[0] = f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16);
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        let (least, most) = (bf16::MIN.to_f32(), bf16::MAX.to_f32());
        bytes.copy_from_slice(&bf16::from_f32(values[0].clamp(least, most)).to_le_bytes());
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 16, scale_halves: 0 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], _scales: &mut [u32]) {
        copy_words(row, codes);
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/bf16.wgsl")
    }
}
