//! AVX2 with FMA and F16C: every x86-64 processor since 2013 (Haswell) and 2015 (Excavator), few exceptions.
//!
//! SAFETY of this file: an [`Avx2`] is made only by [`Avx2::find`], which asked the processor, so the
//! instructions of every intrinsic here exist; loads and stores go through references to arrays of their size.

use std::arch::x86_64::*;

use super::{Pairs, Simd};

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

/// Rows of eight become columns.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transpose8(rows: [__m256i; 8]) -> [__m256i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let two = |a, b| [_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)];
    let four = |[a, b]: [__m256i; 2], [c, d]: [__m256i; 2]| {
        [
            _mm256_unpacklo_epi64(a, c),
            _mm256_unpackhi_epi64(a, c),
            _mm256_unpacklo_epi64(b, d),
            _mm256_unpackhi_epi64(b, d),
        ]
    };
    let (top, bottom) = (four(two(a, b), two(c, d)), four(two(e, f), two(g, h)));
    let low = |i: usize| _mm256_permute2x128_si256::<0x20>(top[i], bottom[i]);
    let high = |i: usize| _mm256_permute2x128_si256::<0x31>(top[i], bottom[i]);
    [low(0), low(1), low(2), low(3), high(0), high(1), high(2), high(3)]
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
        fn prefetch(self, bytes: &[u8], ahead: usize) {
            avx2!(_mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(ahead).cast()))
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
        #[inline(always)]
        fn wide(self, b: __m128i) -> __m256i {
            avx2!(_mm256_cvtepu8_epi16(b))
        }
        #[inline(always)]
        fn wide_signed(self, b: __m128i) -> __m256i {
            avx2!(_mm256_cvtepi8_epi16(b))
        }
        #[inline(always)]
        fn minus(self, i: __m256i, less: i16) -> __m256i {
            avx2!(_mm256_sub_epi16(i, _mm256_set1_epi16(less)))
        }
        #[inline(always)]
        fn dot_codes(self, i: __m256i, x: &[i16; 16]) -> __m256i {
            avx2!(_mm256_madd_epi16(i, _mm256_loadu_si256(x.as_ptr().cast())))
        }
        #[inline(always)]
        fn two(self, values: [f32; 2]) -> __m128 {
            avx2!(_mm_castpd_ps(_mm_load_sd(values.as_ptr().cast())))
        }
        #[inline(always)]
        fn two_halves(self, bits: u32) -> __m128 {
            avx2!(_mm_cvtph_ps(_mm_cvtsi32_si128(bits.cast_signed())))
        }
        #[inline(always)]
        fn mul_two(self, a: __m128, b: &[f32; 2]) -> __m128 {
            avx2!(_mm_mul_ps(a, self.two(*b)))
        }
        #[inline(always)]
        fn add_two(self, a: __m128, b: __m128) -> __m128 {
            avx2!(_mm_add_ps(a, b))
        }
        #[inline(always)]
        fn splat_first(self, two: __m128) -> __m256 {
            avx2!(_mm256_broadcastss_ps(two))
        }
        #[inline(always)]
        fn values(self, two: __m128) -> [f32; 2] {
            avx2!([_mm_cvtss_f32(two), _mm_cvtss_f32(_mm_movehdup_ps(two))])
        }
        #[inline(always)]
        fn float(self, d: __m256i) -> __m256 {
            avx2!(_mm256_cvtepi32_ps(d))
        }
        #[inline(always)]
        fn store_codes(self, i: [__m256i; 2], codes: &mut [[i16; 2]; 16]) {
            let (halves, _) = codes.as_chunks_mut::<8>();
            avx2!(_mm256_storeu_si256(halves[0].as_mut_ptr().cast(), i[0]));
            avx2!(_mm256_storeu_si256(halves[1].as_mut_ptr().cast(), i[1]));
        }
        #[inline(always)]
        fn transpose(self, from: &Pairs, to: &mut Pairs) {
            for (row, column) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
                let mut eight = [avx2!(_mm256_setzero_si256()); 8];
                for (i, eight) in eight.iter_mut().enumerate() {
                    let from: &[[i16; 2]; 8] = from[row + i][column..].first_chunk().expect("8 of 16");
                    *eight = avx2!(_mm256_loadu_si256(from.as_ptr().cast()));
                }
                for (i, eight) in avx2!(transpose8(eight)).into_iter().enumerate() {
                    let to: &mut [[i16; 2]; 8] = to[column + i][row..].first_chunk_mut().expect("8 of 16");
                    avx2!(_mm256_storeu_si256(to.as_mut_ptr().cast(), eight));
                }
            }
        }
    };
}
pub(super) use eights;

impl Simd for Avx2 {
    type V = __m256;
    type B = __m128i;
    type I = __m256i;
    type D = __m256i;
    type T = __m128;
    type Lanes = [__m256; 2];
    type Sums = [__m256i; 2];
    type Pairs = [__m256i; 2];
    type Pair = __m256i;

    eights!();

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        avx2!(compiled(f))
    }
    #[inline(always)]
    fn more_codes(self, d: __m256i, i: __m256i, x: &[i16; 16]) -> __m256i {
        avx2!(_mm256_add_epi32(d, self.dot_codes(i, x)))
    }
    #[inline(always)]
    fn pairs(self, codes: &[[i16; 2]; 16]) -> [__m256i; 2] {
        let (halves, _) = codes.as_chunks::<8>();
        let load = |half: &[[i16; 2]; 8]| avx2!(_mm256_loadu_si256(half.as_ptr().cast()));
        [load(&halves[0]), load(&halves[1])]
    }
    #[inline(always)]
    fn pair(self, codes: [i16; 2]) -> __m256i {
        avx2!(_mm256_set1_epi32(bytemuck::cast(codes)))
    }
    #[inline(always)]
    fn no_sums(self) -> [__m256i; 2] {
        avx2!([_mm256_setzero_si256(); 2])
    }
    #[inline(always)]
    fn add_dots(self, sums: [__m256i; 2], w: [__m256i; 2], x: __m256i) -> [__m256i; 2] {
        avx2!([
            _mm256_add_epi32(sums[0], _mm256_madd_epi16(w[0], x)),
            _mm256_add_epi32(sums[1], _mm256_madd_epi16(w[1], x)),
        ])
    }
    #[inline(always)]
    fn no_lanes(self) -> [__m256; 2] {
        [self.splat(0.0); 2]
    }
    #[inline(always)]
    fn lanes(self, values: &[f32; 16]) -> [__m256; 2] {
        let (eights, _) = values.as_chunks::<8>();
        [self.load(&eights[0]), self.load(&eights[1])]
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
        [
            self.fma(self.float(sums[0]), self.mul(scales[0], x), to[0]),
            self.fma(self.float(sums[1]), self.mul(scales[1], x), to[1]),
        ]
    }
    #[inline(always)]
    fn add_times(self, to: [__m256; 2], a: [__m256; 2], x: f32) -> [__m256; 2] {
        let x = self.splat(x);
        [self.fma(a[0], x, to[0]), self.fma(a[1], x, to[1])]
    }
}
