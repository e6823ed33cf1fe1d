//! `q6_k`: 256 elements in 16 groups of 16: 128 bytes of low nibbles, 64 bytes of high 2 bits, 16 signed byte
//! scales, `d: f16`; w = (d·scale)·(q − 32). All products are exact in f32 (11 + 7 + 5 bits).
//!
//! Per 128 elements, 64 bytes hold the low nibbles of elements l and l + 64, and 32 bytes the high 2 bits of
//! elements l, l + 32, l + 64, l + 96 from the lowest bit up.
//!
//! Scales in GPU order, 21 words a block: for each 32 elements two words of 2-bit fields; four words of group
//! scales; d.

use super::fit::{
    codes_around, error_weights, extreme, inverse, nearest_f16, scale_code, symmetric_error, symmetric_scale,
};
use super::words::{copy_words, gather_pairs, half_at, set_half, split_nibbles};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct Q6_K;

impl Layout for Q6_K {
    fn name(&self) -> &'static str {
        "q6_k"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(14)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        210
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let d = half_at(bytes, 208);
        for (i, out) in out.iter_mut().enumerate() {
            let at = Place::of(i);
            let low = bytes[at.low] >> at.low_shift & 15;
            let high = bytes[at.high] >> at.high_shift & 3;
            let scale = d * f32::from(bytes[192 + i / 16].cast_signed());
            *out = scale * (f32::from(low | high << 4) - 32.0);
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let group = |i: usize| (&values[16 * i..][..16], &weights[16 * i..][..16]);
        let fits: [f32; 16] = std::array::from_fn(|i| symmetric_scale(group(i).0, group(i).1, 32.0));
        let d = nearest_f16(extreme(&fits) / -128.0);
        bytes.fill(0);
        bytes[208..].copy_from_slice(&d.to_le_bytes());
        let d = d.to_f32();
        for (number, fit) in fits.iter().enumerate() {
            let (values, weights) = group(number);
            let error = |scale: f32| symmetric_error(values, weights, d * scale, 32.0);
            let scale = scale_code(fit * inverse(d), -128.0, 127.0, error);
            bytes[192 + number] = (scale as i8).cast_unsigned();
            let code = codes_around(d * scale, 32.0, 63.0);
            for (i, &v) in values.iter().enumerate() {
                let (at, q) = (Place::of(16 * number + i), code(v));
                bytes[at.low] |= (q & 15) << at.low_shift;
                bytes[at.high] |= q >> 4 << at.high_shift;
            }
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 42 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        let words = codes.chunks_exact_mut(32).zip(scales.chunks_exact_mut(21));
        for (bytes, (codes, scales)) in row.chunks_exact(210).zip(words) {
            for (nibbles, codes) in bytes[..128].chunks_exact(64).zip(codes.chunks_exact_mut(16)) {
                let (low, high) = codes.split_at_mut(8);
                split_nibbles(nibbles, low, high);
            }
            for (unit, high) in scales[..16].chunks_exact_mut(2).enumerate() {
                high.copy_from_slice(&gather_pairs(&bytes[128 + unit / 4 * 32..], 2 * (unit % 4)));
            }
            copy_words(&bytes[192..208], &mut scales[16..20]);
            set_half(scales, 40, [bytes[208], bytes[209]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/q6_k.wgsl")
    }

    fn wgsl_codes(&self) -> Option<&'static str> {
        Some(include_str!("../../shaders/quant/q6_k_codes.wgsl"))
    }
}

/// Where an element's code stands in a block.
struct Place {
    low: usize,
    low_shift: usize,
    high: usize,
    high_shift: usize,
}

impl Place {
    fn of(element: usize) -> Self {
        let (half, i) = (element / 128, element % 128);
        Self {
            low: 64 * half + i % 64,
            low_shift: 4 * (i / 64),
            high: 128 + 32 * half + i % 32,
            high_shift: 2 * (i / 32),
        }
    }
}
