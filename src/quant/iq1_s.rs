//! `iq1_s`: 256 elements in 8 groups of 32, which are four points of 8: `d: f16`, 32 bytes of the low 8 bits of points, for
//! each group 16 bits: four times the high 3 bits of a point, a 3-bit scale, and whether levels move down;
//! w = d·(1 + 2·scale)·level, the levels −1, 0 and 1, moved up by an eighth, or down. The products are exact in f32
//! (11 + 4 + 4 bits).
//!
//! In GPU order the points are written out as codes of 2 bits, a level plus 1. Scales, two words a block: a nibble for each
//! 32 elements, the move above the scale; d. That is 2.25 bits an element where the file has 1.6.

use super::fit::error_weights;
use super::grid::{IQ1, Search, Steps};
use super::levels;
use super::words::{half_at, set_code, set_half};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct IQ1_S;

/// How the scales of `iq1_s` and `iq1_m` follow from their codes.
pub(super) const STEPS: Steps = Steps { first: 1.0, step: 2.0, last: 7.0 };

const SEARCH: Search = Search { grids: &IQ1, run: 32 };

impl Layout for IQ1_S {
    fn name(&self) -> &'static str {
        "iq1_s"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(19)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        50
    }

    fn levels(&self) -> &'static [i8] {
        &levels::IQ1
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        let d = half_at(bytes, 0);
        for (point, levels) in levels.chunks_exact_mut(8).enumerate() {
            let high = high_at(bytes, point / 4);
            eighths(IQ1[usize::from(high >> 15)].levels(index_of(bytes, point)), levels);
            scales[point / 2] = STEPS.of(d / 8.0, f32::from(high >> 12 & 7));
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let (d, scales) = SEARCH.scales::<8>(values, &weights, STEPS);
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        for (group, code) in scales.into_iter().enumerate() {
            let scale = STEPS.of(d.to_f32(), f32::from(code));
            let (values, weights) = (&values[32 * group..][..32], &weights[32 * group..][..32]);
            SEARCH.points(values, weights, scale, |down, indices| {
                let mut high = (down as u16) << 15 | u16::from(code) << 12;
                for (point, index) in indices.enumerate() {
                    bytes[2 + 4 * group + point] = index as u8;
                    high |= ((index >> 8) as u16) << (3 * point);
                }
                bytes[34 + 2 * group..][..2].copy_from_slice(&high.to_le_bytes());
            });
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 2, scale_halves: 4 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        let words = codes.chunks_exact_mut(16).zip(scales.chunks_exact_mut(2));
        for (bytes, (codes, scales)) in row.chunks_exact(50).zip(words) {
            for point in 0..32 {
                for (i, digit) in IQ1[0].digits(index_of(bytes, point)).enumerate() {
                    set_code::<2>(codes, 8 * point + i, digit as u32);
                }
            }
            for group in 0..8 {
                scales[0] |= u32::from(high_at(bytes, group) >> 12) << (4 * group);
            }
            set_half(scales, 2, [bytes[0], bytes[1]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/iq1_s.wgsl")
    }
}

/// Levels as whole eighths.
pub(super) fn eighths(values: impl Iterator<Item = f32>, levels: &mut [i8]) {
    levels.iter_mut().zip(values).for_each(|(level, value)| *level = (8.0 * value) as i8);
}

/// The 16 bits of a group.
fn high_at(bytes: &[u8], group: usize) -> u16 {
    u16::from_le_bytes([bytes[34 + 2 * group], bytes[35 + 2 * group]])
}

fn index_of(bytes: &[u8], point: usize) -> usize {
    let high = high_at(bytes, point / 4) >> (3 * (point % 4)) & 7;
    usize::from(bytes[2 + point]) | usize::from(high) << 8
}
