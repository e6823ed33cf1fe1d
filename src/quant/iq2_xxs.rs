//! `iq2_xxs`: 256 elements in 8 groups of 32, which are four points of 8: `d: f16`, for each group a byte for each point
//! and 32 bits, four times 7 bits of signs (the eighth makes the minuses even) below a 4-bit scale; w as in `iq2_s`.
//!
//! In GPU order as `iq2_s`, a scale standing twice: 3.4 bits an element where the file has 2.1.

use super::fit::error_weights;
use super::grid::{self, Search, even_signs, split_signs};
use super::iq2_s::{GPU_ORDER, STEPS, signed, write_out};
use super::levels;
use super::words::{half_at, set_half, word_at};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct IQ2_XXS;

const SEARCH: Search = Search { grids: &[grid::IQ2_XXS], run: 8 };

impl Layout for IQ2_XXS {
    fn name(&self) -> &'static str {
        "iq2_xxs"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(16)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        66
    }

    fn levels(&self) -> &'static [i8] {
        &levels::IQ2
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        let d = half_at(bytes, 0);
        for (point, levels) in levels.chunks_exact_mut(8).enumerate() {
            let group = &bytes[2 + 8 * (point / 4)..];
            let magnitudes = grid::IQ2_XXS.levels(usize::from(group[point % 4]));
            let word = word_at(group, 4);
            signed(magnitudes, even_signs(word >> (7 * (point % 4))), levels);
            scales[point / 2] = STEPS.of(d, (word >> 28) as f32);
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let mut targets = values.to_vec();
        let signs: [u8; 32] = split_signs(&mut targets, &weights, true);
        let (d, scales) = SEARCH.scales::<8>(&targets, &weights, STEPS);
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        for (group, scale) in scales.into_iter().enumerate() {
            let bytes = &mut bytes[2 + 8 * group..][..8];
            let mut word = u32::from(scale) << 28;
            let scale = STEPS.of(d.to_f32(), f32::from(scale));
            let (targets, weights) = (&targets[32 * group..][..32], &weights[32 * group..][..32]);
            let mut point = 0;
            SEARCH.points(targets, weights, scale, |_, indices| {
                for index in indices {
                    bytes[point] = index as u8;
                    word |= u32::from(signs[4 * group + point] & 127) << (7 * point);
                    point += 1;
                }
            });
            bytes[4..].copy_from_slice(&word.to_le_bytes());
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GPU_ORDER
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        let words = codes.chunks_exact_mut(16).zip(scales.chunks_exact_mut(11));
        for (bytes, (codes, scales)) in row.chunks_exact(66).zip(words) {
            for group in 0..8 {
                let of_group = &bytes[2 + 8 * group..];
                let word = word_at(of_group, 4);
                for (point, &index) in of_group[..4].iter().enumerate() {
                    let digits = grid::IQ2_XXS.digits(usize::from(index));
                    write_out(4 * group + point, digits, even_signs(word >> (7 * point)), codes, scales);
                }
                scales[8 + group / 4] |= ((word >> 28) * 0x11) << (8 * (group % 4));
            }
            set_half(scales, 20, [bytes[0], bytes[1]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/iq2_s.wgsl")
    }
}
