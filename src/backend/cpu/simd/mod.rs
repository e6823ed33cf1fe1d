//! Eight f32 at a time, in the instructions that this CPU has.
//!
//! A computation is written once over [`Simd`] and inlined into a function compiled for each instruction set
//! ([`Simd::vectorize`]). A value of an implementing type is the proof that the instructions are there.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;
pub(super) use portable::Portable;

/// Sixteen by sixteen pairs of codes.
pub(super) type Pairs = [[[i16; 2]; 16]; 16];

/// The instruction set that computes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    Portable(Portable),
}

impl Isa {
    /// The best that this CPU has.
    pub(super) fn find() -> Self {
        Self::all().pop().unwrap_or(Self::Portable(Portable))
    }

    /// Every instruction set of this machine, the plainest first.
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable(Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx2::find().map(Self::Avx2));
            all.extend(Avx512::find().map(Self::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        all.extend(Neon::find().map(Self::Neon));
        all
    }

    /// For the name of the device.
    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "AVX-512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "NEON",
            Self::Portable(_) => "portable",
        }
    }
}

/// `dispatch!(isa, s => expression)`: the expression, compiled for and run on the instruction set `isa`.
macro_rules! dispatch {
    ($isa:expr, $s:ident => $body:expr) => {
        match $isa {
            #[cfg(target_arch = "x86_64")]
            $crate::backend::cpu::simd::Isa::Avx2($s) => $crate::backend::cpu::simd::Simd::vectorize(
                $s,
                #[inline(always)]
                || $body,
            ),
            #[cfg(target_arch = "x86_64")]
            $crate::backend::cpu::simd::Isa::Avx512($s) => $crate::backend::cpu::simd::Simd::vectorize(
                $s,
                #[inline(always)]
                || $body,
            ),
            #[cfg(target_arch = "aarch64")]
            $crate::backend::cpu::simd::Isa::Neon($s) => $crate::backend::cpu::simd::Simd::vectorize(
                $s,
                #[inline(always)]
                || $body,
            ),
            $crate::backend::cpu::simd::Isa::Portable($s) => $crate::backend::cpu::simd::Simd::vectorize(
                $s,
                #[inline(always)]
                || $body,
            ),
        }
    };
}
pub(super) use dispatch;

/// Operations on eight f32 (`V`), on sixteen bytes (`B`) and on sixteen i16 (`I`) with sums in i32 (`D`).
pub(super) trait Simd: Copy + Send + Sync + 'static {
    type V: Copy + Send + Sync;
    type B: Copy;
    type I: Copy;
    type D: Copy;
    /// Two f32.
    type T: Copy;
    /// Sixteen f32, sums in i32, and pairs of i16; and one pair for all sixteen.
    type Lanes: Copy;
    type Sums: Copy;
    type Pairs: Copy;
    type Pair: Copy;
    /// Whether the registers hold six by twice sixteen sums.
    const WIDE: bool = false;

    /// Runs `f` compiled for these instructions; what `f` calls must be `#[inline(always)]`.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;

    /// Asks for the memory `ahead` bytes behind the beginning of `bytes`, which may be no memory at all.
    #[inline(always)]
    fn prefetch(self, _bytes: &[u8], _ahead: usize) {}

    fn splat(self, value: f32) -> Self::V;
    fn load(self, values: &[f32; 8]) -> Self::V;
    fn store(self, v: Self::V, values: &mut [f32; 8]);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`, rounded once where the instructions can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger; NaN where `v` is NaN.
    fn at_least(self, v: Self::V, low: Self::V) -> Self::V;
    /// The smaller; NaN where `v` is NaN.
    fn at_most(self, v: Self::V, high: Self::V) -> Self::V;
    /// To the nearest whole number.
    fn round(self, v: Self::V) -> Self::V;
    /// 2ⁿ for whole n from −126 to 127.
    fn exp2(self, n: Self::V) -> Self::V;
    /// The sum of the lanes.
    fn sum(self, v: Self::V) -> f32;
    /// The sums of the lanes of each.
    #[inline(always)]
    fn sums(self, v: [Self::V; 8]) -> Self::V {
        let mut sums = [0.0; 8];
        for i in 0..8 {
            sums[i] = self.sum(v[i]);
        }
        self.load(&sums)
    }
    /// The largest lane, NaN aside.
    fn max(self, v: Self::V) -> f32;
    /// One IEEE half.
    fn half_bits(self, bits: u16) -> f32;
    /// Eight IEEE halves.
    fn half(self, bytes: &[u8; 16]) -> Self::V;
    /// Eight upper halves of f32.
    fn upper(self, bytes: &[u8; 16]) -> Self::V;

    fn bytes(self, bytes: &[u8; 16]) -> Self::B;
    /// The low nibble of each byte.
    fn low(self, b: Self::B) -> Self::B;
    /// The high nibble of each byte.
    fn high(self, b: Self::B) -> Self::B;
    /// Each byte shifted right by `N` bits.
    fn shift<const N: i32>(self, b: Self::B) -> Self::B;
    fn and(self, b: Self::B, mask: u8) -> Self::B;
    /// `b | c << N` of each byte; no bit of `c` is shifted out.
    fn with<const N: i32>(self, b: Self::B, c: Self::B) -> Self::B;
    /// 1 in byte j where bit j is set.
    fn spread(self, bits: u16) -> Self::B;
    fn unsigned(self, b: Self::B) -> [Self::V; 2];
    fn signed(self, b: Self::B) -> [Self::V; 2];

    /// Sixteen unsigned bytes.
    fn wide(self, b: Self::B) -> Self::I;
    /// Sixteen signed bytes.
    fn wide_signed(self, b: Self::B) -> Self::I;
    /// Each element minus `less`.
    fn minus(self, i: Self::I, less: i16) -> Self::I;
    /// Products of the elements, in some order added up to the lanes of a sum.
    fn dot_codes(self, i: Self::I, x: &[i16; 16]) -> Self::D;
    /// The same, added to `d`.
    fn more_codes(self, d: Self::D, i: Self::I, x: &[i16; 16]) -> Self::D;
    /// The lanes as f32: their sum is what counts, not their order.
    fn float(self, d: Self::D) -> Self::V;
    fn two(self, values: [f32; 2]) -> Self::T;
    /// Two IEEE halves, the lower first.
    fn two_halves(self, bits: u32) -> Self::T;
    fn mul_two(self, a: Self::T, b: &[f32; 2]) -> Self::T;
    fn add_two(self, a: Self::T, b: Self::T) -> Self::T;
    /// The first in each lane.
    fn splat_first(self, two: Self::T) -> Self::V;
    fn values(self, two: Self::T) -> [f32; 2];

    fn store_codes(self, i: [Self::I; 2], codes: &mut [[i16; 2]; 16]);
    /// `to[b][a] = from[a][b]`
    #[inline(always)]
    fn transpose(self, from: &Pairs, to: &mut Pairs) {
        for (b, to) in to.iter_mut().enumerate() {
            for (to, from) in to.iter_mut().zip(from) {
                *to = from[b];
            }
        }
    }
    fn pairs(self, codes: &[[i16; 2]; 16]) -> Self::Pairs;
    fn pair(self, codes: [i16; 2]) -> Self::Pair;
    fn no_sums(self) -> Self::Sums;
    /// The dot product of each pair of `w` with `x`, added to its sum.
    fn add_dots(self, sums: Self::Sums, w: Self::Pairs, x: Self::Pair) -> Self::Sums;
    fn no_lanes(self) -> Self::Lanes;
    fn lanes(self, values: &[f32; 16]) -> Self::Lanes;
    fn store_lanes(self, lanes: Self::Lanes, values: &mut [f32; 16]);
    /// `to + sums · scales · x`
    fn add_scaled(self, to: Self::Lanes, sums: Self::Sums, scales: Self::Lanes, x: f32) -> Self::Lanes;
    /// `to + a · x`
    fn add_times(self, to: Self::Lanes, a: Self::Lanes, x: f32) -> Self::Lanes;

    /// eˣ within 2 units in the last place; nothing below e⁻⁸⁷, nothing above e⁸⁸. Reduced to |r| ≤ ln 2 / 2 by
    /// a two-part ln 2 (Cody and Waite 1980), then Taylor's polynomial of degree 7: its remainder r⁸/8! < 6·10⁻⁹.
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        let x = self.at_most(self.at_least(x, self.splat(-87.0)), self.splat(88.0));
        let n = self.round(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        let r = self.fma(n, self.splat(-0.693_359_4), x);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        let terms = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
        let polynomial = terms.iter().fold(
            self.splat(1.0 / 5040.0),
            #[inline(always)]
            |sum, &term| self.fma(sum, r, self.splat(term)),
        );
        self.mul(polynomial, self.exp2(n))
    }

    /// Σ a·b over slices of one length.
    #[inline(always)]
    fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
        let (mut even, mut odd) = (self.splat(0.0), self.splat(0.0));
        let ((a, a_odd), (b, b_odd)) = (a.as_chunks::<2>(), b.as_chunks::<2>());
        for (a, b) in a.iter().zip(b) {
            even = self.fma(self.load(&a[0]), self.load(&b[0]), even);
            odd = self.fma(self.load(&a[1]), self.load(&b[1]), odd);
        }
        for (a, b) in a_odd.iter().zip(b_odd) {
            even = self.fma(self.load(a), self.load(b), even);
        }
        let rest: f32 = a_rest
            .iter()
            .zip(b_rest)
            .map(
                #[inline(always)]
                |(a, b)| a * b,
            )
            .sum();
        self.sum(self.add(even, odd)) + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Seed;

    #[inline(always)]
    fn exps<S: Simd>(s: S, x: &mut [f32]) {
        for x in x.as_chunks_mut::<8>().0 {
            s.store(s.exp(s.load(x)), x);
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let inputs: Vec<f32> = (-87_000..88_000).step_by(7).map(|x| x as f32 / 1000.0).collect();
        let inputs = &inputs[..inputs.len() / 8 * 8];
        for isa in Isa::all() {
            let mut got = inputs.to_vec();
            dispatch!(isa, s => exps(s, &mut got));
            for (x, got) in inputs.iter().zip(&got) {
                let expected = f64::from(*x).exp();
                let error = (f64::from(*got) - expected).abs() / expected;
                assert!(error < 2.0 * f64::from(f32::EPSILON), "{}: exp({x}) = {got}", isa.name());
            }
            let mut special = [f32::NAN, f32::NEG_INFINITY, -1000.0, 0.0, 1000.0, f32::INFINITY, 1.0, -1.0];
            dispatch!(isa, s => exps(s, &mut special));
            assert!(special[0].is_nan());
            assert!(special[1] < 1e-37 && special[2] < 1e-37 && special[3] == 1.0);
            assert!(special[4] > 1e38 && special[5] > 1e38);
        }
    }

    #[inline(always)]
    fn bits<S: Simd>(s: S, bytes: &[u8; 16], halves: &[u8; 16]) -> Vec<[f32; 8]> {
        let b = s.bytes(bytes);
        let spread = s.with::<4>(s.low(b), s.spread(0b1010_0000_0000_0111));
        let mixed = s.with::<2>(s.and(b, 3), s.low(s.shift::<4>(b)));
        let bytes = [s.low(b), s.high(b), s.shift::<6>(b), s.and(b, 0x81), spread, mixed];
        let floats = bytes.iter().flat_map(
            #[inline(always)]
            |&b| s.unsigned(b),
        );
        let floats = floats.chain(s.signed(b)).chain([s.half(halves), s.upper(halves)]);
        let lanes = |v| {
            let mut out = [0.0; 8];
            s.store(v, &mut out);
            out
        };
        floats.map(lanes).collect()
    }

    #[test]
    fn bytes_mean_the_same_everywhere() {
        let mut seed = Seed::new(3);
        for _ in 0..50 {
            let bytes: [u8; 16] = std::array::from_fn(|_| seed.bits() as u8);
            // Halves below infinity and NaN.
            let halves: [u8; 16] = std::array::from_fn(|_| seed.bits() as u8 & 0xbb);
            let expected = bits(Portable, &bytes, &halves);
            assert_eq!(expected[0][0], f32::from(bytes[0] & 15));
            assert_eq!(expected[11][7], f32::from(bytes[15] & 3 | bytes[15] >> 4 << 2));
            for isa in Isa::all() {
                assert_eq!(dispatch!(isa, s => bits(s, &bytes, &halves)), expected, "{}", isa.name());
            }
        }
    }

    #[inline(always)]
    fn code_dot<S: Simd>(s: S, bytes: &[u8; 16], x: &[i16; 16]) -> [f32; 3] {
        let b = s.bytes(bytes);
        let unsigned = s.dot_codes(s.wide(b), x);
        let both = s.more_codes(unsigned, s.wide_signed(b), x);
        let less = s.dot_codes(s.minus(s.wide(s.low(b)), 8), x);
        [s.sum(s.float(unsigned)), s.sum(s.float(both)), s.sum(s.float(less))]
    }

    #[inline(always)]
    fn twos<S: Simd>(s: S, bits: u32, by: [f32; 2]) -> [f32; 4] {
        let two = s.add_two(s.two_halves(bits), s.two([1.0, -1.0]));
        let [a, b] = s.values(s.mul_two(two, &by));
        let mut first = [0.0; 8];
        s.store(s.splat_first(two), &mut first);
        [a, b, first[0], first[7]]
    }

    #[test]
    fn pairs_of_floats_keep_their_order() {
        for isa in Isa::all() {
            // The halves 2 and 0.5.
            let got = dispatch!(isa, s => twos(s, 0x3800_4000, [10.0, 100.0]));
            assert_eq!(got, [30.0, -50.0, 3.0, 3.0], "{}", isa.name());
        }
    }

    #[test]
    fn dots_of_codes_are_whole_numbers() {
        let mut seed = Seed::new(4);
        for round in 0..50 {
            let bytes: [u8; 16] = std::array::from_fn(|_| seed.bits() as u8);
            // At most 2²⁴ in all, so that f32 holds every sum.
            let x: [i16; 16] =
                std::array::from_fn(|_| if round == 0 { -2000 } else { (seed.bits() % 4001) as i16 - 2000 });
            let sum = |code: &dyn Fn(u8) -> i32| -> i32 {
                bytes.iter().zip(x).map(|(&b, x)| code(b) * i32::from(x)).sum()
            };
            let (unsigned, signed) = (sum(&i32::from), sum(&|b| i32::from(b.cast_signed())));
            let expected =
                [unsigned, unsigned + signed, sum(&|b| i32::from(b & 15) - 8)].map(|sum| sum as f32);
            for isa in Isa::all() {
                assert_eq!(dispatch!(isa, s => code_dot(s, &bytes, &x)), expected, "{}", isa.name());
            }
        }
    }

    /// The transposed square, and the sums of its first two rows of pairs times `x`, times 4 and 1 more.
    #[inline(always)]
    fn pair_sums<S: Simd>(s: S, square: &Pairs, x: [[i16; 2]; 2]) -> ([f32; 16], Pairs) {
        let mut turned = [[[0; 2]; 16]; 16];
        s.transpose(square, &mut turned);
        let mut sums = s.no_sums();
        for (w, x) in turned.iter().zip(x) {
            sums = s.add_dots(sums, s.pairs(w), s.pair(x));
        }
        let mut out = [0.0; 16];
        let ones = s.lanes(&[1.0; 16]);
        s.store_lanes(s.add_scaled(s.add_times(s.no_lanes(), ones, 1.0), sums, ones, 4.0), &mut out);
        (out, turned)
    }

    #[test]
    fn tiles_of_codes_are_whole_numbers() {
        let mut seed = Seed::new(6);
        for round in 0..50 {
            let code = |seed: &mut Seed| match round {
                0 => 127,
                1 => -128,
                _ => i16::from(seed.bits() as i8),
            };
            let square: Pairs =
                std::array::from_fn(|_| std::array::from_fn(|_| [code(&mut seed), code(&mut seed)]));
            let x = match round {
                0 | 1 => [[32767; 2], [-32767, 32767]],
                _ => std::array::from_fn(|_| std::array::from_fn(|_| seed.bits() as i16 >> 3)),
            };
            let expected: [f32; 16] = std::array::from_fn(|output| {
                let dot =
                    |pair: usize, at: usize| i32::from(square[output][pair][at]) * i32::from(x[pair][at]);
                let sum = dot(0, 0) + dot(0, 1) + dot(1, 0) + dot(1, 1);
                sum as f32 * 4.0 + 1.0
            });
            for isa in Isa::all() {
                let (sums, turned) = dispatch!(isa, s => pair_sums(s, &square, x));
                assert_eq!(sums, expected, "{}", isa.name());
                assert!((0..16).all(|a| (0..16).all(|b| turned[b][a] == square[a][b])), "{}", isa.name());
            }
        }
    }

    #[test]
    fn dots_of_any_length_agree_with_f64() {
        let mut seed = Seed::new(5);
        for len in [0, 1, 7, 8, 9, 16, 17, 64, 100] {
            let (a, b) = (seed.vector(len, 1.0), seed.vector(len, 1.0));
            let expected: f64 = a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            for isa in Isa::all() {
                let got = dispatch!(isa, s => s.dot(&a, &b));
                assert!((f64::from(got) - expected).abs() < 1e-5, "{}, {len}: {got} {expected}", isa.name());
            }
        }
    }
}
