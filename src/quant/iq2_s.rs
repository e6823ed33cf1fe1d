//! `iq2_s`: 256 elements in 16 groups of 16, which are two points of 8: `d: f16`, 32 bytes of the low 8 bits of points,
//! 32 bytes of signs, 8 bytes of the high 2 bits of points, 8 bytes of 4-bit scales;
//! w = d·(1/2 + scale)/4·(± level), the levels 8, 25 and 43. The products are exact in f32 (11 + 5 + 6 bits).
//!
//! In GPU order the points are written out as codes of 2 bits, the number of a level. Scales, eleven words a block: for
//! each 32 elements a word of signs; a nibble of scale for each 16 (two words); d. That is 3.4 bits an element where the
//! file has 2.6.

use super::fit::error_weights;
use super::grid::{self, Search, Steps, split_signs};
use super::levels;
use super::words::{half_at, set_code, set_half, spread_bits};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct IQ2_S;

/// How the scales of `iq2_xxs`, `iq2_xs` and `iq2_s` follow from their codes.
pub(super) const STEPS: Steps = Steps { first: 0.125, step: 0.25, last: 15.0 };

const SEARCH: Search = Search { grids: &[grid::IQ2_S], run: 8 };

impl Layout for IQ2_S {
    fn name(&self) -> &'static str {
        "iq2_s"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(22)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        82
    }

    fn levels(&self) -> &'static [i8] {
        &levels::IQ2
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        let d = half_at(bytes, 0);
        for (point, levels) in levels.chunks_exact_mut(8).enumerate() {
            signed(grid::IQ2_S.levels(index_of(bytes, point)), bytes[34 + point], levels);
        }
        for (group, scale) in scales.iter_mut().enumerate() {
            *scale = STEPS.of(d, f32::from(bytes[74 + group / 2] >> (4 * (group % 2)) & 15));
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let mut targets = values.to_vec();
        let signs: [u8; 32] = split_signs(&mut targets, &weights, false);
        let (d, scales) = SEARCH.scales::<16>(&targets, &weights, STEPS);
        bytes.fill(0);
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        bytes[34..66].copy_from_slice(&signs);
        for (group, scale) in scales.into_iter().enumerate() {
            bytes[74 + group / 2] |= scale << (4 * (group % 2));
            let scale = STEPS.of(d.to_f32(), f32::from(scale));
            let (targets, weights) = (&targets[16 * group..][..16], &weights[16 * group..][..16]);
            let mut point = 2 * group;
            SEARCH.points(targets, weights, scale, |_, indices| {
                for index in indices {
                    bytes[2 + point] = index as u8;
                    bytes[66 + point / 4] |= ((index >> 8) as u8) << (2 * (point % 4));
                    point += 1;
                }
            });
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GPU_ORDER
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        let words = codes.chunks_exact_mut(16).zip(scales.chunks_exact_mut(11));
        for (bytes, (codes, scales)) in row.chunks_exact(82).zip(words) {
            for point in 0..32 {
                write_out(
                    point,
                    grid::IQ2_S.digits(index_of(bytes, point)),
                    bytes[34 + point],
                    codes,
                    scales,
                );
            }
            for group in 0..16 {
                let scale = bytes[74 + group / 2] >> (4 * (group % 2)) & 15;
                scales[8 + group / 8] |= u32::from(scale) << (4 * (group % 8));
            }
            set_half(scales, 20, [bytes[0], bytes[1]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/iq2_s.wgsl")
    }
}

/// The GPU order of `iq2_xxs`, `iq2_xs` and `iq2_s`.
pub(super) const GPU_ORDER: GpuOrder = GpuOrder { code_bits: 2, scale_halves: 22 };

fn index_of(bytes: &[u8], point: usize) -> usize {
    let high = bytes[66 + point / 4] >> (2 * (point % 4)) & 3;
    usize::from(bytes[2 + point]) | usize::from(high) << 8
}

/// Magnitudes with signs, a bit each, set for a minus.
pub(super) fn signed(magnitudes: impl Iterator<Item = f32>, signs: u8, levels: &mut [i8]) {
    for (i, (level, magnitude)) in levels.iter_mut().zip(magnitudes).enumerate() {
        *level = if signs >> i & 1 == 1 { -magnitude } else { magnitude } as i8;
    }
}

/// Writes point `point` of a block out: the numbers of its levels, and its signs.
pub(super) fn write_out(
    point: usize,
    digits: impl Iterator<Item = usize>,
    signs: u8,
    codes: &mut [u32],
    scales: &mut [u32],
) {
    for (i, digit) in digits.enumerate() {
        set_code::<2>(codes, 8 * point + i, digit as u32);
    }
    scales[point / 4] |= spread_bits(u32::from(signs) << (8 * (point % 4)));
}
