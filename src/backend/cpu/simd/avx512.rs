//! AVX-512 with VNNI: x86-64 servers since 2019 (Cascade Lake), AMD since 2022 (Zen 4).
//!
//! Dot products of pairs of codes and their sums are one instruction, and a vector is sixteen lanes; what is
//! eight lanes is as in AVX2. SAFETY of this file: as there; an [`Avx512`] is made only by [`Avx512::find`].

use std::arch::x86_64::*;

use super::avx2::{avx2, eights, four_sums, transpose8};
use super::{Pairs, Simd};

/// The proof that AVX-512 F, BW, DQ, VL and VNNI, and what they build on, are there.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Avx512(());

impl Avx512 {
    /// The proof, where the processor has the instructions.
    pub(in super::super) fn find() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        all.then_some(Self(()))
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn compiled<R>(f: impl FnOnce() -> R) -> R {
    f()
}

impl Simd for Avx512 {
    type V = __m256;
    type B = __m128i;
    type I = __m256i;
    type D = __m256i;
    type T = __m128;
    type Lanes = __m512;
    type Sums = __m512i;
    type Pairs = __m512i;
    type Pair = __m512i;
    const WIDE: bool = true;

    eights!();

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        avx2!(compiled(f))
    }
    #[inline(always)]
    fn more_codes(self, d: __m256i, i: __m256i, x: &[i16; 16]) -> __m256i {
        avx2!(_mm256_dpwssd_epi32(d, i, _mm256_loadu_si256(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn pairs(self, codes: &[[i16; 2]; 16]) -> __m512i {
        avx2!(_mm512_loadu_si512(codes.as_ptr().cast()))
    }
    #[inline(always)]
    fn pair(self, codes: [i16; 2]) -> __m512i {
        avx2!(_mm512_set1_epi32(bytemuck::cast(codes)))
    }
    #[inline(always)]
    fn no_sums(self) -> __m512i {
        avx2!(_mm512_setzero_si512())
    }
    #[inline(always)]
    fn add_dots(self, sums: __m512i, w: __m512i, x: __m512i) -> __m512i {
        avx2!(_mm512_dpwssd_epi32(sums, w, x))
    }
    #[inline(always)]
    fn no_lanes(self) -> __m512 {
        avx2!(_mm512_setzero_ps())
    }
    #[inline(always)]
    fn lanes(self, values: &[f32; 16]) -> __m512 {
        avx2!(_mm512_loadu_ps(values.as_ptr()))
    }
    #[inline(always)]
    fn store_lanes(self, lanes: __m512, values: &mut [f32; 16]) {
        avx2!(_mm512_storeu_ps(values.as_mut_ptr(), lanes))
    }
    #[inline(always)]
    fn add_scaled(self, to: __m512, sums: __m512i, scales: __m512, x: f32) -> __m512 {
        avx2!(_mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_mul_ps(scales, _mm512_set1_ps(x)), to))
    }
    #[inline(always)]
    fn add_times(self, to: __m512, a: __m512, x: f32) -> __m512 {
        avx2!(_mm512_fmadd_ps(a, _mm512_set1_ps(x), to))
    }
}
