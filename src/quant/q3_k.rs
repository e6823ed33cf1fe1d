//! `q3_k`: 256 elements in 16 groups of 16: 32 bytes of high bits, 64 bytes of low 2 bits as in `q2_k`, 12 bytes of
//! 6-bit scales, `d: f16`; w = (d·(scale − 32))·(q − 4). All products are exact in f32 (11 + 6 + 3 bits).
//!
//! The high bit of element 32·j + l is bit j of byte l. Of the scale of group g the low 4 bits are in byte g mod 8,
//! the lower nibble first, the high 2 bits in byte 8 + g mod 4 at bit 2·(g div 4).
//!
//! Scales in GPU order, twelve words a block: for each 32 elements a word of high bits; for each a byte, the low 4 bits
//! of its first scale below those of its second (two words); for each a nibble, their high 2 bits likewise; d.

use super::fit::{
    codes_around, error_weights, extreme, inverse, nearest_f16, scale_code, symmetric_error, symmetric_scale,
};
use super::q2_k::place;
use super::words::{gather_bits, gather_pairs, half_at, set_half};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct Q3_K;

impl Layout for Q3_K {
    fn name(&self) -> &'static str {
        "q3_k"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(11)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        110
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let d = half_at(bytes, 108);
        for (i, out) in out.iter_mut().enumerate() {
            let (byte, shift) = place(i);
            let low = bytes[32 + byte] >> shift & 3;
            let high = bytes[i % 32] >> (i / 32) & 1;
            let scale = d * (f32::from(scale(&bytes[96..108], i / 16)) - 32.0);
            *out = scale * (f32::from(low | high << 2) - 4.0);
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let group = |i: usize| (&values[16 * i..][..16], &weights[16 * i..][..16]);
        let fits: [f32; 16] = std::array::from_fn(|i| symmetric_scale(group(i).0, group(i).1, 4.0));
        let d = nearest_f16(extreme(&fits) / -32.0);
        bytes.fill(0);
        bytes[108..].copy_from_slice(&d.to_le_bytes());
        let d = d.to_f32();
        for (number, fit) in fits.iter().enumerate() {
            let (values, weights) = group(number);
            let error = |scale: f32| symmetric_error(values, weights, d * scale, 4.0);
            let scale = scale_code(fit * inverse(d), -32.0, 31.0, error);
            set_scale(&mut bytes[96..108], number, (scale + 32.0) as u8);
            let code = codes_around(d * scale, 4.0, 7.0);
            for (i, &v) in values.iter().enumerate() {
                let (i, q) = (16 * number + i, code(v));
                let (byte, shift) = place(i);
                bytes[32 + byte] |= (q & 3) << shift;
                bytes[i % 32] |= q >> 2 << (i / 32);
            }
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 2, scale_halves: 24 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        let words = codes.chunks_exact_mut(16).zip(scales.chunks_exact_mut(12));
        for (bytes, (codes, scales)) in row.chunks_exact(110).zip(words) {
            for (unit, codes) in codes.chunks_exact_mut(2).enumerate() {
                codes.copy_from_slice(&gather_pairs(&bytes[32 + unit / 4 * 32..], 2 * (unit % 4)));
                scales[unit] = gather_bits(bytes, unit);
                let [a, b] = [0, 1].map(|group| u32::from(scale(&bytes[96..108], 2 * unit + group)));
                scales[8 + unit / 4] |= (a & 15 | (b & 15) << 4) << (8 * (unit % 4));
                scales[10] |= (a >> 4 | b >> 4 << 2) << (4 * unit);
            }
            set_half(scales, 22, [bytes[108], bytes[109]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/q3_k.wgsl")
    }
}

/// The 6-bit scale of `group`.
fn scale(packed: &[u8], group: usize) -> u8 {
    let low = packed[group % 8] >> (4 * (group / 8)) & 15;
    low | (packed[8 + group % 4] >> (2 * (group / 4)) & 3) << 4
}

/// The counterpart of [`scale`], into zeroed bytes.
fn set_scale(packed: &mut [u8], group: usize, scale: u8) {
    packed[group % 8] |= (scale & 15) << (4 * (group / 8));
    packed[8 + group % 4] |= scale >> 4 << (2 * (group / 4));
}
