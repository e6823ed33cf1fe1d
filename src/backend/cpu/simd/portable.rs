//! Arrays of eight; the compiler finds what vector instructions it may assume.

use half::f16;

use super::Simd;

/// No proof is needed.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Portable;

#[inline(always)]
fn each(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
    std::array::from_fn(
        #[inline(always)]
        |i| f(a[i], b[i]),
    )
}

#[inline(always)]
fn halves(bytes: &[u8; 16], f: impl Fn(u16) -> f32) -> [f32; 8] {
    std::array::from_fn(
        #[inline(always)]
        |i| f(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])),
    )
}

#[inline(always)]
fn widen(bytes: [u8; 16], f: impl Fn(u8) -> f32) -> [[f32; 8]; 2] {
    std::array::from_fn(
        #[inline(always)]
        |h| {
            std::array::from_fn(
                #[inline(always)]
                |i| f(bytes[8 * h + i]),
            )
        },
    )
}

impl Simd for Portable {
    type V = [f32; 8];
    type B = [u8; 16];
    type I = [i16; 16];
    type D = [i32; 8];
    type T = [f32; 2];
    type Lanes = [f32; 16];
    type Sums = [i32; 16];
    type Pairs = [[i16; 2]; 16];
    type Pair = [i16; 2];

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }
    #[inline(always)]
    fn splat(self, value: f32) -> [f32; 8] {
        [value; 8]
    }
    #[inline(always)]
    fn load(self, values: &[f32; 8]) -> [f32; 8] {
        *values
    }
    #[inline(always)]
    fn store(self, v: [f32; 8], values: &mut [f32; 8]) {
        *values = v;
    }
    #[inline(always)]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn fma(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        // Not `mul_add`: where it is no instruction it is a slow function.
        std::array::from_fn(
            #[inline(always)]
            |i| a[i] * b[i] + c[i],
        )
    }
    #[inline(always)]
    fn div(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn at_least(self, v: [f32; 8], low: [f32; 8]) -> [f32; 8] {
        each(v, low, |v, low| if v < low { low } else { v })
    }
    #[inline(always)]
    fn at_most(self, v: [f32; 8], high: [f32; 8]) -> [f32; 8] {
        each(v, high, |v, high| if v > high { high } else { v })
    }
    #[inline(always)]
    fn round(self, v: [f32; 8]) -> [f32; 8] {
        // 1.5·2²³ leaves no fraction bits; for |v| < 2²².
        v.map(|v| v + 12_582_912.0 - 12_582_912.0)
    }
    #[inline(always)]
    fn exp2(self, n: [f32; 8]) -> [f32; 8] {
        n.map(|n| f32::from_bits(((n as i32 + 127) << 23).cast_unsigned()))
    }
    #[inline(always)]
    fn sum(self, v: [f32; 8]) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
    #[inline(always)]
    fn max(self, v: [f32; 8]) -> f32 {
        v.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn half_bits(self, bits: u16) -> f32 {
        f16::from_bits(bits).to_f32()
    }
    #[inline(always)]
    fn half(self, bytes: &[u8; 16]) -> [f32; 8] {
        halves(bytes, |bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    fn upper(self, bytes: &[u8; 16]) -> [f32; 8] {
        halves(bytes, |bits| f32::from_bits(u32::from(bits) << 16))
    }
    #[inline(always)]
    fn bytes(self, bytes: &[u8; 16]) -> [u8; 16] {
        *bytes
    }
    #[inline(always)]
    fn low(self, b: [u8; 16]) -> [u8; 16] {
        b.map(|b| b & 15)
    }
    #[inline(always)]
    fn high(self, b: [u8; 16]) -> [u8; 16] {
        b.map(|b| b >> 4)
    }
    #[inline(always)]
    fn shift<const N: i32>(self, b: [u8; 16]) -> [u8; 16] {
        b.map(|b| b >> N)
    }
    #[inline(always)]
    fn and(self, b: [u8; 16], mask: u8) -> [u8; 16] {
        b.map(|b| b & mask)
    }
    #[inline(always)]
    fn with<const N: i32>(self, b: [u8; 16], c: [u8; 16]) -> [u8; 16] {
        std::array::from_fn(
            #[inline(always)]
            |i| b[i] | c[i] << N,
        )
    }
    #[inline(always)]
    fn spread(self, bits: u16) -> [u8; 16] {
        std::array::from_fn(
            #[inline(always)]
            |i| (bits >> i & 1) as u8,
        )
    }
    #[inline(always)]
    fn unsigned(self, b: [u8; 16]) -> [[f32; 8]; 2] {
        widen(b, f32::from)
    }
    #[inline(always)]
    fn signed(self, b: [u8; 16]) -> [[f32; 8]; 2] {
        widen(b, |b| f32::from(b.cast_signed()))
    }
    #[inline(always)]
    fn wide(self, b: [u8; 16]) -> [i16; 16] {
        b.map(i16::from)
    }
    #[inline(always)]
    fn wide_signed(self, b: [u8; 16]) -> [i16; 16] {
        b.map(|b| i16::from(b.cast_signed()))
    }
    #[inline(always)]
    fn minus(self, i: [i16; 16], less: i16) -> [i16; 16] {
        i.map(|i| i - less)
    }
    #[inline(always)]
    fn dot_codes(self, i: [i16; 16], x: &[i16; 16]) -> [i32; 8] {
        let mut sums = [0; 8];
        for (lane, sum) in sums.iter_mut().enumerate() {
            let term = |at: usize| i32::from(i[at]) * i32::from(x[at]);
            *sum = term(2 * lane) + term(2 * lane + 1);
        }
        sums
    }
    #[inline(always)]
    fn more_codes(self, d: [i32; 8], i: [i16; 16], x: &[i16; 16]) -> [i32; 8] {
        let more = self.dot_codes(i, x);
        std::array::from_fn(
            #[inline(always)]
            |lane| d[lane] + more[lane],
        )
    }
    #[inline(always)]
    fn two(self, values: [f32; 2]) -> [f32; 2] {
        values
    }
    #[inline(always)]
    fn two_halves(self, bits: u32) -> [f32; 2] {
        [self.half_bits(bits as u16), self.half_bits((bits >> 16) as u16)]
    }
    #[inline(always)]
    fn mul_two(self, a: [f32; 2], b: &[f32; 2]) -> [f32; 2] {
        [a[0] * b[0], a[1] * b[1]]
    }
    #[inline(always)]
    fn add_two(self, a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
        [a[0] + b[0], a[1] + b[1]]
    }
    #[inline(always)]
    fn splat_first(self, two: [f32; 2]) -> [f32; 8] {
        [two[0]; 8]
    }
    #[inline(always)]
    fn values(self, two: [f32; 2]) -> [f32; 2] {
        two
    }
    #[inline(always)]
    fn float(self, d: [i32; 8]) -> [f32; 8] {
        d.map(|d| d as f32)
    }
    #[inline(always)]
    fn store_codes(self, i: [[i16; 16]; 2], codes: &mut [[i16; 2]; 16]) {
        codes.as_flattened_mut().copy_from_slice(i.as_flattened());
    }
    #[inline(always)]
    fn pairs(self, codes: &[[i16; 2]; 16]) -> [[i16; 2]; 16] {
        *codes
    }
    #[inline(always)]
    fn pair(self, codes: [i16; 2]) -> [i16; 2] {
        codes
    }
    #[inline(always)]
    fn no_sums(self) -> [i32; 16] {
        [0; 16]
    }
    #[inline(always)]
    fn add_dots(self, mut sums: [i32; 16], w: [[i16; 2]; 16], x: [i16; 2]) -> [i32; 16] {
        for (sum, w) in sums.iter_mut().zip(w) {
            *sum += i32::from(w[0]) * i32::from(x[0]) + i32::from(w[1]) * i32::from(x[1]);
        }
        sums
    }
    #[inline(always)]
    fn no_lanes(self) -> [f32; 16] {
        [0.0; 16]
    }
    #[inline(always)]
    fn lanes(self, values: &[f32; 16]) -> [f32; 16] {
        *values
    }
    #[inline(always)]
    fn store_lanes(self, lanes: [f32; 16], values: &mut [f32; 16]) {
        *values = lanes;
    }
    #[inline(always)]
    fn add_scaled(self, mut to: [f32; 16], sums: [i32; 16], scales: [f32; 16], x: f32) -> [f32; 16] {
        for (to, (sum, scale)) in to.iter_mut().zip(sums.into_iter().zip(scales)) {
            *to += sum as f32 * (scale * x);
        }
        to
    }
    #[inline(always)]
    fn add_times(self, mut to: [f32; 16], a: [f32; 16], x: f32) -> [f32; 16] {
        for (to, a) in to.iter_mut().zip(a) {
            *to += a * x;
        }
        to
    }
}
