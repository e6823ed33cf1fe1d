//! `f64`: one element, IEEE binary64, rounded to f32; in GPU order it is an f32.

use super::{GpuOrder, Layout};

pub(super) struct F64;

impl Layout for F64 {
    fn name(&self) -> &'static str {
        "f64"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(28)
    }

    fn block_len(&self) -> usize {
        1
    }

    fn block_bytes(&self) -> usize {
        8
    }

    fn safetensors_id(&self) -> Option<&'static str> {
        Some("F64")
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        out[0] = rounded(bytes);
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        bytes.copy_from_slice(&f64::from(values[0]).to_le_bytes());
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 32, scale_halves: 0 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], _scales: &mut [u32]) {
        for (bytes, code) in row.chunks_exact(8).zip(codes) {
            *code = rounded(bytes).to_bits();
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/f32.wgsl")
    }
}

fn rounded(bytes: &[u8]) -> f32 {
    let mut all = [0; 8];
    all.copy_from_slice(bytes);
    f64::from_le_bytes(all) as f32
}
