//! Weights from file order to registers, 32 at a time: the same bits as [`Format::decode`], whose layouts these
//! are (see each format's file). A format without an entry here is decoded by its layout.

use crate::quant::Format;
use crate::quant::levels::UNEVEN;

pub(super) use super::imports::{E8p, Fp4, I4, I8, Nf4, Z2, Z4, Z8};
use super::simd::Simd;

/// Blocks whose elements come in runs of 32.
pub(super) trait Blocks {
    /// Elements of a block.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;
}

/// Blocks of a format.
pub(super) trait Unit: Blocks {
    /// Calls `take` with the number and the elements of each run of 32 of a block.
    fn decode<S: Simd>(s: S, block: &[u8], take: impl FnMut(usize, [S::V; 4]));
}

/// `with_unit!(format, U => with its unit, else without)`.
macro_rules! with_unit {
    ($format:expr, $U:ident => $body:expr, else $other:expr) => {{
        use $crate::backend::cpu::unit as units;
        macro_rules! with {
            ($unit:ident) => {{
                type $U = units::$unit;
                $body
            }};
        }
        match $format {
            $crate::quant::Format::F32 => with!(F32),
            $crate::quant::Format::F16 => with!(F16),
            $crate::quant::Format::BF16 => with!(Bf16),
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
            $crate::quant::Format::NF4 => with!(Nf4),
            $crate::quant::Format::FP4 => with!(Fp4),
            $crate::quant::Format::E8P => with!(E8p),
            $crate::quant::Format::IQ4_NL => with!(IQ4NL),
            $crate::quant::Format::TQ2_0 => with!(TQ2_0),
            #[allow(unreachable_patterns, reason = "the list of formats grows without this one")]
            _ => $other,
        }
    }};
}

/// Decodes whole blocks, or any number of elements of a format whose blocks are single elements. Compiled once for each
/// instruction set, as there are many formats.
#[inline(never)]
pub(super) fn decode<S: Simd>(s: S, format: Format, bytes: &[u8], out: &mut [f32]) {
    s.vectorize(
        #[inline(always)]
        || with_unit!(format, U => decode_units::<S, U>(s, format, bytes, out), else format.decode(bytes, out)),
    );
}

#[inline(always)]
fn decode_units<S: Simd, U: Unit>(s: S, format: Format, bytes: &[u8], out: &mut [f32]) {
    let (blocks, rest) = bytes.split_at(bytes.len() / U::BYTES * U::BYTES);
    let (whole, out_rest) = out.split_at_mut(blocks.len() / U::BYTES * U::LEN);
    for (block, out) in blocks.chunks_exact(U::BYTES).zip(whole.chunks_exact_mut(U::LEN)) {
        let (out, _) = out.as_chunks_mut::<8>();
        let (out, _) = out.as_chunks_mut::<4>();
        U::decode(
            s,
            block,
            #[inline(always)]
            |unit, w| {
                let out = &mut out[unit];
                w.into_iter().zip(out).for_each(
                    #[inline(always)]
                    |(w, out)| s.store(w, out),
                );
            },
        );
    }
    if !rest.is_empty() {
        format.decode(rest, out_rest);
    }
}

/// Bytes `at .. at + 16`.
#[inline(always)]
pub(super) fn sixteen(bytes: &[u8], at: usize) -> &[u8; 16] {
    bytes[at..].first_chunk().expect("a block is longer")
}

#[inline(always)]
pub(super) fn half<S: Simd>(s: S, bytes: &[u8], at: usize) -> f32 {
    s.half_bits(u16::from_le_bytes(*bytes[at..].first_chunk().expect("a block is longer")))
}

#[inline(always)]
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("a block is longer"))
}

/// `q·d + m` for two runs of sixteen codes.
#[inline(always)]
pub(super) fn affine<S: Simd>(s: S, q: [S::B; 2], d: f32, m: f32) -> [S::V; 4] {
    let (d, m) = (s.splat(d), s.splat(m));
    let ([a, b], [c, e]) = (s.unsigned(q[0]), s.unsigned(q[1]));
    [s.fma(a, d, m), s.fma(b, d, m), s.fma(c, d, m), s.fma(e, d, m)]
}

#[inline(always)]
pub(super) fn nibbles<S: Simd>(s: S, bytes: &[u8; 16]) -> [S::B; 2] {
    let b = s.bytes(bytes);
    [s.low(b), s.high(b)]
}

#[inline(always)]
pub(super) fn five_bits<S: Simd>(s: S, fifths: u32, bytes: &[u8; 16]) -> [S::B; 2] {
    let [low, high] = nibbles(s, bytes);
    [s.with::<4>(low, s.spread(fifths as u16)), s.with::<4>(high, s.spread((fifths >> 16) as u16))]
}

pub(super) struct F32;
impl Blocks for F32 {
    const LEN: usize = 32;
    const BYTES: usize = 128;
}
impl Unit for F32 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        take(0, [full(s, block, 0), full(s, block, 32), full(s, block, 64), full(s, block, 96)]);
    }
}

/// Eight f32 from byte `at` on.
#[inline(always)]
fn full<S: Simd>(s: S, block: &[u8], at: usize) -> S::V {
    let words = block[at..].as_chunks::<4>().0;
    let mut values = [0.0; 8];
    for (value, word) in values.iter_mut().zip(words) {
        *value = f32::from_le_bytes(*word);
    }
    s.load(&values)
}

pub(super) struct F16;
impl Blocks for F16 {
    const LEN: usize = 32;
    const BYTES: usize = 64;
}
impl Unit for F16 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let eights = block.as_chunks::<16>().0;
        take(0, [s.half(&eights[0]), s.half(&eights[1]), s.half(&eights[2]), s.half(&eights[3])]);
    }
}

pub(super) struct Bf16;
impl Blocks for Bf16 {
    const LEN: usize = 32;
    const BYTES: usize = 64;
}
impl Unit for Bf16 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let eights = block.as_chunks::<16>().0;
        take(0, [s.upper(&eights[0]), s.upper(&eights[1]), s.upper(&eights[2]), s.upper(&eights[3])]);
    }
}

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct Q4_0;
impl Blocks for Q4_0 {
    const LEN: usize = 32;
    const BYTES: usize = 18;
}
impl Unit for Q4_0 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let d = half(s, block, 0);
        take(0, affine(s, nibbles(s, sixteen(block, 2)), d, -8.0 * d));
    }
}

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct Q4_1;
impl Blocks for Q4_1 {
    const LEN: usize = 32;
    const BYTES: usize = 20;
}
impl Unit for Q4_1 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        take(0, affine(s, nibbles(s, sixteen(block, 4)), half(s, block, 0), half(s, block, 2)));
    }
}

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct Q5_0;
impl Blocks for Q5_0 {
    const LEN: usize = 32;
    const BYTES: usize = 22;
}
impl Unit for Q5_0 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let d = half(s, block, 0);
        take(0, affine(s, five_bits(s, word(block, 2), sixteen(block, 6)), d, -16.0 * d));
    }
}

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct Q5_1;
impl Blocks for Q5_1 {
    const LEN: usize = 32;
    const BYTES: usize = 24;
}
impl Unit for Q5_1 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let q = five_bits(s, word(block, 4), sixteen(block, 8));
        take(0, affine(s, q, half(s, block, 0), half(s, block, 2)));
    }
}

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct Q8_0;
impl Blocks for Q8_0 {
    const LEN: usize = 32;
    const BYTES: usize = 34;
}
impl Unit for Q8_0 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let d = s.splat(half(s, block, 0));
        let [a, b] = s.signed(s.bytes(sixteen(block, 2)));
        let [c, e] = s.signed(s.bytes(sixteen(block, 18)));
        take(0, [s.mul(a, d), s.mul(b, d), s.mul(c, d), s.mul(e, d)]);
    }
}

pub(super) struct Q2K;
impl Blocks for Q2K {
    const LEN: usize = 256;
    const BYTES: usize = 84;
}
impl Unit for Q2K {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let (d, dmin) = (half(s, block, 80), half(s, block, 82));
        for unit in 0..8 {
            let mut sixteens = [[s.splat(0.0); 2]; 2];
            for (i, values) in sixteens.iter_mut().enumerate() {
                let (q, group) = (pairs(s, block, 16, unit, 16 * i), block[2 * unit + i]);
                let (d, m) = (d * f32::from(group & 15), -dmin * f32::from(group >> 4));
                let (d, m, [a, b]) = (s.splat(d), s.splat(m), s.unsigned(q));
                *values = [s.fma(a, d, m), s.fma(b, d, m)];
            }
            let [[a, b], [c, e]] = sixteens;
            take(unit, [a, b, c, e]);
        }
    }
}

/// Sixteen 2-bit codes of run `unit` from its element `at` on, of codes that begin at byte `start`: 32 bytes hold those
/// of four runs.
#[inline(always)]
fn pairs<S: Simd>(s: S, block: &[u8], start: usize, unit: usize, at: usize) -> S::B {
    let bytes = s.bytes(sixteen(block, start + 32 * (unit / 4) + at));
    let bytes = match unit % 4 {
        0 => bytes,
        1 => s.shift::<2>(bytes),
        2 => s.shift::<4>(bytes),
        _ => s.shift::<6>(bytes),
    };
    s.and(bytes, 3)
}

/// Bit `bit` of the sixteen bytes from `at` on.
#[inline(always)]
fn bits<S: Simd>(s: S, block: &[u8], at: usize, bit: usize) -> S::B {
    let bytes = s.bytes(sixteen(block, at));
    let bytes = match bit {
        0 => bytes,
        1 => s.shift::<1>(bytes),
        2 => s.shift::<2>(bytes),
        3 => s.shift::<3>(bytes),
        4 => s.shift::<4>(bytes),
        5 => s.shift::<5>(bytes),
        6 => s.shift::<6>(bytes),
        _ => s.shift::<7>(bytes),
    };
    s.and(bytes, 1)
}

pub(super) struct Q3K;
impl Blocks for Q3K {
    const LEN: usize = 256;
    const BYTES: usize = 110;
}
impl Unit for Q3K {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let d = half(s, block, 108);
        for unit in 0..8 {
            let mut sixteens = [[s.splat(0.0); 2]; 2];
            for (i, values) in sixteens.iter_mut().enumerate() {
                let high = bits(s, block, 16 * i, unit);
                let q = s.with::<2>(pairs(s, block, 32, unit, 16 * i), high);
                // The layout of `quant::q3_k`.
                let group = 2 * unit + i;
                let low = block[96 + group % 8] >> (4 * (group / 8)) & 15;
                let scale = low | (block[104 + group % 4] >> (2 * (group / 4)) & 3) << 4;
                let d = d * (f32::from(scale) - 32.0);
                let (m, d, [a, b]) = (s.splat(-4.0 * d), s.splat(d), s.unsigned(q));
                *values = [s.fma(a, d, m), s.fma(b, d, m)];
            }
            let [[a, b], [c, e]] = sixteens;
            take(unit, [a, b, c, e]);
        }
    }
}

pub(super) struct Q5K;
impl Blocks for Q5K {
    const LEN: usize = 256;
    const BYTES: usize = 176;
}
impl Unit for Q5K {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let (d, dmin) = (half(s, block, 0), half(s, block, 2));
        let (scales, mins) = scales_and_mins(block);
        for unit in 0..8 {
            let q = [0, 16].map(
                #[inline(always)]
                |at| {
                    let b = s.bytes(sixteen(block, 48 + 32 * (unit / 2) + at));
                    let nibbles = if unit.is_multiple_of(2) { s.low(b) } else { s.high(b) };
                    s.with::<4>(nibbles, bits(s, block, 16 + at, unit))
                },
            );
            take(unit, affine(s, q, d * f32::from(scales[unit]), -dmin * f32::from(mins[unit])));
        }
    }
}

pub(super) struct IQ4NL;
impl Blocks for IQ4NL {
    const LEN: usize = 32;
    const BYTES: usize = 18;
}
impl Unit for IQ4NL {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let d = s.splat(half(s, block, 0));
        let [a, b] = nibbles(s, sixteen(block, 2));
        let ([a, b], [c, e]) = (s.signed(s.table(a, &UNEVEN)), s.signed(s.table(b, &UNEVEN)));
        take(0, [s.mul(a, d), s.mul(b, d), s.mul(c, d), s.mul(e, d)]);
    }
}

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct TQ2_0;
impl Blocks for TQ2_0 {
    const LEN: usize = 256;
    const BYTES: usize = 66;
}
impl Unit for TQ2_0 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let d = half(s, block, 64);
        for unit in 0..8 {
            take(unit, affine(s, [pairs(s, block, 0, unit, 0), pairs(s, block, 0, unit, 16)], d, -d));
        }
    }
}

pub(super) struct Q4K;
impl Blocks for Q4K {
    const LEN: usize = 256;
    const BYTES: usize = 144;
}
impl Unit for Q4K {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let (d, dmin) = (half(s, block, 0), half(s, block, 2));
        let (scales, mins) = scales_and_mins(block);
        for pair in 0..4 {
            let [a, b] = nibbles(s, sixteen(block, 16 + 32 * pair));
            let [c, e] = nibbles(s, sixteen(block, 32 + 32 * pair));
            for (group, q) in [(2 * pair, [a, c]), (2 * pair + 1, [b, e])] {
                take(group, affine(s, q, d * f32::from(scales[group]), -dmin * f32::from(mins[group])));
            }
        }
    }
}

/// The 6-bit scales and minimums of a `q4_k` block's groups: the first four of each in the low 6 bits of bytes
/// 4 .. 8 and 8 .. 12, the rest in the nibbles of bytes 12 .. 16 under the top 2 bits of the former.
#[inline(always)]
pub(super) fn scales_and_mins(block: &[u8]) -> ([u8; 8], [u8; 8]) {
    const LOW6: u32 = 0x3f3f_3f3f;
    const LOW4: u32 = 0x0f0f_0f0f;
    const TOP2: u32 = 0x3030_3030;
    let (a, b, c) = (word(block, 4), word(block, 8), word(block, 12));
    (eight(a & LOW6, c & LOW4 | a >> 2 & TOP2), eight(b & LOW6, c >> 4 & LOW4 | b >> 2 & TOP2))
}

#[inline(always)]
fn eight(low: u32, high: u32) -> [u8; 8] {
    (u64::from(low) | u64::from(high) << 32).to_le_bytes()
}

pub(super) struct Q6K;
impl Blocks for Q6K {
    const LEN: usize = 256;
    const BYTES: usize = 210;
}
impl Unit for Q6K {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let d = half(s, block, 208);
        for unit in 0..8 {
            let (q, p) = (six_bits(s, block, unit, 0), six_bits(s, block, unit, 16));
            let scales = &block[192 + 2 * unit..];
            let (first, second) =
                (d * f32::from(scales[0].cast_signed()), d * f32::from(scales[1].cast_signed()));
            let [a, b] = half_affine(s, q, first);
            let [c, e] = half_affine(s, p, second);
            take(unit, [a, b, c, e]);
        }
    }
}

/// Sixteen codes of run `unit` of a `q6_k` block, from its element `at` on.
#[inline(always)]
pub(super) fn six_bits<S: Simd>(s: S, block: &[u8], unit: usize, at: usize) -> S::B {
    let (side, quarter) = (unit / 4, unit % 4);
    let low = s.bytes(sixteen(block, 64 * side + 32 * (quarter % 2) + at));
    let low = if quarter < 2 { s.low(low) } else { s.high(low) };
    let high = s.bytes(sixteen(block, 128 + 32 * side + at));
    let high = match quarter {
        0 => high,
        1 => s.shift::<2>(high),
        2 => s.shift::<4>(high),
        _ => s.shift::<6>(high),
    };
    s.with::<4>(low, s.and(high, 3))
}

#[inline(always)]
fn half_affine<S: Simd>(s: S, q: S::B, scale: f32) -> [S::V; 2] {
    let (d, m, [a, b]) = (s.splat(scale), s.splat(-32.0 * scale), s.unsigned(q));
    [s.fma(a, d, m), s.fma(b, d, m)]
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Isa, dispatch};
    use super::*;
    use crate::base::Seed;

    #[test]
    fn registers_hold_the_bits_of_the_layout() {
        let mut seed = Seed::new(11);
        for isa in Isa::all() {
            for &format in Format::ALL {
                let len = if format.block_len() == 1 { 77 } else { 3 * format.block_len() };
                let mut bytes = format.encode(&seed.vector(len, 1.0));
                if format.block_len() > 1 {
                    // Any code, any small scale; no half that is infinite or NaN.
                    bytes.iter_mut().for_each(|byte| *byte ^= seed.bits() as u8 & 0xbb);
                }
                let (mut expected, mut got) = (vec![0.0; len], vec![0.0; len]);
                format.decode(&bytes, &mut expected);
                dispatch!(isa, s => decode(s, format, &bytes, &mut got));
                let bits = |values: &[f32]| values.iter().map(|v| (v + 0.0).to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&got), bits(&expected), "{format} {}", isa.name());
                // What weighs much in every layout: codes, a scale, the exponent of a float.
                bytes[if format.block_len() == 1 { format.block_bytes() - 1 } else { 3 }] ^= 0x10;
                dispatch!(isa, s => decode(s, format, &bytes, &mut got));
                assert_ne!(bits(&got), bits(&expected), "a planted fault in {format}");
            }
        }
    }
}
