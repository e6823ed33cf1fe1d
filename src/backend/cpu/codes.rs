//! Products of quantized weights in whole numbers: activations are rounded to 16 bits per block of 32, and a
//! weight's code is multiplied as it is, without becoming a float.
//!
//! Sixteen bits and not eight: an activation is split into two signed bytes, x = 256·high + low, and each takes part
//! in the dot products of bytes that processors have. That costs two instructions where eight bits cost one, which
//! memory hides for a token, and the error is 257 times smaller: no input needs to be kept finer. An activation is
//! off by at most s/2 with s = max |x| of its block / [`Run::MOST`].

use super::simd::{Code, Run, Simd};
use super::unit::{
    Blocks, E8p, I4, I8, IQ4NL, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, TQ2_0, Z2, Z4, Z8,
};
use crate::quant::Format;

/// A row of activations, rounded, in blocks of 32.
#[derive(Debug, Default)]
pub(super) struct Rounded {
    pub(super) runs: Vec<Run>,
}

impl Rounded {
    /// Rounds `x`, a whole number of blocks. A block with a NaN or an infinity becomes NaN.
    #[inline(always)]
    pub(super) fn set(&mut self, x: &[f32]) {
        let (blocks, _) = x.as_chunks::<32>();
        self.runs.resize(blocks.len(), Run::default());
        for (x, run) in blocks.iter().zip(&mut self.runs) {
            // The bits of numbers without sign are in their order, infinity and NaN behind.
            let mut most = 0;
            for x in x {
                most = most.max(x.to_bits() & 0x7fff_ffff);
            }
            let most = f32::from_bits(most);
            let inverse = if most > 0.0 { f32::from(Run::MOST) / most } else { 0.0 };
            // One loop for each array: so each becomes vector instructions.
            let mut numbers = [0i16; 32];
            for i in 0..32 {
                numbers[i] = nearest(x[i] * inverse);
            }
            let (high, low) = (run.high.as_flattened_mut(), run.low.as_flattened_mut());
            for i in 0..32 {
                low[i] = numbers[i] as i8;
            }
            for i in 0..32 {
                // The low byte is signed, so half of a high unit is rounded up.
                high[i] = (numbers[i].wrapping_add(128) >> 8) as i8;
            }
            let mut sums = [0i32; 2];
            for i in 0..16 {
                sums[0] += i32::from(numbers[i]);
                sums[1] += i32::from(numbers[16 + i]);
            }
            run.sums = sums;
            run.scale = if most.is_finite() { most / f32::from(Run::MOST) } else { f32::NAN };
            run.total = (sums[0] + sums[1]) as f32 * run.scale;
        }
    }
}

/// The nearest whole number: 1.5·2²³ leaves no fraction bits, and the number in the lowest. Any number for NaN.
#[inline(always)]
fn nearest(x: f32) -> i16 {
    (x + 12_582_912.0).to_bits() as i16
}

/// A format whose weights are codes, w = (code − offset) · scale + min, with a scale for each 32 or 16 of them.
///
/// Its blocks are read from groups of sixteen rows ([`super::packed`]), sixteen rows at a time.
pub(super) trait Codes: Blocks {
    /// What a block consists of, in the order in which a group holds it, which is that of use: memory gives most to
    /// those who read on.
    const UNITS: &'static [Units];
    /// The numbers that stand for weights.
    const CODE: Code;
    /// Whether the two halves of a run have scales of their own.
    const HALVES: bool = false;
    /// Whether many models are in it: such formats have tiles of more sizes.
    const COMMON: bool = false;
    /// Whether a min is ever other than zero.
    const MINS: bool = false;
    /// Whether codes are the numbers of levels ([`Format::levels`]), below 16.
    const LEVELS: bool = false;
    /// Whether the blocks are others than the file's.
    const RESPELLED: bool = false;
    /// A row of the file in blocks of this kind, where [`Self::RESPELLED`].
    fn respelled(_format: Format, _row: &[u8]) -> Option<Vec<u8>> {
        None
    }
    /// Run `RUN` of a block of a group.
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S>;
}

/// Units of a block that stand side by side: `count` of `size` bytes from byte `at` of the file's block on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    pub(super) at: usize,
    pub(super) size: usize,
    pub(super) count: usize,
}

/// A run of 32 weights of sixteen rows.
pub(super) struct Weights<S: Simd> {
    pub(super) codes: [S::Quads; 8],
    /// Of each half of the run, where the halves have scales of their own, else only the first. Likewise below.
    pub(super) scales: [S::Lanes; 2],
    pub(super) mins: [S::Lanes; 2],
}

/// `eight!(i => expression)`: the expression for i from 0 to 7, in registers: a loop may be left one, in memory.
macro_rules! eight {
    ($i:ident => $body:expr) => {
        $crate::backend::cpu::codes::eight!($i $body; 0 1 2 3 4 5 6 7)
    };
    ($i:ident $body:expr; $($number:literal)*) => {
        [$({
            let $i: usize = $number;
            $body
        }),*]
    };
}

pub(super) use eight;

/// The four bytes of sixteen rows that stand behind `at` bytes of each.
#[inline(always)]
fn quads<S: Simd>(s: S, block: &[u8], at: usize) -> S::Quads {
    s.quads(block[16 * at..].first_chunk().expect("a block of sixteen rows is longer"))
}

/// The IEEE half of sixteen rows that stands behind `at` bytes of each.
#[inline(always)]
fn halves<S: Simd>(s: S, block: &[u8], at: usize) -> S::Lanes {
    s.lanes_half(block[16 * at..].first_chunk().expect("a block of sixteen rows is longer"))
}

/// The f32 of sixteen rows that stands behind `at` bytes of each.
#[inline(always)]
fn floats<S: Simd>(s: S, block: &[u8], at: usize) -> S::Lanes {
    s.lanes_full(block[16 * at..].first_chunk().expect("a block of sixteen rows is longer"))
}

#[inline(always)]
fn high<S: Simd>(s: S, quads: S::Quads) -> S::Quads {
    s.quads_right::<4>(quads)
}

#[inline(always)]
fn low<S: Simd>(s: S, quads: S::Quads) -> S::Quads {
    s.quads_and(quads, 15)
}

/// Sixteen bytes behind `at`: the low nibbles, then the high ones.
#[inline(always)]
pub(super) fn nibbles<S: Simd>(s: S, block: &[u8], at: usize) -> [S::Quads; 8] {
    eight!(i => {
        let bytes = quads(s, block, at + 4 * (i % 4));
        if i < 4 { low(s, bytes) } else { high(s, bytes) }
    })
}

/// The nibbles of the sixteen bytes behind `at` under the bits of the word before.
#[inline(always)]
fn five_bits<S: Simd>(s: S, block: &[u8], at: usize) -> [S::Quads; 8] {
    let (codes, fifths) = (nibbles(s, block, at), quads(s, block, at - 4));
    eight!(i => s.quads_or(codes[i], s.quads_left::<4>(s.quads_bits(fifths, 4 * i))))
}

#[inline(always)]
fn scaled<S: Simd>(codes: [S::Quads; 8], scales: S::Lanes, mins: S::Lanes) -> Weights<S> {
    Weights { codes, scales: [scales; 2], mins: [mins; 2] }
}

impl Codes for Q4_0 {
    const UNITS: &'static [Units] = &[Units { at: 0, size: 2, count: 1 }, Units { at: 2, size: 4, count: 4 }];
    const COMMON: bool = true;
    const CODE: Code = Code { bits: 4, offset: 8 };
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        scaled(nibbles(s, block, 2), halves(s, block, 0), s.no_lanes())
    }
}

impl Codes for Q4_1 {
    const UNITS: &'static [Units] = &[Units { at: 0, size: 2, count: 2 }, Units { at: 4, size: 4, count: 4 }];
    const COMMON: bool = true;
    const CODE: Code = Code { bits: 4, offset: 0 };
    const MINS: bool = true;
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        scaled(nibbles(s, block, 4), halves(s, block, 0), halves(s, block, 2))
    }
}

impl Codes for Q5_0 {
    const UNITS: &'static [Units] = &[Units { at: 0, size: 2, count: 1 }, Units { at: 2, size: 4, count: 5 }];
    const COMMON: bool = true;
    const CODE: Code = Code { bits: 5, offset: 16 };
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        scaled(five_bits(s, block, 6), halves(s, block, 0), s.no_lanes())
    }
}

impl Codes for Q5_1 {
    const UNITS: &'static [Units] = &[Units { at: 0, size: 2, count: 2 }, Units { at: 4, size: 4, count: 5 }];
    const CODE: Code = Code { bits: 5, offset: 0 };
    const MINS: bool = true;
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        scaled(five_bits(s, block, 8), halves(s, block, 0), halves(s, block, 2))
    }
}

impl Codes for Q8_0 {
    const UNITS: &'static [Units] = &[Units { at: 0, size: 2, count: 1 }, Units { at: 2, size: 4, count: 8 }];
    const COMMON: bool = true;
    const CODE: Code = Code { bits: 8, offset: 0 };
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        let codes = eight!(i => quads(s, block, 2 + 4 * i));
        scaled(codes, halves(s, block, 0), s.no_lanes())
    }
}

impl Codes for Q4K {
    const UNITS: &'static [Units] =
        &[Units { at: 0, size: 2, count: 2 }, Units { at: 4, size: 4, count: 35 }];
    const COMMON: bool = true;
    const CODE: Code = Code { bits: 4, offset: 0 };
    const MINS: bool = true;
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        let codes = eight!(i => {
            let bytes = quads(s, block, 16 + 32 * (RUN / 2) + 4 * i);
            if RUN.is_multiple_of(2) { low(s, bytes) } else { high(s, bytes) }
        });
        let (scales, mins) = scales_and_mins::<S, RUN>(s, block);
        scaled(codes, scales, mins)
    }
}

/// The scales and the negated minimums of run `RUN` of a `q4_k` or `q5_k` block: the layout of `unit::scales_and_mins`.
#[inline(always)]
fn scales_and_mins<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> (S::Lanes, S::Lanes) {
    let (a, b) = (quads(s, block, 4), quads(s, block, 8));
    let (scales, mins) = if RUN < 4 {
        (s.quads_and(a, 63), s.quads_and(b, 63))
    } else {
        let c = quads(s, block, 12);
        let (a, b) = (s.quads_right::<2>(a), s.quads_right::<2>(b));
        (s.quads_or(low(s, c), s.quads_and(a, 0x30)), s.quads_or(high(s, c), s.quads_and(b, 0x30)))
    };
    let (d, dmin) = (halves(s, block, 0), halves(s, block, 2));
    let mins = s.lanes_mul(dmin, s.quads_byte(mins, RUN % 4));
    (s.lanes_mul(d, s.quads_byte(scales, RUN % 4)), s.add_times(s.no_lanes(), mins, -1.0))
}

impl Codes for Q6K {
    /// The scales; then of each side the low bits of two quarters, the high bits of all, the low bits of the others.
    const UNITS: &'static [Units] = &[
        Units { at: 208, size: 2, count: 1 },
        Units { at: 192, size: 1, count: 16 },
        Units { at: 0, size: 4, count: 8 },
        Units { at: 128, size: 4, count: 8 },
        Units { at: 32, size: 4, count: 8 },
        Units { at: 64, size: 4, count: 8 },
        Units { at: 160, size: 4, count: 8 },
        Units { at: 96, size: 4, count: 8 },
    ];
    const COMMON: bool = true;
    const CODE: Code = Code { bits: 6, offset: 32 };
    const HALVES: bool = true;
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        let (side, quarter) = (RUN / 4, RUN % 4);
        let side = 18 + 96 * side;
        let codes = eight!(i => {
            let bytes = quads(s, block, side + 64 * (quarter % 2) + 4 * i);
            let nibbles = if quarter < 2 { low(s, bytes) } else { high(s, bytes) };
            let bytes = quads(s, block, side + 32 + 4 * i);
            let bits = match quarter {
                0 => bytes,
                1 => s.quads_right::<2>(bytes),
                2 => s.quads_right::<4>(bytes),
                _ => s.quads_right::<6>(bytes),
            };
            s.quads_or(nibbles, s.quads_left::<4>(s.quads_and(bits, 3)))
        });
        let (d, bytes) = (halves(s, block, 0), block[16 * (2 + 2 * RUN)..].as_chunks::<16>().0);
        let scales = [s.lanes_mul(d, s.lanes_signed(&bytes[0])), s.lanes_mul(d, s.lanes_signed(&bytes[1]))];
        Weights { codes, scales, mins: [s.no_lanes(); 2] }
    }
}

/// The 2-bit codes of run `RUN` behind `at`: 32 bytes hold those of four runs.
#[inline(always)]
fn pairs<S: Simd, const RUN: usize>(s: S, block: &[u8], at: usize) -> [S::Quads; 8] {
    eight!(i => {
        let bytes = quads(s, block, at + 32 * (RUN / 4) + 4 * i);
        let bytes = match RUN % 4 {
            0 => bytes,
            1 => s.quads_right::<2>(bytes),
            2 => s.quads_right::<4>(bytes),
            _ => s.quads_right::<6>(bytes),
        };
        s.quads_and(bytes, 3)
    })
}

/// Bit `RUN` of the bytes of `quads`.
#[inline(always)]
fn bit<S: Simd, const RUN: usize>(s: S, quads: S::Quads) -> S::Quads {
    let shifted = match RUN {
        0 => quads,
        1 => s.quads_right::<1>(quads),
        2 => s.quads_right::<2>(quads),
        3 => s.quads_right::<3>(quads),
        4 => s.quads_right::<4>(quads),
        5 => s.quads_right::<5>(quads),
        6 => s.quads_right::<6>(quads),
        _ => s.quads_right::<7>(quads),
    };
    s.quads_and(shifted, 1)
}

impl Codes for Q2K {
    const UNITS: &'static [Units] =
        &[Units { at: 80, size: 2, count: 2 }, Units { at: 0, size: 4, count: 20 }];
    const CODE: Code = Code { bits: 2, offset: 0 };
    const HALVES: bool = true;
    const MINS: bool = true;
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        let (d, dmin) = (halves(s, block, 0), halves(s, block, 2));
        let groups = quads(s, block, 4 + 4 * (RUN / 2));
        let (scales, mins) = (low(s, groups), high(s, groups));
        let at = 2 * (RUN % 2);
        let scales = [s.quads_byte(scales, at), s.quads_byte(scales, at + 1)].map(
            #[inline(always)]
            |scale| s.lanes_mul(d, scale),
        );
        let mins = [s.quads_byte(mins, at), s.quads_byte(mins, at + 1)].map(
            #[inline(always)]
            |min| s.add_times(s.no_lanes(), s.lanes_mul(dmin, min), -1.0),
        );
        Weights { codes: pairs::<S, RUN>(s, block, 20), scales, mins }
    }
}

impl Codes for Q3K {
    const UNITS: &'static [Units] = &[
        Units { at: 108, size: 2, count: 1 },
        Units { at: 96, size: 4, count: 3 },
        Units { at: 0, size: 4, count: 24 },
    ];
    const CODE: Code = Code { bits: 3, offset: 4 };
    const HALVES: bool = true;
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        let two_bits = pairs::<S, RUN>(s, block, 14 + 32);
        let codes = eight!(i => {
            let high = bit::<S, RUN>(s, quads(s, block, 14 + 4 * i));
            s.quads_or(two_bits[i], s.quads_left::<2>(high))
        });
        // The layout of `quant::q3_k`: groups 2 · RUN and 2 · RUN + 1.
        let nibbles = quads(s, block, 2 + 4 * (RUN / 2 % 2));
        let nibbles = if RUN < 4 { low(s, nibbles) } else { high(s, nibbles) };
        let tops = quads(s, block, 10);
        let tops = match RUN / 2 {
            0 => tops,
            1 => s.quads_right::<2>(tops),
            2 => s.quads_right::<4>(tops),
            _ => s.quads_right::<6>(tops),
        };
        let all = s.quads_or(nibbles, s.quads_left::<4>(s.quads_and(tops, 3)));
        let (d, at) = (halves(s, block, 0), 2 * (RUN % 2));
        let scales = [s.quads_byte(all, at), s.quads_byte(all, at + 1)].map(
            #[inline(always)]
            |scale| s.add_times(s.lanes_mul(d, scale), d, -32.0),
        );
        Weights { codes, scales, mins: [s.no_lanes(); 2] }
    }
}

impl Codes for Q5K {
    const UNITS: &'static [Units] =
        &[Units { at: 0, size: 2, count: 2 }, Units { at: 4, size: 4, count: 43 }];
    const CODE: Code = Code { bits: 5, offset: 0 };
    const MINS: bool = true;
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        let codes = eight!(i => {
            let bytes = quads(s, block, 48 + 32 * (RUN / 2) + 4 * i);
            let nibbles = if RUN.is_multiple_of(2) { low(s, bytes) } else { high(s, bytes) };
            let fifth = bit::<S, RUN>(s, quads(s, block, 16 + 4 * i));
            s.quads_or(nibbles, s.quads_left::<4>(fifth))
        });
        let (scales, mins) = scales_and_mins::<S, RUN>(s, block);
        scaled(codes, scales, mins)
    }
}

impl Codes for IQ4NL {
    const UNITS: &'static [Units] = &[Units { at: 0, size: 2, count: 1 }, Units { at: 2, size: 4, count: 4 }];
    const CODE: Code = Code { bits: 8, offset: 0 };
    const LEVELS: bool = true;
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        scaled(nibbles(s, block, 2), halves(s, block, 0), s.no_lanes())
    }
}

impl Codes for TQ2_0 {
    const UNITS: &'static [Units] =
        &[Units { at: 64, size: 2, count: 1 }, Units { at: 0, size: 4, count: 16 }];
    const CODE: Code = Code { bits: 2, offset: 1 };
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        scaled(pairs::<S, RUN>(s, block, 2), halves(s, block, 0), s.no_lanes())
    }
}

impl Codes for I4 {
    const UNITS: &'static [Units] = &[Units { at: 0, size: 4, count: 5 }];
    const COMMON: bool = true;
    const CODE: Code = Code { bits: 4, offset: 8 };
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        scaled(nibbles(s, block, 4), floats(s, block, 0), s.no_lanes())
    }
}

impl Codes for I8 {
    const UNITS: &'static [Units] = &[Units { at: 0, size: 4, count: 9 }];
    const CODE: Code = Code { bits: 8, offset: 0 };
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        scaled(eight!(i => quads(s, block, 4 + 4 * i)), floats(s, block, 0), s.no_lanes())
    }
}

/// Scales s and mins −z·s from both behind `at`.
#[inline(always)]
fn above_zero<S: Simd>(s: S, codes: [S::Quads; 8], block: &[u8]) -> Weights<S> {
    let (scales, zeros) = (floats(s, block, 0), floats(s, block, 4));
    scaled(codes, scales, s.add_times(s.no_lanes(), s.lanes_mul(scales, zeros), -1.0))
}

impl Codes for Z2 {
    const UNITS: &'static [Units] = &[Units { at: 0, size: 4, count: 4 }];
    const CODE: Code = Code { bits: 2, offset: 0 };
    const MINS: bool = true;
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        let codes = eight!(i => {
            let bytes = quads(s, block, 8 + 4 * (i / 4));
            let bytes = match i % 4 {
                0 => bytes,
                1 => s.quads_right::<2>(bytes),
                2 => s.quads_right::<4>(bytes),
                _ => s.quads_right::<6>(bytes),
            };
            s.quads_and(bytes, 3)
        });
        above_zero(s, codes, block)
    }
}

impl Codes for Z4 {
    const UNITS: &'static [Units] = &[Units { at: 0, size: 4, count: 6 }];
    const CODE: Code = Code { bits: 4, offset: 0 };
    const MINS: bool = true;
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        above_zero(s, nibbles(s, block, 8), block)
    }
}

impl Codes for Z8 {
    const UNITS: &'static [Units] = &[Units { at: 0, size: 4, count: 10 }];
    const CODE: Code = Code { bits: 8, offset: 0 };
    const MINS: bool = true;
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        above_zero(s, eight!(i => quads(s, block, 8 + 4 * i)), block)
    }
}

impl Codes for E8p {
    const UNITS: &'static [Units] = &[Units { at: 0, size: 4, count: 4 }];
    const CODE: Code = Code { bits: 4, offset: 0 };
    const MINS: bool = true;
    #[inline(always)]
    fn weights<S: Simd, const RUN: usize>(s: S, block: &[u8]) -> Weights<S> {
        // Sixteen times 1/2.
        const HALVES: [u8; 64] = *[[0, 0, 0, 0x3f]; 16].as_flattened().first_chunk().expect("64 bytes");
        let halves = s.lanes_full(&HALVES);
        scaled(nibbles(s, block, 0), halves, s.add_times(s.no_lanes(), halves, -7.5))
    }
}

/// `with_codes!(format, U => for a format with codes, else otherwise)`.
macro_rules! with_codes {
    ($format:expr, $U:ident => $body:expr, else $other:expr) => {{
        use $crate::backend::cpu::{spelled, unit as units};
        macro_rules! with {
            ($unit:ident) => {{
                type $U = units::$unit;
                $body
            }};
            ($module:ident :: $unit:ident) => {{
                type $U = $module::$unit;
                $body
            }};
        }
        match $format {
            $crate::quant::Format::Q4_0 => with!(Q4_0),
            $crate::quant::Format::Q4_1 => with!(Q4_1),
            $crate::quant::Format::Q5_0 => with!(Q5_0),
            $crate::quant::Format::Q5_1 => with!(Q5_1),
            $crate::quant::Format::Q8_0 => with!(Q8_0),
            $crate::quant::Format::Q2_K => with!(Q2K),
            $crate::quant::Format::Q3_K => with!(Q3K),
            $crate::quant::Format::Q4_K => with!(Q4K),
            $crate::quant::Format::Q5_K => with!(Q5K),
            $crate::quant::Format::Q6_K => with!(Q6K),
            $crate::quant::Format::I4 => with!(I4),
            $crate::quant::Format::I8 => with!(I8),
            $crate::quant::Format::Z2 => with!(Z2),
            $crate::quant::Format::Z4 => with!(Z4),
            $crate::quant::Format::Z8 => with!(Z8),
            $crate::quant::Format::E8P => with!(E8p),
            $crate::quant::Format::IQ4_NL => with!(IQ4NL),
            $crate::quant::Format::TQ2_0 => with!(TQ2_0),
            $crate::quant::Format::NVFP4
            | $crate::quant::Format::IQ1_M
            | $crate::quant::Format::IQ2_XS
            | $crate::quant::Format::IQ2_S => with!(spelled::Halves),
            format if !format.levels().is_empty() => with!(spelled::Whole),
            _ => $other,
        }
    }};
}
pub(super) use with_codes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_within_half_a_step_and_keeps_what_is_no_number() {
        let mut x = crate::base::Seed::new(9).vector(96, 3.0);
        x[40] = 1000.0;
        x[41] = -1000.0;
        x[64..].fill(0.0);
        let mut rounded = Rounded::default();
        rounded.set(&x);
        for (i, &x) in x.iter().enumerate() {
            let run = rounded.runs[i / 32];
            let [high, low] = [run.high, run.low].map(|part| f32::from(part.as_flattened()[i % 32]));
            let back = (256.0 * high + low) * run.scale;
            assert!((back - x).abs() <= 0.5001 * run.scale, "{x} became {back}");
        }
        assert_eq!(rounded.runs[2].scale, 0.0);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            x[70] = bad;
            rounded.set(&x);
            assert!(rounded.runs[2].scale.is_nan());
        }
    }
}
