//! Arrays of eight; the compiler finds what vector instructions it may assume.

use half::f16;

use super::{Code, Run, Simd};

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
    type Lanes = [f32; 16];
    type Sums = [i32; 16];
    type Quads = [u8; 64];

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
    fn table(self, b: [u8; 16], table: &[i8; 16]) -> [u8; 16] {
        b.map(|b| table[usize::from(b & 15)].cast_unsigned())
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
    fn quads(self, bytes: &[u8; 64]) -> [u8; 64] {
        *bytes
    }
    #[inline(always)]
    fn quads_and(self, q: [u8; 64], mask: u8) -> [u8; 64] {
        q.map(|q| q & mask)
    }
    #[inline(always)]
    fn quads_or(self, mut a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        a.iter_mut().zip(b).for_each(|(a, b)| *a |= b);
        a
    }
    #[inline(always)]
    fn quads_left<const N: i32>(self, q: [u8; 64]) -> [u8; 64] {
        q.map(|q| q << N)
    }
    #[inline(always)]
    fn quads_right<const N: i32>(self, q: [u8; 64]) -> [u8; 64] {
        q.map(|q| q >> N)
    }
    #[inline(always)]
    fn quads_table(self, q: [u8; 64], table: &[i8; 16]) -> [u8; 64] {
        q.map(|q| table[usize::from(q & 15)].cast_unsigned())
    }
    #[inline(always)]
    fn quads_bits(self, q: [u8; 64], at: usize) -> [u8; 64] {
        let mut bits = [0; 64];
        for (bits, q) in bits.as_chunks_mut::<4>().0.iter_mut().zip(q.as_chunks::<4>().0) {
            *bits = std::array::from_fn(
                #[inline(always)]
                |i| q[(at + i) / 8] >> ((at + i) % 8) & 1,
            );
        }
        bits
    }
    #[inline(always)]
    fn quads_byte(self, q: [u8; 64], at: usize) -> [f32; 16] {
        std::array::from_fn(
            #[inline(always)]
            |lane| f32::from(q[4 * lane + at]),
        )
    }
    #[inline(always)]
    fn dot_quads<const N: usize>(self, w: &[[u8; 64]], x: &Run, at: usize, codes: Code) -> [i32; 16] {
        let mut sums = [x.sum::<N>(at).wrapping_mul(-codes.offset); 16];
        for (i, w) in w[..N].iter().enumerate() {
            let (high, low) = (x.high[at + i], x.low[at + i]);
            for (sum, w) in sums.iter_mut().zip(w.as_chunks::<4>().0) {
                for j in 0..4 {
                    let w = if codes.bits == 8 { i32::from(w[j].cast_signed()) } else { i32::from(w[j]) };
                    *sum += w * (256 * i32::from(high[j]) + i32::from(low[j]));
                }
            }
        }
        sums
    }
    #[inline(always)]
    fn no_lanes(self) -> [f32; 16] {
        [0.0; 16]
    }
    #[inline(always)]
    fn lanes(self, bytes: &[u8; 64]) -> [f32; 16] {
        bytemuck::pod_read_unaligned(bytes)
    }
    #[inline(always)]
    fn lanes_half(self, bytes: &[u8; 32]) -> [f32; 16] {
        let (halves, _) = bytes.as_chunks::<2>();
        std::array::from_fn(
            #[inline(always)]
            |i| self.half_bits(u16::from_le_bytes(halves[i])),
        )
    }
    #[inline(always)]
    fn lanes_full(self, bytes: &[u8; 64]) -> [f32; 16] {
        let (words, _) = bytes.as_chunks::<4>();
        std::array::from_fn(
            #[inline(always)]
            |i| f32::from_le_bytes(words[i]),
        )
    }
    #[inline(always)]
    fn lanes_signed(self, bytes: &[u8; 16]) -> [f32; 16] {
        bytes.map(|byte| f32::from(byte.cast_signed()))
    }
    #[inline(always)]
    fn lanes_mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(
            #[inline(always)]
            |i| a[i] * b[i],
        )
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
