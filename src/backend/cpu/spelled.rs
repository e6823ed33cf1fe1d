//! Formats whose weights are a few whole numbers times a scale ([`Format::levels`]), in blocks of one kind: 32 nibbles,
//! each the number of a level, behind an f32 scale, or two for the halves of a run. So a point of a codebook is looked up
//! once, while packing, and a product looks up levels in a register.
//!
//! That is 5 bits a weight, or 6: more than the file has, and less than a decoder could make up for.

use crate::quant::Format;

use super::codes::{Codes, Units, Weights, nibbles};
use super::simd::{Code, Simd};
use super::unit::{self, Blocks, sixteen};

/// The block; the halves of a run may have scales of their own.
pub(super) struct Spelled<const HALVES: bool>;
/// One scale for a run.
pub(super) type Whole = Spelled<false>;
/// Two.
pub(super) type Halves = Spelled<true>;

/// The levels of a format, to look numbers up in.
pub(super) fn table(format: Format) -> [i8; 16] {
    let mut table = [0; 16];
    table.iter_mut().zip(format.levels()).for_each(|(to, level)| *to = *level);
    table
}

impl<const HALVES: bool> Spelled<HALVES> {
    /// Bytes of scales in a block.
    const SCALES: usize = if HALVES { 8 } else { 4 };
}

impl<const HALVES: bool> Blocks for Spelled<HALVES> {
    const LEN: usize = 32;
    const BYTES: usize = Self::SCALES + 16;
}

impl<const HALVES: bool> Codes for Spelled<HALVES> {
    const UNITS: &'static [Units] = &[Units { at: 0, size: 4, count: Self::BYTES / 4 }];
    const CODE: Code = Code { bits: 8, offset: 0 };
    const HALVES: bool = HALVES;
    const LEVELS: bool = true;
    const RESPELLED: bool = true;

    fn respelled(format: Format, row: &[u8]) -> Option<Vec<u8>> {
        let len = row.len() / format.block_bytes() * format.block_len();
        let (mut levels, mut scales) = (vec![0; len], vec![0.0; len / 16]);
        format.spell(row, &mut levels, &mut scales);
        let mut numbers = [0; 256];
        for (number, level) in (0..).zip(format.levels()) {
            numbers[usize::from(level.cast_unsigned())] = number;
        }
        let mut spelled = Vec::with_capacity(len / 32 * Self::BYTES);
        for (levels, scales) in levels.chunks_exact(32).zip(scales.chunks_exact(2)) {
            spelled.extend(scales.iter().take(Self::SCALES / 4).flat_map(|scale| scale.to_le_bytes()));
            let number = |i: usize| numbers[usize::from(levels[i].cast_unsigned())];
            spelled.extend((0..16).map(|i| number(i) | number(i + 16) << 4));
        }
        Some(spelled)
    }

    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        let scales =
            |at: usize| s.lanes(block[16 * at..].first_chunk().expect("a block of sixteen rows is longer"));
        Weights {
            codes: nibbles(s, block, Self::SCALES),
            scales: [scales(0), scales(Self::SCALES - 4)],
            mins: [s.no_lanes(); 2],
        }
    }
}

/// Decodes a row of blocks of `block_bytes`.
#[inline(always)]
pub(super) fn decode<S: Simd>(s: S, levels: &[i8; 16], block_bytes: usize, row: &[u8], out: &mut [f32]) {
    let scales = block_bytes - 16;
    let (out, _) = out.as_chunks_mut::<8>();
    for (block, out) in row.chunks_exact(block_bytes).zip(out.as_chunks_mut::<4>().0) {
        for (half, numbers) in unit::nibbles(s, sixteen(block, scales)).into_iter().enumerate() {
            let scale = s.splat(f32::from_bits(unit::word(block, half * (scales - 4))));
            let [a, b] = s.signed(s.table(numbers, levels));
            s.store(s.mul(a, scale), &mut out[2 * half]);
            s.store(s.mul(b, scale), &mut out[2 * half + 1]);
        }
    }
}
