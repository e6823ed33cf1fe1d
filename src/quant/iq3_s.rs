//! `iq3_s`: 256 elements in 8 groups of 32, which are eight points of 4: `d: f16`, 64 bytes of the low 8 bits of points,
//! 8 bytes of their ninth bits, 32 bytes of signs, 4 bytes of 4-bit scales; w = d·(1 + 2·scale)·(± level), the levels the
//! odd numbers up to 15. The products are exact in f32 (11 + 5 + 4 bits).
//!
//! In GPU order the points are written out as codes of 4 bits, a sign above the number of a level. Scales, two words a
//! block: a nibble for each 32 elements; d. That is 4.25 bits an element where the file has 3.4.

use super::fit::error_weights;
use super::grid::{self, Search, Steps, split_signs};
use super::iq2_s::signed;
use super::levels;
use super::words::{half_at, set_code, set_half, word_at};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct IQ3_S;

const STEPS: Steps = Steps { first: 1.0, step: 2.0, last: 15.0 };

const SEARCH: Search = Search { grids: &[grid::IQ3_S], run: 8 };

impl Layout for IQ3_S {
    fn name(&self) -> &'static str {
        "iq3_s"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(21)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        110
    }

    fn levels(&self) -> &'static [i8] {
        &levels::IQ3_S
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        let d = half_at(bytes, 0);
        for (pair, levels) in levels.chunks_exact_mut(8).enumerate() {
            let magnitudes = |point| grid::IQ3_S.levels(index_of(bytes, point));
            signed(magnitudes(2 * pair).chain(magnitudes(2 * pair + 1)), bytes[74 + pair], levels);
        }
        for (half, scale) in scales.iter_mut().enumerate() {
            *scale = STEPS.of(d, f32::from(bytes[106 + half / 4] >> (4 * (half / 2 % 2)) & 15));
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let mut targets = values.to_vec();
        let signs: [u8; 32] = split_signs(&mut targets, &weights, false);
        let (d, scales) = SEARCH.scales::<8>(&targets, &weights, STEPS);
        bytes.fill(0);
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        bytes[74..106].copy_from_slice(&signs);
        for (group, scale) in scales.into_iter().enumerate() {
            bytes[106 + group / 2] |= scale << (4 * (group % 2));
            let scale = STEPS.of(d.to_f32(), f32::from(scale));
            let (targets, weights) = (&targets[32 * group..][..32], &weights[32 * group..][..32]);
            let mut point = 8 * group;
            SEARCH.points(targets, weights, scale, |_, indices| {
                for index in indices {
                    bytes[2 + point] = index as u8;
                    bytes[66 + point / 8] |= ((index >> 8) as u8) << (point % 8);
                    point += 1;
                }
            });
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GPU_ORDER
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        let words = codes.chunks_exact_mut(32).zip(scales.chunks_exact_mut(2));
        for (bytes, (codes, scales)) in row.chunks_exact(110).zip(words) {
            for point in 0..64 {
                let signs = bytes[74 + point / 2] >> (4 * (point % 2));
                write_out(point, grid::IQ3_S.digits(index_of(bytes, point)), signs, codes);
            }
            scales[0] = word_at(bytes, 106);
            set_half(scales, 2, [bytes[0], bytes[1]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/iq3_s.wgsl")
    }
}

/// The GPU order of `iq3_xxs` and `iq3_s`.
pub(super) const GPU_ORDER: GpuOrder = GpuOrder { code_bits: 4, scale_halves: 4 };

fn index_of(bytes: &[u8], point: usize) -> usize {
    usize::from(bytes[2 + point]) | usize::from(bytes[66 + point / 8] >> (point % 8) & 1) << 8
}

/// Writes point `point` of a block out, whose signs are the lowest four.
pub(super) fn write_out(point: usize, digits: impl Iterator<Item = usize>, signs: u8, codes: &mut [u32]) {
    for (i, digit) in digits.enumerate() {
        set_code::<4>(codes, 4 * point + i, digit as u32 | u32::from(signs >> i & 1) << 3);
    }
}
