//! AVX-512 with VNNI: x86-64 servers since 2019 (Cascade Lake), AMD since 2022 (Zen 4).
//!
//! Dot products of four bytes and their sums are one instruction, and a vector is sixteen lanes; what is
//! eight lanes is as in AVX2. SAFETY of this file: as there; an [`Avx512`] is made only by [`Avx512::find`].

use std::arch::x86_64::*;

use super::avx2::{avx2, eights, four_sums};
use super::{Code, Run, Simd};

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
    type Lanes = __m512;
    type Sums = __m512i;
    type Quads = __m512i;
    const WIDE: bool = true;

    eights!();

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        avx2!(compiled(f))
    }
    #[inline(always)]
    fn quads(self, bytes: &[u8; 64]) -> __m512i {
        avx2!(_mm512_loadu_si512(bytes.as_ptr().cast()))
    }
    #[inline(always)]
    fn quads_and(self, q: __m512i, mask: u8) -> __m512i {
        avx2!(_mm512_and_si512(q, _mm512_set1_epi8(mask.cast_signed())))
    }
    #[inline(always)]
    fn quads_or(self, a: __m512i, b: __m512i) -> __m512i {
        avx2!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn quads_left<const N: i32>(self, q: __m512i) -> __m512i {
        avx2!(_mm512_sll_epi16(q, _mm_cvtsi32_si128(N)))
    }
    #[inline(always)]
    fn quads_right<const N: i32>(self, q: __m512i) -> __m512i {
        self.quads_and(avx2!(_mm512_srl_epi16(q, _mm_cvtsi32_si128(N))), 0xff >> N)
    }
    #[inline(always)]
    fn quads_table(self, q: __m512i, table: &[i8; 16]) -> __m512i {
        avx2!({
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, q)
        })
    }
    #[inline(always)]
    fn quads_bits(self, q: __m512i, at: usize) -> __m512i {
        let (byte, bit) =
            ((at / 8) as i32 * 0x0101_0101, if at.is_multiple_of(8) { 0x0804_0201 } else { 0x8040_2010u32 });
        avx2!({
            let lanes = _mm512_set4_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0);
            let bytes = _mm512_shuffle_epi8(q, _mm512_add_epi32(lanes, _mm512_set1_epi32(byte)));
            let set = _mm512_test_epi8_mask(bytes, _mm512_set1_epi32(bit.cast_signed()));
            _mm512_maskz_mov_epi8(set, _mm512_set1_epi8(1))
        })
    }
    #[inline(always)]
    fn quads_byte(self, q: __m512i, at: usize) -> __m512 {
        avx2!({
            let shifted = _mm512_srl_epi32(q, _mm_cvtsi32_si128(8 * at as i32));
            _mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(0xff)))
        })
    }
    #[inline(always)]
    fn dot_quads<const N: usize>(self, w: &[__m512i], x: &Run, at: usize, codes: Code) -> __m512i {
        // The instruction takes unsigned weights.
        let (flip, offset) = if codes.bits == 8 { (-128, 128) } else { (0, codes.offset) };
        let mut low =
            avx2!([_mm512_set1_epi32(x.sum::<N>(at).wrapping_mul(-offset)), _mm512_setzero_si512()]);
        let mut high = avx2!([_mm512_setzero_si512(); 2]);
        // Two sums each: an instruction takes its sum some cycles after the last one gave it.
        for i in 0..N {
            avx2!({
                let w = _mm512_xor_si512(w[i], _mm512_set1_epi8(flip));
                high[i % 2] =
                    _mm512_dpbusd_epi32(high[i % 2], w, _mm512_set1_epi32(bytemuck::cast(x.high[at + i])));
                low[i % 2] =
                    _mm512_dpbusd_epi32(low[i % 2], w, _mm512_set1_epi32(bytemuck::cast(x.low[at + i])));
            });
        }
        avx2!({
            let (low, high) = (_mm512_add_epi32(low[0], low[1]), _mm512_add_epi32(high[0], high[1]));
            _mm512_add_epi32(low, _mm512_slli_epi32::<8>(high))
        })
    }
    #[inline(always)]
    fn no_lanes(self) -> __m512 {
        avx2!(_mm512_setzero_ps())
    }
    #[inline(always)]
    fn lanes(self, bytes: &[u8; 64]) -> __m512 {
        avx2!(_mm512_loadu_ps(bytes.as_ptr().cast()))
    }
    #[inline(always)]
    fn lanes_half(self, bytes: &[u8; 32]) -> __m512 {
        avx2!(_mm512_cvtph_ps(_mm256_loadu_si256(bytes.as_ptr().cast())))
    }
    #[inline(always)]
    fn lanes_full(self, bytes: &[u8; 64]) -> __m512 {
        avx2!(_mm512_loadu_ps(bytes.as_ptr().cast()))
    }
    #[inline(always)]
    fn lanes_signed(self, bytes: &[u8; 16]) -> __m512 {
        avx2!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(self.bytes(bytes))))
    }
    #[inline(always)]
    fn lanes_mul(self, a: __m512, b: __m512) -> __m512 {
        avx2!(_mm512_mul_ps(a, b))
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
