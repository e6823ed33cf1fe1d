//! `q2_k`: 256 elements in 16 groups of 16: 16 bytes with a 4-bit scale below a 4-bit minimum, 64 bytes of codes,
//! `d: f16`, `dmin: f16`; w = (d·scale)·q − dmin·min. All products are exact in f32 (11 + 4 + 2 bits), so a fused
//! multiply-add gives the same bits.
//!
//! Per 128 elements, 32 bytes hold the codes of elements l, l + 32, l + 64, l + 96 from the lowest bit up.
//!
//! Scales in GPU order, five words a block: four of the groups' bytes; d and dmin.

use super::fit::{Affine, codes_above, error_weights, nearest_f16};
use super::words::{copy_words, gather_pairs, half_at, word_at};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct Q2_K;

impl Layout for Q2_K {
    fn name(&self) -> &'static str {
        "q2_k"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(10)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        84
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let (d, dmin) = (half_at(bytes, 80), half_at(bytes, 82));
        for (i, out) in out.iter_mut().enumerate() {
            let group = bytes[i / 16];
            let (byte, shift) = place(i);
            let scale = d * f32::from(group & 15);
            *out = scale * f32::from(bytes[16 + byte] >> shift & 3) - dmin * f32::from(group >> 4);
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let group = |i: usize| (&values[16 * i..][..16], &weights[16 * i..][..16], 3.0);
        let fits: [Affine; 16] = std::array::from_fn(|i| Affine::of(group(i)));
        let most = |part: fn(&Affine) -> f32| fits.iter().map(part).fold(0.0, f32::max);
        let (d, dmin) = (nearest_f16(most(|fit| fit.scale) / 15.0), nearest_f16(most(|fit| fit.min) / 15.0));
        bytes.fill(0);
        bytes[80..82].copy_from_slice(&d.to_le_bytes());
        bytes[82..84].copy_from_slice(&dmin.to_le_bytes());
        let (d, dmin) = (d.to_f32(), dmin.to_f32());
        for (i, fit) in fits.iter().enumerate() {
            let (scale, min) = fit.rounded(group(i), (d, dmin, 15.0));
            bytes[i] = scale | min << 4;
            let code = codes_above(d * f32::from(scale), -dmin * f32::from(min), 3.0);
            for (j, &v) in group(i).0.iter().enumerate() {
                let (byte, shift) = place(16 * i + j);
                bytes[16 + byte] |= code(v) << shift;
            }
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 2, scale_halves: 10 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        let words = codes.chunks_exact_mut(16).zip(scales.chunks_exact_mut(5));
        for (bytes, (codes, scales)) in row.chunks_exact(84).zip(words) {
            for (unit, codes) in codes.chunks_exact_mut(2).enumerate() {
                codes.copy_from_slice(&gather_pairs(&bytes[16 + unit / 4 * 32..], 2 * (unit % 4)));
            }
            copy_words(&bytes[..16], &mut scales[..4]);
            scales[4] = word_at(bytes, 80);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/q2_k.wgsl")
    }
}

/// The byte of the codes that holds `element`, and how far its 2 bits are shifted.
pub(super) fn place(element: usize) -> (usize, usize) {
    (element / 128 * 32 + element % 32, element % 128 / 32 * 2)
}
