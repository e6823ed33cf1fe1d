//! `iq4_xs`: 256 elements in 8 groups of 32: `d: f16`, 16 bits with the high 2 bits of each group's scale, 4 bytes with
//! their low nibbles, 128 bytes of nibbles, 16 for each group as in `iq4_nl`; w = (d·(scale − 32))·level. The products are
//! exact in f32 (11 + 5 + 7 bits).
//!
//! Scales in GPU order, two words a block: d below the high bits; the nibbles.

use super::fit::{error_weights, extreme, inverse, level_error, level_scale, nearest_f16, scale_code};
use super::iq4_nl::{ENDS, encode_nibbles, nearest_level, spell_nibbles};
use super::levels;
use super::words::{half_at, split_nibbles, word_at};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct IQ4_XS;

impl Layout for IQ4_XS {
    fn name(&self) -> &'static str {
        "iq4_xs"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(23)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        136
    }

    fn levels(&self) -> &'static [i8] {
        &levels::UNEVEN
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        let d = half_at(bytes, 0);
        for (group, (nibbles, levels)) in
            bytes[8..].chunks_exact(16).zip(levels.chunks_exact_mut(32)).enumerate()
        {
            let low = bytes[4 + group / 2] >> (4 * (group % 2)) & 15;
            let high = bytes[2 + group / 4] >> (2 * (group % 4)) & 3;
            spell_nibbles(nibbles, levels);
            scales[2 * group..][..2].fill(d * (f32::from(low | high << 4) - 32.0));
        }
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let groups = || values.chunks_exact(32).zip(weights.chunks_exact(32));
        let mut fits = [0.0; 8];
        for (fit, (values, weights)) in fits.iter_mut().zip(groups()) {
            *fit = level_scale(values, weights, ENDS, nearest_level);
        }
        let d = nearest_f16(extreme(&fits) / -32.0);
        bytes.fill(0);
        bytes[..2].copy_from_slice(&d.to_le_bytes());
        let d = d.to_f32();
        for (group, (fit, (values, weights))) in fits.iter().zip(groups()).enumerate() {
            let error = |scale: f32| level_error(values, weights, d * scale, nearest_level);
            let scale = scale_code(fit * inverse(d), -32.0, 31.0, error);
            let code = (scale + 32.0) as u8;
            bytes[4 + group / 2] |= (code & 15) << (4 * (group % 2));
            bytes[2 + group / 4] |= code >> 4 << (2 * (group % 4));
            encode_nibbles(d * scale, values, &mut bytes[8 + 16 * group..][..16]);
        }
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 4 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        let words = codes.chunks_exact_mut(32).zip(scales.chunks_exact_mut(2));
        for (bytes, (codes, scales)) in row.chunks_exact(136).zip(words) {
            for (nibbles, codes) in bytes[8..].chunks_exact(16).zip(codes.chunks_exact_mut(4)) {
                let (low, high) = codes.split_at_mut(2);
                split_nibbles(nibbles, low, high);
            }
            scales.copy_from_slice(&[word_at(bytes, 0), word_at(bytes, 4)]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/iq4_xs.wgsl")
    }
}
