//! `q2_0`: 64 elements, `d: f16`, 16 bytes of 2-bit codes, element j in byte j div 4 at bit 2·(j mod 4); w = (q − 1)·d.
//!
//! Scales in GPU order: d.

use super::fit::{codes_around, error_weights, level_scale, nearest_f16, whole};
use super::levels;
use super::words::{half_at, set_half, word_at};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct Q2_0;

impl Layout for Q2_0 {
    fn name(&self) -> &'static str {
        "q2_0"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(42)
    }

    fn block_len(&self) -> usize {
        64
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
            *level = (bytes[2 + i / 4] >> (2 * (i % 4)) & 3).cast_signed() - 1;
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let d = nearest_f16(level_scale(values, &weights, [-1.0, 2.0], |v| whole(v, -1.0, 2.0)));
        let code = codes_around(d.to_f32(), 1.0, 3.0);
        bytes.fill(0);
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        for (i, &v) in values.iter().enumerate() {
            bytes[2 + i / 4] |= code(v) << (2 * (i % 4));
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 2, scale_halves: 1 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(18).zip(codes.chunks_exact_mut(4)).enumerate() {
            for (word, code) in codes.iter_mut().enumerate() {
                *code = transposed(word_at(bytes, 2 + 4 * word));
            }
            set_half(scales, block, [bytes[0], bytes[1]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/q2_0.wgsl")
    }
}

/// 16 fields of 2 bits from element order to GPU order: field i goes to byte i mod 4, bit 2·(i div 4).
fn transposed(fields: u32) -> u32 {
    (0..16).fold(0, |word, i| word | (fields >> (2 * i) & 3) << (8 * (i % 4) + 2 * (i / 4)))
}
