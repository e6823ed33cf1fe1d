//! NEON: every 64-bit Arm processor that runs an operating system; with dot products of bytes, those since 2018
//! (Cortex-A75 and A55, Apple A11), few exceptions.
//!
//! The matrix products of bytes (i8mm) are left out. One of them multiplies two rows of eight bytes with two of the
//! same, and here eight bytes are the two parts of a number's quads: 32 instructions a run in place of the 64 dot
//! products. But a register holds four rows of four bytes, so that the weights have to be interleaved first, 32
//! instructions more, and the sums afterwards. That loses for one row of activations, and wins a fifth of the
//! instructions for four; what would gain is an order of packed weights with eight bytes of a row together.
//!
//! SAFETY of this file: a [`Neon`] is made only by its `find`, which asked the processor, so the
//! instructions of every intrinsic here exist; loads and stores go through references to arrays of their size.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use half::slice::HalfFloatSliceExt;

use super::{Code, Run, Simd};

/// The proof that NEON is there, and where `DOTS` its dot products of bytes.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Neon<const DOTS: bool>(());

impl Neon<false> {
    /// The proof, where the processor has the instructions.
    pub(in super::super) fn find() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

impl Neon<true> {
    /// The proof, where the processor has the instructions.
    pub(in super::super) fn find() -> Option<Self> {
        let all = is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod");
        all.then_some(Self(()))
    }
}

/// Two registers of four.
#[derive(Clone, Copy)]
pub(in super::super) struct Eight(float32x4_t, float32x4_t);

/// An expression of intrinsics.
macro_rules! neon {
    ($body:expr) => {{
        // SAFETY: see the module.
        unsafe { $body }
    }};
}

#[inline]
#[target_feature(enable = "neon")]
fn compiled<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn compiled_with_dots<R>(f: impl FnOnce() -> R) -> R {
    f()
}

impl<const DOTS: bool> Simd for Neon<DOTS> {
    type V = Eight;
    type B = uint8x16_t;
    type Lanes = [Eight; 2];
    type Sums = [int32x4_t; 4];
    type Quads = [uint8x16_t; 4];

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        if DOTS { neon!(compiled_with_dots(f)) } else { neon!(compiled(f)) }
    }
    #[inline(always)]
    fn splat(self, value: f32) -> Eight {
        neon!(Eight(vdupq_n_f32(value), vdupq_n_f32(value)))
    }
    #[inline(always)]
    fn load(self, values: &[f32; 8]) -> Eight {
        neon!(Eight(vld1q_f32(values.as_ptr()), vld1q_f32(values[4..].as_ptr())))
    }
    #[inline(always)]
    fn store(self, v: Eight, values: &mut [f32; 8]) {
        neon!({
            vst1q_f32(values.as_mut_ptr(), v.0);
            vst1q_f32(values[4..].as_mut_ptr(), v.1);
        });
    }
    #[inline(always)]
    fn add(self, a: Eight, b: Eight) -> Eight {
        neon!(Eight(vaddq_f32(a.0, b.0), vaddq_f32(a.1, b.1)))
    }
    #[inline(always)]
    fn mul(self, a: Eight, b: Eight) -> Eight {
        neon!(Eight(vmulq_f32(a.0, b.0), vmulq_f32(a.1, b.1)))
    }
    #[inline(always)]
    fn fma(self, a: Eight, b: Eight, c: Eight) -> Eight {
        neon!(Eight(vfmaq_f32(c.0, a.0, b.0), vfmaq_f32(c.1, a.1, b.1)))
    }
    #[inline(always)]
    fn div(self, a: Eight, b: Eight) -> Eight {
        neon!(Eight(vdivq_f32(a.0, b.0), vdivq_f32(a.1, b.1)))
    }
    #[inline(always)]
    fn at_least(self, v: Eight, low: Eight) -> Eight {
        neon!(Eight(vmaxq_f32(v.0, low.0), vmaxq_f32(v.1, low.1)))
    }
    #[inline(always)]
    fn at_most(self, v: Eight, high: Eight) -> Eight {
        neon!(Eight(vminq_f32(v.0, high.0), vminq_f32(v.1, high.1)))
    }
    #[inline(always)]
    fn round(self, v: Eight) -> Eight {
        neon!(Eight(vrndnq_f32(v.0), vrndnq_f32(v.1)))
    }
    #[inline(always)]
    fn exp2(self, n: Eight) -> Eight {
        neon!({
            let four = |n: float32x4_t| {
                let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
            };
            Eight(four(n.0), four(n.1))
        })
    }
    #[inline(always)]
    fn sum(self, v: Eight) -> f32 {
        neon!(vaddvq_f32(vaddq_f32(v.0, v.1)))
    }
    #[inline(always)]
    fn max(self, v: Eight) -> f32 {
        neon!(vmaxnmvq_f32(vmaxnmq_f32(v.0, v.1)))
    }
    #[inline(always)]
    fn half_bits(self, bits: u16) -> f32 {
        half::f16::from_bits(bits).to_f32()
    }
    #[inline(always)]
    fn half(self, bytes: &[u8; 16]) -> Eight {
        let halves: [half::f16; 8] = bytemuck::cast(*bytes);
        let mut values = [0.0; 8];
        halves.convert_to_f32_slice(&mut values);
        self.load(&values)
    }
    #[inline(always)]
    fn upper(self, bytes: &[u8; 16]) -> Eight {
        neon!({
            let halves = vreinterpretq_u16_u8(self.bytes(bytes));
            let low = vshll_n_u16::<16>(vget_low_u16(halves));
            let high = vshll_n_u16::<16>(vget_high_u16(halves));
            Eight(vreinterpretq_f32_u32(low), vreinterpretq_f32_u32(high))
        })
    }
    #[inline(always)]
    fn bytes(self, bytes: &[u8; 16]) -> uint8x16_t {
        neon!(vld1q_u8(bytes.as_ptr()))
    }
    #[inline(always)]
    fn low(self, b: uint8x16_t) -> uint8x16_t {
        self.and(b, 15)
    }
    #[inline(always)]
    fn high(self, b: uint8x16_t) -> uint8x16_t {
        neon!(vshrq_n_u8::<4>(b))
    }
    #[inline(always)]
    fn shift<const N: i32>(self, b: uint8x16_t) -> uint8x16_t {
        neon!(vshlq_u8(b, vdupq_n_s8(-N as i8)))
    }
    #[inline(always)]
    fn and(self, b: uint8x16_t, mask: u8) -> uint8x16_t {
        neon!(vandq_u8(b, vdupq_n_u8(mask)))
    }
    #[inline(always)]
    fn with<const N: i32>(self, b: uint8x16_t, c: uint8x16_t) -> uint8x16_t {
        neon!(vorrq_u8(b, vshlq_u8(c, vdupq_n_s8(N as i8))))
    }
    #[inline(always)]
    fn spread(self, bits: u16) -> uint8x16_t {
        const BIT: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
        neon!({
            let bytes = vcombine_u8(vdup_n_u8(bits as u8), vdup_n_u8((bits >> 8) as u8));
            self.and(vtstq_u8(bytes, vld1q_u8(BIT.as_ptr())), 1)
        })
    }
    #[inline(always)]
    fn table(self, b: uint8x16_t, table: &[i8; 16]) -> uint8x16_t {
        neon!(vqtbl1q_u8(vld1q_u8(table.as_ptr().cast()), b))
    }
    #[inline(always)]
    fn unsigned(self, b: uint8x16_t) -> [Eight; 2] {
        neon!({
            let eight = |half: uint16x8_t| {
                let (low, high) = (vmovl_u16(vget_low_u16(half)), vmovl_u16(vget_high_u16(half)));
                Eight(vcvtq_f32_u32(low), vcvtq_f32_u32(high))
            };
            [eight(vmovl_u8(vget_low_u8(b))), eight(vmovl_u8(vget_high_u8(b)))]
        })
    }
    #[inline(always)]
    fn signed(self, b: uint8x16_t) -> [Eight; 2] {
        neon!({
            let b = vreinterpretq_s8_u8(b);
            let eight = |half: int16x8_t| {
                let (low, high) = (vmovl_s16(vget_low_s16(half)), vmovl_s16(vget_high_s16(half)));
                Eight(vcvtq_f32_s32(low), vcvtq_f32_s32(high))
            };
            [eight(vmovl_s8(vget_low_s8(b))), eight(vmovl_s8(vget_high_s8(b)))]
        })
    }
    #[inline(always)]
    fn quads(self, bytes: &[u8; 64]) -> [uint8x16_t; 4] {
        let (fours, _) = bytes.as_chunks::<16>();
        [self.bytes(&fours[0]), self.bytes(&fours[1]), self.bytes(&fours[2]), self.bytes(&fours[3])]
    }
    #[inline(always)]
    fn quads_and(self, [a, b, c, d]: [uint8x16_t; 4], mask: u8) -> [uint8x16_t; 4] {
        [self.and(a, mask), self.and(b, mask), self.and(c, mask), self.and(d, mask)]
    }
    #[inline(always)]
    fn quads_or(self, a: [uint8x16_t; 4], b: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        neon!([vorrq_u8(a[0], b[0]), vorrq_u8(a[1], b[1]), vorrq_u8(a[2], b[2]), vorrq_u8(a[3], b[3])])
    }
    #[inline(always)]
    fn quads_left<const N: i32>(self, [a, b, c, d]: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        neon!({
            let by = vdupq_n_s8(N as i8);
            [vshlq_u8(a, by), vshlq_u8(b, by), vshlq_u8(c, by), vshlq_u8(d, by)]
        })
    }
    #[inline(always)]
    fn quads_right<const N: i32>(self, [a, b, c, d]: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        [self.shift::<N>(a), self.shift::<N>(b), self.shift::<N>(c), self.shift::<N>(d)]
    }
    #[inline(always)]
    fn quads_table(self, q: [uint8x16_t; 4], table: &[i8; 16]) -> [uint8x16_t; 4] {
        q.map(
            #[inline(always)]
            |q| self.table(q, table),
        )
    }
    #[inline(always)]
    fn quads_bits(self, q: [uint8x16_t; 4], at: usize) -> [uint8x16_t; 4] {
        let bit: u32 = if at.is_multiple_of(8) { 0x0804_0201 } else { 0x8040_2010 };
        neon!({
            let places: [u32; 4] = [0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c];
            let byte = vdupq_n_u8((at / 8) as u8);
            let places = vaddq_u8(vreinterpretq_u8_u32(vld1q_u32(places.as_ptr())), byte);
            let bit = vreinterpretq_u8_u32(vdupq_n_u32(bit));
            let mut bits = q;
            for i in 0..4 {
                bits[i] = vandq_u8(vtstq_u8(vqtbl1q_u8(q[i], places), bit), vdupq_n_u8(1));
            }
            bits
        })
    }
    #[inline(always)]
    fn quads_byte(self, [a, b, c, d]: [uint8x16_t; 4], at: usize) -> [Eight; 2] {
        let four = |q: uint8x16_t| {
            neon!({
                let shifted = vshlq_u32(vreinterpretq_u32_u8(q), vdupq_n_s32(-8 * at as i32));
                vcvtq_f32_u32(vandq_u32(shifted, vdupq_n_u32(0xff)))
            })
        };
        [Eight(four(a), four(b)), Eight(four(c), four(d))]
    }
    #[inline(always)]
    fn dot_quads<const N: usize>(
        self,
        w: &[[uint8x16_t; 4]],
        x: &Run,
        at: usize,
        codes: Code,
    ) -> [int32x4_t; 4] {
        let mut sums = if DOTS { dots_of_bytes::<N>(w, x, at) } else { dots_of_words::<N>(w, x, at, codes) };
        let start = x.sum::<N>(at).wrapping_mul(-codes.offset);
        for sums in &mut sums {
            *sums = neon!(vaddq_s32(*sums, vdupq_n_s32(start)));
        }
        sums
    }
    #[inline(always)]
    fn no_lanes(self) -> [Eight; 2] {
        [self.splat(0.0); 2]
    }
    #[inline(always)]
    fn lanes(self, bytes: &[u8; 64]) -> [Eight; 2] {
        let values: [[f32; 8]; 2] = bytemuck::pod_read_unaligned(bytes);
        [self.load(&values[0]), self.load(&values[1])]
    }
    #[inline(always)]
    fn lanes_half(self, bytes: &[u8; 32]) -> [Eight; 2] {
        let (eights, _) = bytes.as_chunks::<16>();
        [self.half(&eights[0]), self.half(&eights[1])]
    }
    #[inline(always)]
    fn lanes_full(self, bytes: &[u8; 64]) -> [Eight; 2] {
        let mut values = [[0.0; 8]; 2];
        for (value, word) in values.as_flattened_mut().iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*word);
        }
        [self.load(&values[0]), self.load(&values[1])]
    }
    #[inline(always)]
    fn lanes_signed(self, bytes: &[u8; 16]) -> [Eight; 2] {
        self.signed(self.bytes(bytes))
    }
    #[inline(always)]
    fn lanes_mul(self, a: [Eight; 2], b: [Eight; 2]) -> [Eight; 2] {
        [self.mul(a[0], b[0]), self.mul(a[1], b[1])]
    }
    #[inline(always)]
    fn store_lanes(self, lanes: [Eight; 2], values: &mut [f32; 16]) {
        let (eights, _) = values.as_chunks_mut::<8>();
        self.store(lanes[0], &mut eights[0]);
        self.store(lanes[1], &mut eights[1]);
    }
    #[inline(always)]
    fn add_scaled(self, to: [Eight; 2], sums: Self::Sums, scales: [Eight; 2], x: f32) -> [Eight; 2] {
        let (x, [a, b, c, d]) = (self.splat(x), sums);
        let float = |a, b| neon!(Eight(vcvtq_f32_s32(a), vcvtq_f32_s32(b)));
        [
            self.fma(float(a, b), self.mul(scales[0], x), to[0]),
            self.fma(float(c, d), self.mul(scales[1], x), to[1]),
        ]
    }
    #[inline(always)]
    fn add_times(self, to: [Eight; 2], a: [Eight; 2], x: f32) -> [Eight; 2] {
        let x = self.splat(x);
        [self.fma(a[0], x, to[0]), self.fma(a[1], x, to[1])]
    }
}

/// Σ code · number of `N` quads, by dot products of bytes: a code of fewer than 8 bits is a signed byte, too. Called
/// where they are there.
#[inline(always)]
fn dots_of_bytes<const N: usize>(w: &[[uint8x16_t; 4]], x: &Run, at: usize) -> [int32x4_t; 4] {
    let (mut high, mut low) = neon!(([vdupq_n_s32(0); 4], [vdupq_n_s32(0); 4]));
    for four in 0..N / 4 {
        let bytes = |quads: &[[i8; 4]; 8]| {
            let (fours, _) = quads.as_chunks::<4>();
            neon!(vld1q_s8(fours[at / 4 + four].as_ptr().cast()))
        };
        let (w, x) = (&w[4 * four..], [bytes(&x.high), bytes(&x.low)]);
        // A sum waits for the last one in its place; those of the other places are taken between.
        neon!({
            add_dots::<0>(&mut high, &w[0], x[0]);
            add_dots::<0>(&mut low, &w[0], x[1]);
            add_dots::<1>(&mut high, &w[1], x[0]);
            add_dots::<1>(&mut low, &w[1], x[1]);
            add_dots::<2>(&mut high, &w[2], x[0]);
            add_dots::<2>(&mut low, &w[2], x[1]);
            add_dots::<3>(&mut high, &w[3], x[0]);
            add_dots::<3>(&mut low, &w[3], x[1]);
        });
    }
    for i in 0..4 {
        low[i] = neon!(vaddq_s32(low[i], vshlq_n_s32::<8>(high[i])));
    }
    low
}

/// To each lane of `sums` the dot product of its four bytes with quad `AT` of `x`, all signed. The intrinsic of the
/// instruction is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_dots<const AT: i32>(sums: &mut [int32x4_t; 4], quads: &[uint8x16_t; 4], x: int8x16_t) {
    for (sums, quads) in sums.iter_mut().zip(quads) {
        // SAFETY: the instruction is there, and touches these registers only.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {quads:v}.16b, {x:v}.4b[{at}]",
                sums = inout(vreg) *sums,
                quads = in(vreg) *quads,
                x = in(vreg) x,
                at = const AT,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
    }
}

/// Σ code · number of `N` quads, by products of words.
#[inline(always)]
fn dots_of_words<const N: usize>(w: &[[uint8x16_t; 4]], x: &Run, at: usize, codes: Code) -> [int32x4_t; 4] {
    // Products of each lane's four weights side by side, added up at the end.
    let mut products = neon!([[vdupq_n_s32(0); 4]; 4]);
    for i in 0..N {
        let number = |j: usize| 256 * i16::from(x.high[at + i][j]) + i16::from(x.low[at + i][j]);
        let numbers = [number(0), number(1), number(2), number(3)];
        neon!({
            let x = vld1_s16(numbers.as_ptr());
            for four in 0..4 {
                let w = w[i][four];
                let (a, b) = if codes.bits == 8 {
                    let w = vreinterpretq_s8_u8(w);
                    (vmovl_s8(vget_low_s8(w)), vmovl_s8(vget_high_s8(w)))
                } else {
                    let (a, b) = (vmovl_u8(vget_low_u8(w)), vmovl_u8(vget_high_u8(w)));
                    (vreinterpretq_s16_u16(a), vreinterpretq_s16_u16(b))
                };
                let sums = &mut products[four];
                sums[0] = vmlal_s16(sums[0], vget_low_s16(a), x);
                sums[1] = vmlal_s16(sums[1], vget_high_s16(a), x);
                sums[2] = vmlal_s16(sums[2], vget_low_s16(b), x);
                sums[3] = vmlal_s16(sums[3], vget_high_s16(b), x);
            }
        });
    }
    neon!(products.map(|[a, b, c, d]| vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))))
}
