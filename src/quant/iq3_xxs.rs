//! `iq3_xxs`: 256 elements in 8 groups of 32, which are eight points of 4: `d: f16`, 64 bytes of points, for each group
//! 32 bits, four times 7 bits of signs of 8 elements (the eighth makes the minuses even) below a 4-bit scale;
//! w = d·(1/2 + scale)/2·(± level), the levels 4, 12, … 52, 62. The products are exact in f32 (11 + 5 + 5 bits).
//!
//! In GPU order as `iq3_s`: 4.25 bits an element where the file has 3.1.

use super::fit::error_weights;
use super::grid::{self, Search, Steps, even_signs, split_signs};
use super::iq2_s::signed;
use super::iq3_s::{GPU_ORDER, write_out};
use super::levels;
use super::words::{half_at, set_half, word_at};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct IQ3_XXS;

const STEPS: Steps = Steps { first: 0.25, step: 0.5, last: 15.0 };

const SEARCH: Search = Search { grids: &[grid::IQ3_XXS], run: 8 };

impl Layout for IQ3_XXS {
    fn name(&self) -> &'static str {
        "iq3_xxs"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(18)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        98
    }

    fn levels(&self) -> &'static [i8] {
        &levels::IQ3_XXS
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        let d = half_at(bytes, 0);
        for (pair, levels) in levels.chunks_exact_mut(8).enumerate() {
            let word = word_at(bytes, 66 + 4 * (pair / 4));
            let magnitudes = |point| grid::IQ3_XXS.levels(usize::from(bytes[2 + point]));
            let signs = even_signs(word >> (7 * (pair % 4)));
            signed(magnitudes(2 * pair).chain(magnitudes(2 * pair + 1)), signs, levels);
            scales[pair / 2] = STEPS.of(d, (word >> 28) as f32);
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let mut targets = values.to_vec();
        let signs: [u8; 32] = split_signs(&mut targets, &weights, true);
        let (d, scales) = SEARCH.scales::<8>(&targets, &weights, STEPS);
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        for (group, scale) in scales.into_iter().enumerate() {
            let signs = signs[4 * group..][..4].iter().enumerate();
            let signs = signs.fold(0, |word, (i, signs)| word | u32::from(signs & 127) << (7 * i));
            let word = signs | u32::from(scale) << 28;
            bytes[66 + 4 * group..][..4].copy_from_slice(&word.to_le_bytes());
            let scale = STEPS.of(d.to_f32(), f32::from(scale));
            let (targets, weights) = (&targets[32 * group..][..32], &weights[32 * group..][..32]);
            let mut point = 2 + 8 * group;
            SEARCH.points(targets, weights, scale, |_, indices| {
                for index in indices {
                    bytes[point] = index as u8;
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
        for (bytes, (codes, scales)) in row.chunks_exact(98).zip(words) {
            for point in 0..64 {
                let word = word_at(bytes, 66 + 4 * (point / 8));
                let signs = even_signs(word >> (7 * (point / 2 % 4))) >> (4 * (point % 2));
                write_out(point, grid::IQ3_XXS.digits(usize::from(bytes[2 + point])), signs, codes);
                scales[0] |= (word >> 28) << (4 * (point / 8));
            }
            set_half(scales, 2, [bytes[0], bytes[1]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/iq3_xxs.wgsl")
    }
}
