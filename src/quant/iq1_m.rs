//! `iq1_m`: 256 elements in 16 groups of 16, which are two points of 8: 32 bytes of the low 8 bits of points, for each
//! point 4 bits, the high 3 bits of its number and whether its levels move down, and four times 16 bits: four 3-bit
//! scales below a quarter of `d: f16`, the lowest bits first; w as in `iq1_s`.
//!
//! In GPU order the points are written out as in `iq1_s`. Scales, four words a block: a bit for each 8 elements, whether
//! they move down; a nibble of scale for each 16 (two words); d. That is 2.5 bits an element where the file has 1.75.

use half::f16;

use super::fit::error_weights;
use super::grid::{IQ1, Search};
use super::iq1_s::{STEPS, eighths};
use super::levels;
use super::words::{set_code, set_half};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct IQ1_M;

const SEARCH: Search = Search { grids: &IQ1, run: 8 };

impl Layout for IQ1_M {
    fn name(&self) -> &'static str {
        "iq1_m"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(29)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        56
    }

    fn levels(&self) -> &'static [i8] {
        &levels::IQ1
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        let d = f16::from_le_bytes(d_of(bytes)).to_f32();
        for (point, levels) in levels.chunks_exact_mut(8).enumerate() {
            let (index, down) = point_of(bytes, point);
            eighths(IQ1[down].levels(index), levels);
            scales[point / 2] = STEPS.of(d / 8.0, f32::from(scale_at(bytes, point / 2)));
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let (d, scales) = SEARCH.scales::<16>(values, &weights, STEPS);
        bytes.fill(0);
        let mut quarters = [0u16; 4];
        for (quarter, word) in quarters.iter_mut().enumerate() {
            *word = d.to_bits() >> (4 * quarter) << 12;
        }
        for (group, code) in scales.into_iter().enumerate() {
            quarters[group / 4] |= u16::from(code) << (3 * (group % 4));
            let scale = STEPS.of(d.to_f32(), f32::from(code));
            let (values, weights) = (&values[16 * group..][..16], &weights[16 * group..][..16]);
            let mut point = 2 * group;
            SEARCH.points(values, weights, scale, |down, indices| {
                for index in indices {
                    bytes[point] = index as u8;
                    bytes[32 + point / 2] |= ((index >> 8) as u8 | (down as u8) << 3) << (4 * (point % 2));
                    point += 1;
                }
            });
        }
        for (bytes, word) in bytes[48..].chunks_exact_mut(2).zip(quarters) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 2, scale_halves: 8 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        let words = codes.chunks_exact_mut(16).zip(scales.chunks_exact_mut(4));
        for (bytes, (codes, scales)) in row.chunks_exact(56).zip(words) {
            for point in 0..32 {
                let (index, down) = point_of(bytes, point);
                for (i, digit) in IQ1[0].digits(index).enumerate() {
                    set_code::<2>(codes, 8 * point + i, digit as u32);
                }
                scales[0] |= (down as u32) << point;
            }
            for group in 0..16 {
                scales[1 + group / 8] |= u32::from(scale_at(bytes, group)) << (4 * (group % 8));
            }
            set_half(scales, 6, d_of(bytes));
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/iq1_m.wgsl")
    }
}

/// The 16 bits of four groups.
fn quarter_at(bytes: &[u8], quarter: usize) -> u16 {
    u16::from_le_bytes([bytes[48 + 2 * quarter], bytes[49 + 2 * quarter]])
}

fn d_of(bytes: &[u8]) -> [u8; 2] {
    (0..4).fold(0, |d, quarter| d | quarter_at(bytes, quarter) >> 12 << (4 * quarter)).to_le_bytes()
}

fn scale_at(bytes: &[u8], group: usize) -> u8 {
    (quarter_at(bytes, group / 4) >> (3 * (group % 4)) & 7) as u8
}

/// The number of a point, and 1 where its levels move down.
fn point_of(bytes: &[u8], point: usize) -> (usize, usize) {
    let high = usize::from(bytes[32 + point / 2] >> (4 * (point % 2)) & 15);
    (usize::from(bytes[point]) | (high & 7) << 8, high >> 3)
}
