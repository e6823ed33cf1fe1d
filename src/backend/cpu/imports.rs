//! Units of the formats that imports become: scales and zero points in f32.

use crate::quant::{FP4_TABLE, NF4_TABLE};

use super::simd::Simd;
use super::unit::{Blocks, Unit, affine, nibbles, sixteen, word};

#[inline(always)]
fn float(bytes: &[u8], at: usize) -> f32 {
    f32::from_bits(word(bytes, at))
}

pub(super) struct I4;
impl Blocks for I4 {
    const LEN: usize = 32;
    const BYTES: usize = 20;
}
impl Unit for I4 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let [low, high] = nibbles(s, sixteen(block, 4));
        let ([a, b], [c, e]) = (s.unsigned(low), s.unsigned(high));
        take(0, above(s, [a, b, c, e], float(block, 0), 8.0));
    }
}

pub(super) struct I8;
impl Blocks for I8 {
    const LEN: usize = 32;
    const BYTES: usize = 36;
}
impl Unit for I8 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let [a, b] = s.signed(s.bytes(sixteen(block, 4)));
        let [c, e] = s.signed(s.bytes(sixteen(block, 20)));
        take(0, above(s, [a, b, c, e], float(block, 0), 0.0));
    }
}

/// `(q − z)·d` for 32 codes.
#[inline(always)]
fn above<S: Simd>(s: S, [a, b, c, e]: [S::V; 4], d: f32, z: f32) -> [S::V; 4] {
    let (d, z) = (s.splat(d), s.splat(-z));
    [s.mul(s.add(a, z), d), s.mul(s.add(b, z), d), s.mul(s.add(c, z), d), s.mul(s.add(e, z), d)]
}

pub(super) struct Z2;
impl Blocks for Z2 {
    const LEN: usize = 32;
    const BYTES: usize = 16;
}
impl Unit for Z2 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let mut codes = [[0.0; 8]; 4];
        for e in 0..32 {
            codes[e / 8][e % 8] = f32::from(block[8 + 4 * (e / 16) + e % 4] >> (2 * (e % 16 / 4)) & 3);
        }
        let [a, b, c, e] = codes;
        let codes = [s.load(&a), s.load(&b), s.load(&c), s.load(&e)];
        take(0, above(s, codes, float(block, 0), float(block, 4)));
    }
}

pub(super) struct Z4;
impl Blocks for Z4 {
    const LEN: usize = 32;
    const BYTES: usize = 24;
}
impl Unit for Z4 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let [low, high] = nibbles(s, sixteen(block, 8));
        let ([a, b], [c, e]) = (s.unsigned(low), s.unsigned(high));
        take(0, above(s, [a, b, c, e], float(block, 0), float(block, 4)));
    }
}

pub(super) struct Z8;
impl Blocks for Z8 {
    const LEN: usize = 32;
    const BYTES: usize = 40;
}
impl Unit for Z8 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        let [a, b] = s.signed(s.bytes(sixteen(block, 8)));
        let [c, e] = s.signed(s.bytes(sixteen(block, 24)));
        take(0, above(s, [a, b, c, e], float(block, 0), float(block, 4)));
    }
}

pub(super) struct E8p;
impl Blocks for E8p {
    const LEN: usize = 32;
    const BYTES: usize = 16;
}
impl Unit for E8p {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        take(0, affine(s, nibbles(s, sixteen(block, 0)), 0.5, -3.75));
    }
}

/// `T[q]·d` for 32 codes.
#[inline(always)]
fn chosen<S: Simd>(s: S, table: &[f32; 16], block: &[u8]) -> [S::V; 4] {
    let mut values = [[0.0; 8]; 4];
    for (j, &byte) in sixteen(block, 4).iter().enumerate() {
        values[j / 8][j % 8] = table[usize::from(byte & 15)];
        values[2 + j / 8][j % 8] = table[usize::from(byte >> 4)];
    }
    let [a, b, c, e] = values;
    above(s, [s.load(&a), s.load(&b), s.load(&c), s.load(&e)], float(block, 0), 0.0)
}

pub(super) struct Nf4;
impl Blocks for Nf4 {
    const LEN: usize = 32;
    const BYTES: usize = 20;
}
impl Unit for Nf4 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        take(0, chosen(s, &NF4_TABLE, block));
    }
}

pub(super) struct Fp4;
impl Blocks for Fp4 {
    const LEN: usize = 32;
    const BYTES: usize = 20;
}
impl Unit for Fp4 {
    #[inline(always)]
    fn decode<S: Simd>(s: S, block: &[u8], mut take: impl FnMut(usize, [S::V; 4])) {
        take(0, chosen(s, &FP4_TABLE, block));
    }
}
