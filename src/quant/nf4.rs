//! `nf4`: 32 elements, `s: f32`, 16 bytes of nibbles as in `i4`; w = T[q]·s with the quantiles of a normal distribution
//! (Dettmers et al. 2023, QLoRA, arXiv 2305.14314, appendix E). What such checkpoints become while loading.

use super::table;
use super::{GpuOrder, Layout};

pub(super) struct NF4;

impl Layout for NF4 {
    fn name(&self) -> &'static str {
        "nf4"
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
        table::decode(&TABLE, bytes, out);
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        table::encode(&TABLE, values, bytes);
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 2 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        table::repack(row, codes, scales);
    }

    fn wgsl(&self) -> &'static str {
        concat!(include_str!("../../shaders/quant/nf4.wgsl"), include_str!("../../shaders/part/table.wgsl"),)
    }
}

/// The values, in the order of their codes.
pub const TABLE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];
