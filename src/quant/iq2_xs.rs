//! `iq2_xs`: 256 elements in 16 groups of 16, which are two points of 8: `d: f16`, for each point 16 bits, its number
//! below 7 bits of signs (the eighth makes the minuses even), 8 bytes of 4-bit scales; w as in `iq2_s`.
//!
//! In GPU order as `iq2_s`: 3.4 bits an element where the file has 2.3.

use super::fit::error_weights;
use super::grid::{self, Search, even_signs, split_signs};
use super::iq2_s::{GPU_ORDER, STEPS, signed, write_out};
use super::levels;
use super::words::{half_at, set_half};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct IQ2_XS;

const SEARCH: Search = Search { grids: &[grid::IQ2_XS], run: 8 };

impl Layout for IQ2_XS {
    fn name(&self) -> &'static str {
        "iq2_xs"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(17)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        74
    }

    fn levels(&self) -> &'static [i8] {
        &levels::IQ2
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        let d = half_at(bytes, 0);
        for (point, levels) in levels.chunks_exact_mut(8).enumerate() {
            let (index, signs) = point_of(bytes, point);
            signed(grid::IQ2_XS.levels(index), signs, levels);
        }
        for (group, scale) in scales.iter_mut().enumerate() {
            *scale = STEPS.of(d, f32::from(bytes[66 + group / 2] >> (4 * (group % 2)) & 15));
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let mut targets = values.to_vec();
        let signs: [u8; 32] = split_signs(&mut targets, &weights, true);
        let (d, scales) = SEARCH.scales::<16>(&targets, &weights, STEPS);
        bytes.fill(0);
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        for (group, scale) in scales.into_iter().enumerate() {
            bytes[66 + group / 2] |= scale << (4 * (group % 2));
            let scale = STEPS.of(d.to_f32(), f32::from(scale));
            let (targets, weights) = (&targets[16 * group..][..16], &weights[16 * group..][..16]);
            let mut point = 2 * group;
            SEARCH.points(targets, weights, scale, |_, indices| {
                for index in indices {
                    let word = index as u16 | u16::from(signs[point] & 127) << 9;
                    bytes[2 + 2 * point..][..2].copy_from_slice(&word.to_le_bytes());
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
        for (bytes, (codes, scales)) in row.chunks_exact(74).zip(words) {
            for point in 0..32 {
                let (index, signs) = point_of(bytes, point);
                write_out(point, grid::IQ2_XS.digits(index), signs, codes, scales);
            }
            for group in 0..16 {
                let scale = bytes[66 + group / 2] >> (4 * (group % 2)) & 15;
                scales[8 + group / 8] |= u32::from(scale) << (4 * (group % 8));
            }
            set_half(scales, 20, [bytes[0], bytes[1]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/iq2_s.wgsl")
    }
}

/// The number of a point and its signs.
fn point_of(bytes: &[u8], point: usize) -> (usize, u8) {
    let word = u16::from_le_bytes([bytes[2 + 2 * point], bytes[3 + 2 * point]]);
    (usize::from(word & 511), even_signs(u32::from(word >> 9)))
}
