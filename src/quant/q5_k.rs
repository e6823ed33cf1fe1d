//! `q5_k`: 256 elements in 8 groups of 32: `d: f16`, `dmin: f16`, 12 bytes of 6-bit scales and minimums as in `q4_k`,
//! 32 bytes of fifth bits, 128 bytes of nibbles as in `q4_k`; w = (d·scale)·q − dmin·min. All products are exact in f32
//! (11 + 6 + 5 bits), so a fused multiply-add gives the same bits.
//!
//! The fifth bit of element 32·j + l is bit j of byte l.
//!
//! Scales in GPU order, twelve words a block: four as in `q4_k`; for each group a word of fifth bits.

use super::fit::error_weights;
use super::q4_k::{Header, repack_header};
use super::words::{gather_bits, split_nibbles};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct Q5_K;

impl Layout for Q5_K {
    fn name(&self) -> &'static str {
        "q5_k"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(13)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        176
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let header = Header::of(bytes);
        for (group, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, min) = header.group(group);
            for (j, out) in out.iter_mut().enumerate() {
                let nibble = bytes[48 + group / 2 * 32 + j] >> (4 * (group % 2)) & 15;
                let fifth = bytes[16 + j] >> group & 1;
                *out = scale * f32::from(nibble | fifth << 4) - min;
            }
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let (header, rest) = bytes.split_at_mut(16);
        rest.fill(0);
        let codes = Header::encode(values, &weights, 31.0, header);
        for (group, (values, code)) in values.chunks_exact(32).zip(codes).enumerate() {
            for (j, &v) in values.iter().enumerate() {
                let q = code(v);
                rest[32 + group / 2 * 32 + j] |= (q & 15) << (4 * (group % 2));
                rest[j] |= q >> 4 << group;
            }
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 24 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        let words = codes.chunks_exact_mut(32).zip(scales.chunks_exact_mut(12));
        for (bytes, (codes, scales)) in row.chunks_exact(176).zip(words) {
            for (nibbles, codes) in bytes[48..].chunks_exact(32).zip(codes.chunks_exact_mut(8)) {
                let (low, high) = codes.split_at_mut(4);
                split_nibbles(nibbles, low, high);
            }
            repack_header(bytes, scales);
            for (group, fifths) in scales[4..].iter_mut().enumerate() {
                *fifths = gather_bits(&bytes[16..], group);
            }
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/q5_k.wgsl")
    }
}
