//! `fp4`: 32 elements, `s: f32`, 16 bytes of nibbles as in `i4`; w = T[q]·s with the sixteen values of a 4-bit float, sign
//! in bit 3, as bitsandbytes has them (`functional.py`, MIT). What such checkpoints become while loading.

use super::table;
use super::{GpuOrder, Layout};

pub(super) struct FP4;

impl Layout for FP4 {
    fn name(&self) -> &'static str {
        "fp4"
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
        concat!(include_str!("../../shaders/quant/fp4.wgsl"), include_str!("../../shaders/part/table.wgsl"),)
    }
}

/// The values, in the order of their codes.
pub const TABLE: [f32; 16] = [
    0.0,
    1.0 / 192.0,
    2.0 / 3.0,
    1.0,
    1.0 / 3.0,
    0.5,
    1.0 / 6.0,
    0.25,
    -0.0,
    -1.0 / 192.0,
    -2.0 / 3.0,
    -1.0,
    -1.0 / 3.0,
    -0.5,
    -1.0 / 6.0,
    -0.25,
];
