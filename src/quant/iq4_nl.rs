//! `iq4_nl`: 32 elements, `d: f16`, 16 bytes of nibbles as in `q4_0`; w = d·level, where a code is the number of one of
//! 16 levels that stand closer together near zero, as weights do. The products are exact in f32 (11 + 7 bits).
//!
//! Scales in GPU order: d.

use super::fit::{error_weights, inverse, level_scale, nearest_f16};
use super::levels::{self, UNEVEN};
use super::words::{half_at, set_half, split_nibbles};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct IQ4_NL;

impl Layout for IQ4_NL {
    fn name(&self) -> &'static str {
        "iq4_nl"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(20)
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        18
    }

    fn levels(&self) -> &'static [i8] {
        &levels::UNEVEN
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        spell_nibbles(&bytes[2..], levels);
        scales.fill(half_at(bytes, 0));
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let d = nearest_f16(level_scale(values, &weights, ENDS, nearest_level));
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        encode_nibbles(d.to_f32(), values, &mut bytes[2..]);
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 1 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(18).zip(codes.chunks_exact_mut(4)).enumerate() {
            let (low, high) = codes.split_at_mut(2);
            split_nibbles(&bytes[2..], low, high);
            set_half(scales, block, [bytes[0], bytes[1]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/iq4_nl.wgsl")
    }
}

/// The least and the greatest level.
pub(super) const ENDS: [f32; 2] = [UNEVEN[0] as f32, UNEVEN[15] as f32];

/// 32 levels from 16 bytes of codes.
pub(super) fn spell_nibbles(nibbles: &[u8], levels: &mut [i8]) {
    for (j, &byte) in nibbles.iter().enumerate() {
        levels[j] = UNEVEN[usize::from(byte & 15)];
        levels[j + 16] = UNEVEN[usize::from(byte >> 4)];
    }
}

/// The codes of 32 values of scale `d`.
pub(super) fn encode_nibbles(d: f32, values: &[f32], nibbles: &mut [u8]) {
    let inverse = inverse(d);
    let code = |v: f32| nearest_code(v * inverse) as u8;
    for (j, byte) in nibbles.iter_mut().enumerate() {
        *byte = code(values[j]) | code(values[j + 16]) << 4;
    }
}

/// The nearest level to v.
pub(super) fn nearest_level(v: f32) -> f32 {
    f32::from(UNEVEN[nearest_code(v)])
}

/// The number of the nearest level to v.
fn nearest_code(v: f32) -> usize {
    usize::from(NEAREST[(2.0 * v.clamp(-128.0, 127.0) + 256.0) as usize])
}

/// For each half from −128 up the number of the nearest level: how many middles between neighbours lie below.
const NEAREST: [u8; 512] = {
    let mut nearest = [0; 512];
    let mut half = 0;
    while half < 512 {
        let mut level = 0;
        while level < 15 && UNEVEN[level] as i32 + UNEVEN[level + 1] as i32 <= half - 256 {
            level += 1;
        }
        nearest[half as usize] = level as u8;
        half += 1;
    }
    nearest
};
