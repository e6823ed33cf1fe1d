//! NEON: every 64-bit Arm processor that runs an operating system.
//!
//! SAFETY of this file: a [`Neon`] is made only by [`Neon::find`], which asked the processor, so the
//! instructions of every intrinsic here exist; loads and stores go through references to arrays of their size.

use std::arch::aarch64::*;

use half::slice::HalfFloatSliceExt;

use super::Simd;

/// The proof that NEON is there.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Neon(());

impl Neon {
    /// The proof, where the processor has the instructions.
    pub(in super::super) fn find() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
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

impl Simd for Neon {
    type V = Eight;
    type B = uint8x16_t;
    type I = (int16x8_t, int16x8_t);
    type D = (int32x4_t, int32x4_t);
    type T = float32x2_t;
    type Lanes = [Eight; 2];
    type Sums = [int32x4_t; 4];
    /// The first codes of eight pairs, and the second, twice.
    type Pairs = [int16x8x2_t; 2];
    type Pair = [i16; 2];

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        neon!(compiled(f))
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
    fn wide(self, b: uint8x16_t) -> Self::I {
        neon!((
            vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(b))),
            vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(b)))
        ))
    }
    #[inline(always)]
    fn wide_signed(self, b: uint8x16_t) -> Self::I {
        neon!({
            let b = vreinterpretq_s8_u8(b);
            (vmovl_s8(vget_low_s8(b)), vmovl_s8(vget_high_s8(b)))
        })
    }
    #[inline(always)]
    fn minus(self, i: Self::I, less: i16) -> Self::I {
        neon!((vsubq_s16(i.0, vdupq_n_s16(less)), vsubq_s16(i.1, vdupq_n_s16(less))))
    }
    #[inline(always)]
    fn dot_codes(self, i: Self::I, x: &[i16; 16]) -> Self::D {
        neon!({
            let (a, b) = (vld1q_s16(x.as_ptr()), vld1q_s16(x[8..].as_ptr()));
            let first = vmull_s16(vget_low_s16(i.0), vget_low_s16(a));
            let second = vmull_s16(vget_high_s16(i.0), vget_high_s16(a));
            (
                vmlal_s16(first, vget_low_s16(i.1), vget_low_s16(b)),
                vmlal_s16(second, vget_high_s16(i.1), vget_high_s16(b)),
            )
        })
    }
    #[inline(always)]
    fn more_codes(self, d: Self::D, i: Self::I, x: &[i16; 16]) -> Self::D {
        neon!({
            let (a, b) = (vld1q_s16(x.as_ptr()), vld1q_s16(x[8..].as_ptr()));
            let first = vmlal_s16(d.0, vget_low_s16(i.0), vget_low_s16(a));
            let second = vmlal_s16(d.1, vget_high_s16(i.0), vget_high_s16(a));
            (
                vmlal_s16(first, vget_low_s16(i.1), vget_low_s16(b)),
                vmlal_s16(second, vget_high_s16(i.1), vget_high_s16(b)),
            )
        })
    }
    #[inline(always)]
    fn two(self, values: [f32; 2]) -> float32x2_t {
        neon!(vld1_f32(values.as_ptr()))
    }
    #[inline(always)]
    fn two_halves(self, bits: u32) -> float32x2_t {
        self.two([self.half_bits(bits as u16), self.half_bits((bits >> 16) as u16)])
    }
    #[inline(always)]
    fn mul_two(self, a: float32x2_t, b: &[f32; 2]) -> float32x2_t {
        neon!(vmul_f32(a, vld1_f32(b.as_ptr())))
    }
    #[inline(always)]
    fn add_two(self, a: float32x2_t, b: float32x2_t) -> float32x2_t {
        neon!(vadd_f32(a, b))
    }
    #[inline(always)]
    fn splat_first(self, two: float32x2_t) -> Eight {
        neon!(Eight(vdupq_lane_f32::<0>(two), vdupq_lane_f32::<0>(two)))
    }
    #[inline(always)]
    fn values(self, two: float32x2_t) -> [f32; 2] {
        neon!([vget_lane_f32::<0>(two), vget_lane_f32::<1>(two)])
    }
    #[inline(always)]
    fn float(self, d: Self::D) -> Eight {
        neon!(Eight(vcvtq_f32_s32(d.0), vcvtq_f32_s32(d.1)))
    }
    #[inline(always)]
    fn store_codes(self, i: [Self::I; 2], codes: &mut [[i16; 2]; 16]) {
        let (eights, _) = codes.as_flattened_mut().as_chunks_mut::<8>();
        for (eight, i) in eights.iter_mut().zip([i[0].0, i[0].1, i[1].0, i[1].1]) {
            neon!(vst1q_s16(eight.as_mut_ptr(), i));
        }
    }
    #[inline(always)]
    fn pairs(self, codes: &[[i16; 2]; 16]) -> Self::Pairs {
        let (halves, _) = codes.as_flattened().as_chunks::<16>();
        neon!([vld2q_s16(halves[0].as_ptr()), vld2q_s16(halves[1].as_ptr())])
    }
    #[inline(always)]
    fn pair(self, codes: [i16; 2]) -> [i16; 2] {
        codes
    }
    #[inline(always)]
    fn no_sums(self) -> Self::Sums {
        neon!([vdupq_n_s32(0); 4])
    }
    #[inline(always)]
    fn add_dots(self, mut sums: Self::Sums, w: Self::Pairs, x: [i16; 2]) -> Self::Sums {
        for half in 0..2 {
            let int16x8x2_t(first, second) = w[half];
            for (w, x) in [(first, x[0]), (second, x[1])] {
                neon!({
                    sums[2 * half] = vmlal_n_s16(sums[2 * half], vget_low_s16(w), x);
                    sums[2 * half + 1] = vmlal_n_s16(sums[2 * half + 1], vget_high_s16(w), x);
                });
            }
        }
        sums
    }
    #[inline(always)]
    fn no_lanes(self) -> [Eight; 2] {
        [self.splat(0.0); 2]
    }
    #[inline(always)]
    fn lanes(self, values: &[f32; 16]) -> [Eight; 2] {
        let (eights, _) = values.as_chunks::<8>();
        [self.load(&eights[0]), self.load(&eights[1])]
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
        [
            self.fma(self.float((a, b)), self.mul(scales[0], x), to[0]),
            self.fma(self.float((c, d)), self.mul(scales[1], x), to[1]),
        ]
    }
    #[inline(always)]
    fn add_times(self, to: [Eight; 2], a: [Eight; 2], x: f32) -> [Eight; 2] {
        let x = self.splat(x);
        [self.fma(a[0], x, to[0]), self.fma(a[1], x, to[1])]
    }
}
