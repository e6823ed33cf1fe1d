//! AVX2 with FMA and F16C: every x86-64 processor since 2013 (Haswell) and 2015 (Excavator), few exceptions.
//!
//! SAFETY of this file: an [`Avx2`] is made only by [`Avx2::find`], which asked the processor, so the
//! instructions of every intrinsic here exist; loads and stores go through references to arrays of their size.

use std::arch::x86_64::*;

use super::{Code, Run, Simd};

/// The proof that AVX2, FMA and F16C are there.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Avx2(());

impl Avx2 {
    /// The proof, where the processor has the instructions.
    pub(in super::super) fn find() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        all.then_some(Self(()))
    }
}

/// An expression of intrinsics.
macro_rules! avx2 {
    ($body:expr) => {{
        // SAFETY: see the module.
        unsafe { $body }
    }};
}
pub(super) use avx2;

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn compiled<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// In both halves, the sums of the half's four lanes of each.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn four_sums(a: __m256, b: __m256, c: __m256, d: __m256) -> __m256 {
    let two = |a, b| _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let (ab, cd) = (two(a, b), two(c, d));
    _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xee>(ab, cd))
}

/// What AVX2 and its successors do alike.
macro_rules! eights {
    () => {
        #[inline(always)]
        fn fetch(self, from: &[u8], at: usize) {
            // Nothing is read: an address that is nobody's is passed over.
            avx2!(_mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(at).cast()))
        }
        #[inline(always)]
        fn splat(self, value: f32) -> __m256 {
            avx2!(_mm256_set1_ps(value))
        }
        #[inline(always)]
        fn load(self, values: &[f32; 8]) -> __m256 {
            avx2!(_mm256_loadu_ps(values.as_ptr()))
        }
        #[inline(always)]
        fn store(self, v: __m256, values: &mut [f32; 8]) {
            avx2!(_mm256_storeu_ps(values.as_mut_ptr(), v))
        }
        #[inline(always)]
        fn add(self, a: __m256, b: __m256) -> __m256 {
            avx2!(_mm256_add_ps(a, b))
        }
        #[inline(always)]
        fn mul(self, a: __m256, b: __m256) -> __m256 {
            avx2!(_mm256_mul_ps(a, b))
        }
        #[inline(always)]
        fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            avx2!(_mm256_fmadd_ps(a, b, c))
        }
        #[inline(always)]
        fn div(self, a: __m256, b: __m256) -> __m256 {
            avx2!(_mm256_div_ps(a, b))
        }
        #[inline(always)]
        fn at_least(self, v: __m256, low: __m256) -> __m256 {
            // The second operand is the result where one is NaN.
            avx2!(_mm256_max_ps(low, v))
        }
        #[inline(always)]
        fn at_most(self, v: __m256, high: __m256) -> __m256 {
            avx2!(_mm256_min_ps(high, v))
        }
        #[inline(always)]
        fn round(self, v: __m256) -> __m256 {
            avx2!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v))
        }
        #[inline(always)]
        fn exp2(self, n: __m256) -> __m256 {
            avx2!({
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            })
        }
        #[inline(always)]
        fn sum(self, v: __m256) -> f32 {
            avx2!({
                let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            })
        }
        #[inline(always)]
        fn sums(self, v: [__m256; 8]) -> __m256 {
            avx2!({
                let [a, b, c, d, e, f, g, h] = v;
                let first = four_sums(a, b, c, d);
                let second = four_sums(e, f, g, h);
                _mm256_add_ps(
                    _mm256_permute2f128_ps::<0x20>(first, second),
                    _mm256_permute2f128_ps::<0x31>(first, second),
                )
            })
        }
        #[inline(always)]
        fn max(self, v: __m256) -> f32 {
            avx2!({
                let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
                let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
            })
        }
        #[inline(always)]
        fn half_bits(self, bits: u16) -> f32 {
            avx2!(_mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits)))))
        }
        #[inline(always)]
        fn half(self, bytes: &[u8; 16]) -> __m256 {
            avx2!(_mm256_cvtph_ps(self.bytes(bytes)))
        }
        #[inline(always)]
        fn upper(self, bytes: &[u8; 16]) -> __m256 {
            avx2!({
                let words = _mm256_cvtepu16_epi32(self.bytes(bytes));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
            })
        }
        #[inline(always)]
        fn bytes(self, bytes: &[u8; 16]) -> __m128i {
            avx2!(_mm_loadu_si128(bytes.as_ptr().cast()))
        }
        #[inline(always)]
        fn low(self, b: __m128i) -> __m128i {
            self.and(b, 15)
        }
        #[inline(always)]
        fn high(self, b: __m128i) -> __m128i {
            self.shift::<4>(b)
        }
        #[inline(always)]
        fn shift<const N: i32>(self, b: __m128i) -> __m128i {
            avx2!(self.and(_mm_srli_epi16::<N>(b), 0xff >> N))
        }
        #[inline(always)]
        fn and(self, b: __m128i, mask: u8) -> __m128i {
            avx2!(_mm_and_si128(b, _mm_set1_epi8(mask.cast_signed())))
        }
        #[inline(always)]
        fn with<const N: i32>(self, b: __m128i, c: __m128i) -> __m128i {
            avx2!(_mm_or_si128(b, _mm_slli_epi16::<N>(c)))
        }
        #[inline(always)]
        fn spread(self, bits: u16) -> __m128i {
            avx2!({
                let places = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
                let bit = _mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32, 64, -128);
                let bytes = _mm_shuffle_epi8(_mm_cvtsi32_si128(i32::from(bits)), places);
                _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(bytes, bit), bit), _mm_set1_epi8(1))
            })
        }
        #[inline(always)]
        fn table(self, b: __m128i, table: &[i8; 16]) -> __m128i {
            avx2!(_mm_shuffle_epi8(_mm_loadu_si128(table.as_ptr().cast()), b))
        }
        #[inline(always)]
        fn unsigned(self, b: __m128i) -> [__m256; 2] {
            avx2!([
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b)),
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128::<8>(b))),
            ])
        }
        #[inline(always)]
        fn signed(self, b: __m128i) -> [__m256; 2] {
            avx2!([
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(b))),
            ])
        }
    };
}
pub(super) use eights;

impl Simd for Avx2 {
    type V = __m256;
    type B = __m128i;
    type Lanes = [__m256; 2];
    type Sums = [__m256i; 2];
    type Quads = [__m256i; 2];

    eights!();

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        avx2!(compiled(f))
    }
    #[inline(always)]
    fn quads(self, bytes: &[u8; 64]) -> [__m256i; 2] {
        let (halves, _) = bytes.as_chunks::<32>();
        let load = |half: &[u8; 32]| avx2!(_mm256_loadu_si256(half.as_ptr().cast()));
        [load(&halves[0]), load(&halves[1])]
    }
    #[inline(always)]
    fn quads_and(self, q: [__m256i; 2], mask: u8) -> [__m256i; 2] {
        let mask = avx2!(_mm256_set1_epi8(mask.cast_signed()));
        avx2!([_mm256_and_si256(q[0], mask), _mm256_and_si256(q[1], mask)])
    }
    #[inline(always)]
    fn quads_or(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        avx2!([_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])])
    }
    #[inline(always)]
    fn quads_left<const N: i32>(self, q: [__m256i; 2]) -> [__m256i; 2] {
        avx2!([_mm256_slli_epi16::<N>(q[0]), _mm256_slli_epi16::<N>(q[1])])
    }
    #[inline(always)]
    fn quads_right<const N: i32>(self, q: [__m256i; 2]) -> [__m256i; 2] {
        let shifted = avx2!([_mm256_srli_epi16::<N>(q[0]), _mm256_srli_epi16::<N>(q[1])]);
        self.quads_and(shifted, 0xff >> N)
    }
    #[inline(always)]
    fn quads_table(self, q: [__m256i; 2], table: &[i8; 16]) -> [__m256i; 2] {
        avx2!({
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            [_mm256_shuffle_epi8(table, q[0]), _mm256_shuffle_epi8(table, q[1])]
        })
    }
    #[inline(always)]
    fn quads_bits(self, q: [__m256i; 2], at: usize) -> [__m256i; 2] {
        let (byte, bit) =
            ((at / 8) as i32 * 0x0101_0101, if at.is_multiple_of(8) { 0x0804_0201 } else { 0x8040_2010u32 });
        let bits = |q: __m256i| {
            avx2!({
                let lanes = _mm256_setr_epi32(
                    0,
                    0x0404_0404,
                    0x0808_0808,
                    0x0c0c_0c0c,
                    0,
                    0x0404_0404,
                    0x0808_0808,
                    0x0c0c_0c0c,
                );
                let bytes = _mm256_shuffle_epi8(q, _mm256_add_epi32(lanes, _mm256_set1_epi32(byte)));
                let bit = _mm256_set1_epi32(bit.cast_signed());
                let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
                _mm256_and_si256(set, _mm256_set1_epi8(1))
            })
        };
        [bits(q[0]), bits(q[1])]
    }
    #[inline(always)]
    fn quads_byte(self, q: [__m256i; 2], at: usize) -> [__m256; 2] {
        let byte = |q: __m256i| {
            avx2!({
                let shifted = _mm256_srl_epi32(q, _mm_cvtsi32_si128(8 * at as i32));
                _mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32(0xff)))
            })
        };
        [byte(q[0]), byte(q[1])]
    }
    #[inline(always)]
    fn dot_quads<const N: usize>(self, w: &[[__m256i; 2]], x: &Run, at: usize, codes: Code) -> [__m256i; 2] {
        let start = x.sum::<N>(at).wrapping_mul(-codes.offset);
        let mut sums = avx2!([_mm256_set1_epi32(start); 2]);
        if codes.bits == 8 {
            for i in 0..N {
                let x = avx2!(words(quad(x.high[at + i]), quad(x.low[at + i])));
                for half in 0..2 {
                    let [even, odd] = avx2!(signed_words(w[i][half]));
                    avx2!({
                        sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(even, x[0]));
                        sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(odd, x[1]));
                    });
                }
            }
            return sums;
        }
        // So many products of two bytes, twice 2^bits · 128 at most, fit in 16 bits.
        let span = 1 << (7 - codes.bits.clamp(4, 6));
        for half in 0..2 {
            let mut high = avx2!(_mm256_setzero_si256());
            for from in (0..N).step_by(span) {
                let mut pairs = avx2!([_mm256_setzero_si256(); 2]);
                for i in from..N.min(from + span) {
                    avx2!({
                        let (h, l) = (quad(x.high[at + i]), quad(x.low[at + i]));
                        pairs[0] = _mm256_add_epi16(pairs[0], _mm256_maddubs_epi16(w[i][half], h));
                        pairs[1] = _mm256_add_epi16(pairs[1], _mm256_maddubs_epi16(w[i][half], l));
                    });
                }
                avx2!({
                    let ones = _mm256_set1_epi16(1);
                    high = _mm256_add_epi32(high, _mm256_madd_epi16(pairs[0], ones));
                    sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(pairs[1], ones));
                });
            }
            sums[half] = avx2!(_mm256_add_epi32(sums[half], _mm256_slli_epi32::<8>(high)));
        }
        sums
    }
    #[inline(always)]
    fn no_lanes(self) -> [__m256; 2] {
        [self.splat(0.0); 2]
    }
    #[inline(always)]
    fn lanes(self, bytes: &[u8; 64]) -> [__m256; 2] {
        avx2!([_mm256_loadu_ps(bytes.as_ptr().cast()), _mm256_loadu_ps(bytes[32..].as_ptr().cast()),])
    }
    #[inline(always)]
    fn lanes_half(self, bytes: &[u8; 32]) -> [__m256; 2] {
        let (eights, _) = bytes.as_chunks::<16>();
        [self.half(&eights[0]), self.half(&eights[1])]
    }
    #[inline(always)]
    fn lanes_full(self, bytes: &[u8; 64]) -> [__m256; 2] {
        avx2!([_mm256_loadu_ps(bytes.as_ptr().cast()), _mm256_loadu_ps(bytes[32..].as_ptr().cast())])
    }
    #[inline(always)]
    fn lanes_signed(self, bytes: &[u8; 16]) -> [__m256; 2] {
        self.signed(self.bytes(bytes))
    }
    #[inline(always)]
    fn lanes_mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        [self.mul(a[0], b[0]), self.mul(a[1], b[1])]
    }
    #[inline(always)]
    fn store_lanes(self, lanes: [__m256; 2], values: &mut [f32; 16]) {
        let (eights, _) = values.as_chunks_mut::<8>();
        self.store(lanes[0], &mut eights[0]);
        self.store(lanes[1], &mut eights[1]);
    }
    #[inline(always)]
    fn add_scaled(self, to: [__m256; 2], sums: [__m256i; 2], scales: [__m256; 2], x: f32) -> [__m256; 2] {
        let x = self.splat(x);
        let float = |sums: __m256i| avx2!(_mm256_cvtepi32_ps(sums));
        [
            self.fma(float(sums[0]), self.mul(scales[0], x), to[0]),
            self.fma(float(sums[1]), self.mul(scales[1], x), to[1]),
        ]
    }
    #[inline(always)]
    fn add_times(self, to: [__m256; 2], a: [__m256; 2], x: f32) -> [__m256; 2] {
        let x = self.splat(x);
        [self.fma(a[0], x, to[0]), self.fma(a[1], x, to[1])]
    }
}

/// Four bytes in each lane.
#[inline]
#[target_feature(enable = "avx2")]
fn quad(bytes: [i8; 4]) -> __m256i {
    _mm256_set1_epi32(bytemuck::cast(bytes))
}

/// 256 · high + low of bytes 0 and 2 of each lane, and of bytes 1 and 3.
#[inline]
#[target_feature(enable = "avx2")]
fn words(high: __m256i, low: __m256i) -> [__m256i; 2] {
    let [even, odd] = signed_words(low);
    [
        _mm256_add_epi16(_mm256_slli_epi16::<8>(high), even),
        _mm256_add_epi16(_mm256_and_si256(high, _mm256_set1_epi16(-256)), odd),
    ]
}

/// Signed bytes 0 and 2 of each lane as words, and bytes 1 and 3.
#[inline]
#[target_feature(enable = "avx2")]
fn signed_words(bytes: __m256i) -> [__m256i; 2] {
    [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)]
}
