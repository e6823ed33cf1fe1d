//! `tq2_0`: 256 elements, 64 bytes of 2-bit codes as in `q2_k`, `d: f16`; w = (q − 1)·d. Made for weights that are −d, 0
//! or d; the fourth code is 2·d.
//!
//! Scales in GPU order: d.

use super::fit::{codes_around, error_weights, level_scale, nearest_f16, whole};
use super::levels;
use super::q2_k::place;
use super::words::{gather_pairs, half_at, set_half};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct TQ2_0;

impl Layout for TQ2_0 {
    fn name(&self) -> &'static str {
        "tq2_0"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(35)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        66
    }

    fn levels(&self) -> &'static [i8] {
        &levels::FOUR
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        scales.fill(half_at(bytes, 64));
        for (i, level) in levels.iter_mut().enumerate() {
            let (byte, shift) = place(i);
            *level = (bytes[byte] >> shift & 3).cast_signed() - 1;
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let d = nearest_f16(level_scale(values, &weights, [-1.0, 2.0], |v| whole(v, -1.0, 2.0)));
        let code = codes_around(d.to_f32(), 1.0, 3.0);
        bytes.fill(0);
        bytes[64..].copy_from_slice(&d.to_le_bytes());
        for (i, &v) in values.iter().enumerate() {
            let (byte, shift) = place(i);
            bytes[byte] |= code(v) << shift;
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 2, scale_halves: 1 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(66).zip(codes.chunks_exact_mut(16)).enumerate() {
            for (unit, codes) in codes.chunks_exact_mut(2).enumerate() {
                codes.copy_from_slice(&gather_pairs(&bytes[unit / 4 * 32..], 2 * (unit % 4)));
            }
            set_half(scales, block, [bytes[64], bytes[65]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/tq2_0.wgsl")
    }
}
