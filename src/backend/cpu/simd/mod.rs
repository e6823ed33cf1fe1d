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

/// 32 activations as whole numbers 256 · high + low, times a scale. Both parts are in quads and fit the dot products of
/// bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    pub(super) high: [[i8; 4]; 8],
    pub(super) low: [[i8; 4]; 8],
    pub(super) scale: f32,
    /// Σ numbers · scale.
    pub(super) total: f32,
    /// Σ numbers of each half.
    pub(super) sums: [i32; 2],
}

/// What the codes of weights are: unsigned numbers of so many bits, or signed ones of 8 bits with an offset of 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code {
    pub(super) bits: u32,
    /// The code of zero.
    pub(super) offset: i32,
}

impl Run {
    /// The largest number, either sign: 256 · 127 + 127.
    pub(super) const MOST: i16 = 32639;

    /// Σ numbers of `N` quads from `at` on: all, or one half.
    #[inline(always)]
    fn sum<const N: usize>(&self, at: usize) -> i32 {
        if N == 8 { self.sums[0] + self.sums[1] } else { self.sums[at / 4] }
    }
}

/// The instruction set that computes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon<false>),
    #[cfg(target_arch = "aarch64")]
    NeonDots(Neon<true>),
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
        {
            all.extend(Neon::<false>::find().map(Self::Neon));
            all.extend(Neon::<true>::find().map(Self::NeonDots));
        }
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
            #[cfg(target_arch = "aarch64")]
            Self::NeonDots(_) => "NEON dotprod",
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
            #[cfg(target_arch = "aarch64")]
            $crate::backend::cpu::simd::Isa::NeonDots($s) => $crate::backend::cpu::simd::Simd::vectorize(
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

/// Operations on eight f32 (`V`), on sixteen bytes (`B`), and on sixteen lanes of one weight row each.
pub(super) trait Simd: Copy + Send + Sync + 'static {
    type V: Copy + Send + Sync;
    type B: Copy;
    /// Sixteen f32, sixteen sums in i32, and sixteen times four bytes.
    type Lanes: Copy;
    type Sums: Copy;
    type Quads: Copy;
    /// Whether the registers hold sixteen `Lanes` and eight `Quads`.
    const WIDE: bool = false;

    /// Runs `f` compiled for these instructions; what `f` calls must be `#[inline(always)]`.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;

    /// Asks memory for the line in which byte `at` behind the beginning of `from` lies, in it or beyond; a hint, where there is
    /// one.
    #[inline(always)]
    fn fetch(self, _from: &[u8], _at: usize) {}

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
    /// The entry of the table that each byte, below 16, is the number of.
    fn table(self, b: Self::B, table: &[i8; 16]) -> Self::B;
    fn unsigned(self, b: Self::B) -> [Self::V; 2];
    fn signed(self, b: Self::B) -> [Self::V; 2];

    /// Four bytes for each of sixteen lanes.
    fn quads(self, bytes: &[u8; 64]) -> Self::Quads;
    fn quads_and(self, q: Self::Quads, mask: u8) -> Self::Quads;
    fn quads_or(self, a: Self::Quads, b: Self::Quads) -> Self::Quads;
    /// Each byte shifted left by `N` bits; no bit is shifted out.
    fn quads_left<const N: i32>(self, q: Self::Quads) -> Self::Quads;
    /// Each byte shifted right by `N` bits.
    fn quads_right<const N: i32>(self, q: Self::Quads) -> Self::Quads;
    /// The entry of the table that each byte, below 16, is the number of.
    fn quads_table(self, q: Self::Quads, table: &[i8; 16]) -> Self::Quads;
    /// 1 in byte i of a lane where its bit `at + i` is set; `at` is a multiple of 4.
    fn quads_bits(self, q: Self::Quads, at: usize) -> Self::Quads;
    /// Byte `at` of each lane.
    fn quads_byte(self, q: Self::Quads, at: usize) -> Self::Lanes;
    /// Σ (code − offset) · number over the first `N` quads of weights and the activations from quad `at` of a run on:
    /// all eight, or four.
    fn dot_quads<const N: usize>(self, w: &[Self::Quads], x: &Run, at: usize, codes: Code) -> Self::Sums;

    fn no_lanes(self) -> Self::Lanes;
    /// Sixteen f32.
    fn lanes(self, bytes: &[u8; 64]) -> Self::Lanes;
    /// Sixteen IEEE halves.
    fn lanes_half(self, bytes: &[u8; 32]) -> Self::Lanes;
    /// Sixteen f32.
    fn lanes_full(self, bytes: &[u8; 64]) -> Self::Lanes;
    /// Sixteen signed bytes.
    fn lanes_signed(self, bytes: &[u8; 16]) -> Self::Lanes;
    fn lanes_mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
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

    const SQUARES: [i8; 16] = [0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100, 121, -112, -87, -60, -31];

    #[inline(always)]
    fn bits<S: Simd>(s: S, bytes: &[u8; 16], halves: &[u8; 16]) -> Vec<[f32; 8]> {
        let b = s.bytes(bytes);
        let spread = s.with::<4>(s.low(b), s.spread(0b1010_0000_0000_0111));
        let mixed = s.with::<2>(s.and(b, 3), s.low(s.shift::<4>(b)));
        let named = s.table(s.low(b), &SQUARES);
        let bytes = [s.low(b), s.high(b), s.shift::<6>(b), s.and(b, 0x81), spread, mixed, named];
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
    fn quads<S: Simd>(s: S, bytes: &[u8; 64]) -> Vec<[f32; 16]> {
        let q = s.quads(bytes);
        let low = s.quads_and(q, 15);
        let mixed = s.quads_or(s.quads_left::<4>(s.quads_and(low, 3)), s.quads_right::<6>(q));
        let named = s.quads_table(low, &SQUARES);
        let all = [q, low, mixed, s.quads_right::<4>(q), s.quads_bits(q, 0), s.quads_bits(q, 20), named];
        let bytes = all.iter().flat_map(
            #[inline(always)]
            |&q| [0, 1, 2, 3].map(|at| s.quads_byte(q, at)),
        );
        let store = |lanes| {
            let mut out = [0.0; 16];
            s.store_lanes(lanes, &mut out);
            out
        };
        bytes.map(store).collect()
    }

    #[test]
    fn quads_mean_the_same_everywhere() {
        let mut seed = Seed::new(7);
        for _ in 0..50 {
            let bytes: [u8; 64] = std::array::from_fn(|_| seed.bits() as u8);
            let expected = quads(Portable, &bytes);
            assert_eq!(expected[6][15], f32::from(bytes[62] & 15));
            assert_eq!(expected[19][3], f32::from(bytes[12] >> 3 & 1));
            assert_eq!(expected[20][5], f32::from(bytes[22] >> 4 & 1));
            assert_eq!(expected[24][1], f32::from((bytes[4] & 15).pow(2)));
            for isa in Isa::all() {
                assert_eq!(dispatch!(isa, s => quads(s, &bytes)), expected, "{}", isa.name());
            }
        }
    }

    #[inline(always)]
    fn lanes<S: Simd>(s: S, bytes: &[u8; 32]) -> [f32; 16] {
        let (halves, signed) = (s.lanes_half(bytes), s.lanes_signed(bytes.first_chunk().unwrap()));
        let mut out = [0.0; 16];
        s.store_lanes(s.add_times(s.lanes_mul(halves, signed), signed, -3.0), &mut out);
        s.store_lanes(s.lanes(bytemuck::cast_ref(&out)), &mut out);
        out
    }

    #[test]
    fn lanes_mean_the_same_everywhere() {
        let mut seed = Seed::new(10);
        for _ in 0..50 {
            // Halves that are numbers; products that are whole numbers of 2⁻²⁴ below 1.
            let bytes: [u8; 32] =
                std::array::from_fn(|i| seed.bits() as u8 & if i % 2 == 0 { 0xff } else { 0x83 });
            let half = |i: usize| half::f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32();
            let expected: [f32; 16] = std::array::from_fn(|i| {
                let signed = f32::from(bytes[i].cast_signed());
                half(i) * signed + signed * -3.0
            });
            for isa in Isa::all() {
                let got = dispatch!(isa, s => lanes(s, &bytes));
                assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{}", isa.name());
            }
        }
    }

    /// The sums of all quads, and of the last four of them, with a factor of 2⁻⁴.
    #[inline(always)]
    fn quad_dots<S: Simd>(s: S, w: &[[u8; 64]; 8], x: &Run, code: Code) -> [[f32; 16]; 2] {
        let w = w.map(
            #[inline(always)]
            |w| s.quads(&w),
        );
        let ones = s.lanes_half(&[0, 0x3c].repeat(16).try_into().unwrap());
        let all = s.dot_quads::<8>(&w, x, 0, code);
        let last = s.dot_quads::<4>(&w[4..], x, 4, code);
        [all, last].map(
            #[inline(always)]
            |dots| {
                let mut out = [0.0; 16];
                s.store_lanes(s.add_scaled(s.no_lanes(), dots, ones, 0.0625), &mut out);
                out
            },
        )
    }

    #[test]
    fn dots_of_codes_are_whole_numbers() {
        let mut seed = Seed::new(6);
        let codes = [(4, 8), (4, 0), (5, 16), (6, 32), (8, 0)].map(|(bits, offset)| Code { bits, offset });
        for (round, code) in (0..200).zip(codes.iter().copied().cycle()) {
            // The extremes first: they must not saturate.
            let most = [(1u32 << code.bits) - 1, 1 << (code.bits - 1)][usize::from(code.bits == 8)] as u8;
            let weight = |seed: &mut Seed| if round < 20 { most } else { seed.bits() as u8 & most };
            let w: [[u8; 64]; 8] = std::array::from_fn(|_| std::array::from_fn(|_| weight(&mut seed)));
            let number = |seed: &mut Seed| match round {
                0..5 => Run::MOST,
                5..10 => -Run::MOST,
                10..15 => -128,
                // The low byte at its least, the high one at its most.
                15..20 => 32384,
                _ => (seed.bits() as i16).clamp(-Run::MOST, Run::MOST),
            };
            let x: [[i16; 4]; 8] = std::array::from_fn(|_| std::array::from_fn(|_| number(&mut seed)));
            let sum = |quads: std::ops::Range<usize>| x[quads].iter().flatten().map(|&x| i32::from(x)).sum();
            let run = Run {
                high: x.map(|x| x.map(|x| ((x + 128) >> 8) as i8)),
                low: x.map(|x| x.map(|x| x as i8)),
                sums: [sum(0..4), sum(4..8)],
                ..Run::default()
            };
            let dot = |lane: usize, first: usize| {
                let mut dot = 0;
                for quad in first..8 {
                    for j in 0..4 {
                        let byte = w[quad][4 * lane + j];
                        let w = if code.bits == 8 { i32::from(byte.cast_signed()) } else { i32::from(byte) };
                        dot += (w - code.offset) * i32::from(x[quad][j]);
                    }
                }
                dot as f32 * 0.0625
            };
            let expected = [0, 4].map(|first| std::array::from_fn(|lane| dot(lane, first)));
            for isa in Isa::all() {
                let got = dispatch!(isa, s => quad_dots(s, &w, &run, code));
                assert_eq!(got, expected, "{}, {code:?}, round {round}", isa.name());
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
