//! `q4_k`: 256 elements in 8 groups of 32: `d: f16`, `dmin: f16`, 12 bytes of 6-bit scales and minimums, 128
//! bytes of nibbles; per 64 elements the low nibbles of 32 bytes are one group, the high ones the next;
//! w = (d·scale)·q − dmin·min. All products are exact in f32 (11 + 6 + 4 bits), so a fused multiply-add gives
//! the same bits.
//!
//! Scales in GPU order, four words a block: d and dmin; for each group a byte, its scale's low 4 bits below its
//! minimum's (two words); for each group a nibble, the scale's high 2 bits below the minimum's.

use super::fit::{Affine, codes_above, error_weights, nearest_f16};
use super::words::{half_at, split_nibbles, word_at};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct Q4_K;

impl Layout for Q4_K {
    fn name(&self) -> &'static str {
        "q4_k"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(12)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        144
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        let header = Header::of(bytes);
        for (pair, (nibbles, out)) in bytes[16..].chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
            let (scale, min) = header.group(2 * pair);
            let (scale_high, min_high) = header.group(2 * pair + 1);
            for (j, &byte) in nibbles.iter().enumerate() {
                out[j] = scale * f32::from(byte & 15) - min;
                out[j + 32] = scale_high * f32::from(byte >> 4) - min_high;
            }
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let (header, nibbles) = bytes.split_at_mut(16);
        nibbles.fill(0);
        let codes = Header::encode(values, &weights, 15.0, header);
        for (group, (values, code)) in values.chunks_exact(32).zip(codes).enumerate() {
            for (byte, &v) in nibbles[group / 2 * 32..].iter_mut().zip(values) {
                *byte |= code(v) << (4 * (group % 2));
            }
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 8 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        let words = codes.chunks_exact_mut(32).zip(scales.chunks_exact_mut(4));
        for (bytes, (codes, scales)) in row.chunks_exact(144).zip(words) {
            for (nibbles, codes) in bytes[16..].chunks_exact(32).zip(codes.chunks_exact_mut(8)) {
                let (low, high) = codes.split_at_mut(4);
                split_nibbles(nibbles, low, high);
            }
            repack_header(bytes, scales);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/q4_k.wgsl")
    }

    fn wgsl_codes(&self) -> Option<&'static str> {
        Some(include_str!("../../shaders/quant/q4_k_codes.wgsl"))
    }
}

/// The first 16 bytes of a block of `q4_k` or `q5_k`: d, dmin, and a scale and a minimum for each of 8 groups.
pub(super) struct Header<'a> {
    d: f32,
    dmin: f32,
    packed: &'a [u8],
}

impl<'a> Header<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { d: half_at(bytes, 0), dmin: half_at(bytes, 2), packed: &bytes[4..16] }
    }

    /// The scale and the minimum of a group.
    pub(super) fn group(&self, group: usize) -> (f32, f32) {
        let (scale, min) = scale_min(self.packed, group);
        (self.d * f32::from(scale), self.dmin * f32::from(min))
    }

    /// Writes the header of a block for codes up to `last`, and gives for each group what codes its values.
    pub(super) fn encode(
        values: &[f32],
        weights: &[f32],
        last: f32,
        bytes: &mut [u8],
    ) -> [impl Fn(f32) -> u8 + use<>; 8] {
        let group = |i: usize| (&values[32 * i..][..32], &weights[32 * i..][..32], last);
        let fits: [Affine; 8] = std::array::from_fn(|i| Affine::of(group(i)));
        let most = |part: fn(&Affine) -> f32| fits.iter().map(part).fold(0.0, f32::max);
        let (d, dmin) = (nearest_f16(most(|fit| fit.scale) / 63.0), nearest_f16(most(|fit| fit.min) / 63.0));
        bytes.fill(0);
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        bytes[2..4].copy_from_slice(&dmin.to_le_bytes());
        for (i, fit) in fits.iter().enumerate() {
            let (scale, min) = fit.rounded(group(i), (d.to_f32(), dmin.to_f32(), 63.0));
            set_scale_min(&mut bytes[4..16], i, scale, min);
        }
        let header = Header::of(bytes);
        std::array::from_fn(|group| {
            let (scale, min) = header.group(group);
            codes_above(scale, -min, last)
        })
    }
}

/// The four words of a header in GPU order, into zeroed words.
pub(super) fn repack_header(bytes: &[u8], scales: &mut [u32]) {
    scales[0] = word_at(bytes, 0);
    for group in 0..8 {
        let (scale, min) = scale_min(&bytes[4..16], group);
        let (low, high) = (scale & 15 | min << 4, scale >> 4 | min >> 4 << 2);
        scales[1 + group / 4] |= u32::from(low) << (8 * (group % 4));
        scales[3] |= u32::from(high) << (4 * group);
    }
}

/// The 6-bit scale and minimum of `group`: the first four groups in the low 6 bits of bytes 0..4 and 4..8, the
/// others with their low 4 bits in bytes 8..12 and their high 2 bits above the first four.
fn scale_min(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (packed[group] & 63, packed[group + 4] & 63);
    }
    let low = packed[group + 4];
    (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
}

/// The counterpart of [`scale_min`], into zeroed bytes.
fn set_scale_min(packed: &mut [u8], group: usize, scale: u8, min: u8) {
    if group < 4 {
        packed[group] |= scale;
        packed[group + 4] |= min;
    } else {
        packed[group + 4] |= scale & 15 | min << 4;
        packed[group - 4] |= scale >> 4 << 6;
        packed[group] |= min >> 4 << 6;
    }
}
