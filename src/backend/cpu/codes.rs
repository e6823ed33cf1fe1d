//! Products of quantized weights in whole numbers: activations are rounded to 16 bits per block of 32, and a
//! weight's code is multiplied as it is, without becoming a float.
//!
//! Sixteen bits and not eight: with `vpmaddwd` (and NEON's `smlal`) they cost no more instructions a weight, since
//! eight-bit products must be widened too, and the error is 258 times smaller: no input needs to be kept finer.
//! An activation is off by at most s/2 with s = max |x| of its block / 32767.

use super::simd::Simd;
use super::unit::{
    Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q6K, Q8_0, Unit, five_bits, half, nibbles, prefetch, scales_and_mins,
    six_bits,
};
use super::unit::{sixteen, word};

/// The largest code of an activation.
const MOST: f32 = 32767.0;

/// A row of activations, rounded: `x[i] ≈ codes[i] · scale` in blocks of 32.
#[derive(Debug, Default)]
pub(super) struct Rounded {
    pub(super) codes: Vec<[[i16; 2]; 16]>,
    /// The scale, and Σ codes · scale.
    pub(super) blocks: Vec<[f32; 2]>,
}

impl Rounded {
    /// Rounds `x`, a whole number of blocks. A block with a NaN or an infinity becomes NaN.
    #[inline(always)]
    pub(super) fn set(&mut self, x: &[f32]) {
        let (blocks, _) = x.as_chunks::<32>();
        self.codes.resize(blocks.len(), [[0; 2]; 16]);
        self.blocks.clear();
        for (x, codes) in blocks.iter().zip(&mut self.codes) {
            // The bits of numbers without sign are in their order, infinity and NaN behind.
            let mut most = 0;
            for x in x {
                most = most.max(x.to_bits() & 0x7fff_ffff);
            }
            let most = f32::from_bits(most);
            let inverse = if most > 0.0 { MOST / most } else { 0.0 };
            let mut sum = 0i32;
            for (code, x) in codes.as_flattened_mut().iter_mut().zip(x) {
                *code = nearest(x * inverse);
                sum += i32::from(*code);
            }
            let scale = if most.is_finite() { most / MOST } else { f32::NAN };
            self.blocks.push([scale, sum as f32 * scale]);
        }
    }
}

/// The nearest whole number: 1.5·2²³ leaves no fraction bits, and the number in the lowest. Any number for NaN.
#[inline(always)]
fn nearest(x: f32) -> i16 {
    (x + 12_582_912.0).to_bits() as i16
}

/// A block as codes: w = code · scale + min, with a scale for each 16 elements of a run of 32.
pub(super) trait Codes: Unit {
    /// Whether the two halves of a run have scales of their own.
    const HALVES: bool = false;
    /// Whether a min is ever other than zero.
    const MINS: bool = false;
    /// Calls `take` with the number of each run, its codes, and the scale and min of each half.
    fn codes<S: Simd>(s: S, block: &[u8], take: impl FnMut(usize, [S::I; 2], [S::T; 2]));
}

/// A row of weights times `R` rows of activations.
#[inline(always)]
pub(super) fn dot<S: Simd, U: Codes, const R: usize>(s: S, row: &[u8], x: [&Rounded; R]) -> [f32; R] {
    let (blocks, per_block) = (row.len() / U::BYTES, U::LEN / 32);
    let (mut codes, mut scales) = ([&x[0].codes[..0]; R], [&x[0].blocks[..0]; R]);
    for r in 0..R {
        (codes[r], scales[r]) = (&x[r].codes[..blocks * per_block], &x[r].blocks[..blocks * per_block]);
    }
    let (mut sums, mut seconds, mut mins) = ([s.splat(0.0); R], [s.splat(0.0); R], [s.two([0.0; 2]); R]);
    for (index, block) in row.chunks_exact(U::BYTES).enumerate() {
        prefetch(s, block);
        U::codes(
            s,
            block,
            #[inline(always)]
            |run, i, [first, second]| {
                let run = index * per_block + run;
                for r in 0..R {
                    let [low, high] = halves(&codes[r][run]);
                    let scale = s.mul_two(first, &scales[r][run]);
                    let a = s.dot_codes(i[0], low);
                    if U::HALVES {
                        sums[r] = s.fma(s.float(a), s.splat_first(scale), sums[r]);
                        let scale = s.mul_two(second, &scales[r][run]);
                        let b = s.dot_codes(i[1], high);
                        seconds[r] = s.fma(s.float(b), s.splat_first(scale), seconds[r]);
                    } else {
                        let a = s.more_codes(a, i[1], high);
                        sums[r] = s.fma(s.float(a), s.splat_first(scale), sums[r]);
                    }
                    if U::MINS {
                        mins[r] = s.add_two(mins[r], scale);
                    }
                }
            },
        );
    }
    let mut dots = [0.0; R];
    for r in 0..R {
        dots[r] = s.sum(s.add(sums[r], seconds[r])) + s.values(mins[r])[1];
    }
    dots
}

#[inline(always)]
fn halves(codes: &[[i16; 2]; 16]) -> &[[i16; 16]; 2] {
    bytemuck::cast_ref(codes)
}

/// The scale of a block that begins with it, without a min.
#[inline(always)]
fn one_half<S: Simd>(s: S, block: &[u8]) -> S::T {
    s.two_halves(u32::from(u16::from_le_bytes([block[0], block[1]])))
}

impl Codes for Q4_0 {
    #[inline(always)]
    fn codes<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::I; 2], [S::T; 2])) {
        let [low, high] = nibbles(s, sixteen(block, 2));
        take(0, [s.minus(s.wide(low), 8), s.minus(s.wide(high), 8)], [one_half(s, block); 2]);
    }
}

impl Codes for Q4_1 {
    const MINS: bool = true;
    #[inline(always)]
    fn codes<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::I; 2], [S::T; 2])) {
        let [low, high] = nibbles(s, sixteen(block, 4));
        take(0, [s.wide(low), s.wide(high)], [s.two_halves(word(block, 0)); 2]);
    }
}

impl Codes for Q5_0 {
    #[inline(always)]
    fn codes<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::I; 2], [S::T; 2])) {
        let [low, high] = five_bits(s, word(block, 2), sixteen(block, 6));
        take(0, [s.minus(s.wide(low), 16), s.minus(s.wide(high), 16)], [one_half(s, block); 2]);
    }
}

impl Codes for Q5_1 {
    const MINS: bool = true;
    #[inline(always)]
    fn codes<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::I; 2], [S::T; 2])) {
        let [low, high] = five_bits(s, word(block, 4), sixteen(block, 8));
        take(0, [s.wide(low), s.wide(high)], [s.two_halves(word(block, 0)); 2]);
    }
}

impl Codes for Q8_0 {
    #[inline(always)]
    fn codes<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::I; 2], [S::T; 2])) {
        let (a, b) = (s.bytes(sixteen(block, 2)), s.bytes(sixteen(block, 18)));
        take(0, [s.wide_signed(a), s.wide_signed(b)], [one_half(s, block); 2]);
    }
}

impl Codes for Q4K {
    const MINS: bool = true;
    #[inline(always)]
    fn codes<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::I; 2], [S::T; 2])) {
        let (d, dmin) = (half(s, block, 0), half(s, block, 2));
        let (scales, mins) = scales_and_mins(block);
        for pair in 0..4 {
            let [a, b] = nibbles(s, sixteen(block, 16 + 32 * pair));
            let [c, e] = nibbles(s, sixteen(block, 32 + 32 * pair));
            for (run, low, high) in [(2 * pair, a, c), (2 * pair + 1, b, e)] {
                let (scale, min) = (d * f32::from(scales[run]), -dmin * f32::from(mins[run]));
                take(run, [s.wide(low), s.wide(high)], [s.two([scale, min]); 2]);
            }
        }
    }
}

impl Codes for Q6K {
    const HALVES: bool = true;
    #[inline(always)]
    fn codes<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::I; 2], [S::T; 2])) {
        let d = half(s, block, 208);
        for run in 0..8 {
            let (low, high) = (six_bits(s, block, run, 0), six_bits(s, block, run, 16));
            let scales = &block[192 + 2 * run..];
            let scale = |at: usize| s.two([d * f32::from(scales[at].cast_signed()), 0.0]);
            take(run, [s.minus(s.wide(low), 32), s.minus(s.wide(high), 32)], [scale(0), scale(1)]);
        }
    }
}

/// `with_codes!(format, U => for a format with codes, else otherwise)`.
macro_rules! with_codes {
    ($format:expr, $U:ident => $body:expr, else $other:expr) => {{
        use $crate::backend::cpu::unit as units;
        macro_rules! with {
            ($unit:ident) => {{
                type $U = units::$unit;
                $body
            }};
        }
        match $format {
            $crate::quant::Format::Q4_0 => with!(Q4_0),
            $crate::quant::Format::Q4_1 => with!(Q4_1),
            $crate::quant::Format::Q5_0 => with!(Q5_0),
            $crate::quant::Format::Q5_1 => with!(Q5_1),
            $crate::quant::Format::Q8_0 => with!(Q8_0),
            $crate::quant::Format::Q4_K => with!(Q4K),
            $crate::quant::Format::Q6_K => with!(Q6K),
            _ => $other,
        }
    }};
}
pub(super) use with_codes;

/// Whether products with this format can be taken in codes.
pub(super) fn has_codes(format: crate::quant::Format) -> bool {
    with_codes!(format, _U => true, else false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_within_half_a_step_and_keeps_what_is_no_number() {
        let mut x = crate::base::Seed::new(9).vector(96, 3.0);
        x[40] = 1000.0;
        x[64..].fill(0.0);
        let mut rounded = Rounded::default();
        rounded.set(&x);
        for (i, &x) in x.iter().enumerate() {
            let block = rounded.blocks[i / 32];
            let back = f32::from(rounded.codes[i / 32].as_flattened()[i % 32]) * block[0];
            assert!((back - x).abs() <= 0.5001 * block[0], "{x} became {back}");
        }
        assert_eq!(rounded.blocks[2][0], 0.0);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            x[70] = bad;
            rounded.set(&x);
            assert!(rounded.blocks[2][0].is_nan());
        }
    }
}
