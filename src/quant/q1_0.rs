//! `q1_0`: 128 elements, `d: f16`, 16 bytes of bits, the lowest first; w is d where its bit is set, else −d.
//!
//! Scales in GPU order: d.

use super::fit::{error_weights, nearest_f16};
use super::levels;
use super::words::{half_at, set_half, spread_bits, word_at};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct Q1_0;

impl Layout for Q1_0 {
    fn name(&self) -> &'static str {
        "q1_0"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(41)
    }

    fn block_len(&self) -> usize {
        128
    }

    fn block_bytes(&self) -> usize {
        18
    }

    fn levels(&self) -> &'static [i8] {
        &levels::FOUR
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        scales.fill(half_at(bytes, 0));
        for (i, level) in levels.iter_mut().enumerate() {
            *level = if bytes[2 + i / 8] >> (i % 8) & 1 == 1 { 1 } else { -1 };
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let sum = |value: fn(f32) -> f32| -> f64 {
            values.iter().zip(&weights).map(|(&v, &weight)| f64::from(value(v) * weight)).sum()
        };
        let all = sum(|_| 1.0);
        let d = nearest_f16(if all > 0.0 { (sum(f32::abs) / all) as f32 } else { 0.0 });
        bytes.fill(0);
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        for (i, &v) in values.iter().enumerate() {
            bytes[2 + i / 8] |= u8::from(v > 0.0) << (i % 8);
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 1, scale_halves: 1 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(18).zip(codes.chunks_exact_mut(4)).enumerate() {
            for (unit, code) in codes.iter_mut().enumerate() {
                *code = spread_bits(word_at(bytes, 2 + 4 * unit));
            }
            set_half(scales, block, [bytes[0], bytes[1]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/q1_0.wgsl")
    }
}
