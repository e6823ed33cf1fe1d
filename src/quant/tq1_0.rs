//! `tq1_0`: 256 elements, 52 bytes of base-3 digits, `d: f16`; w = (digit − 1)·d.
//!
//! A byte holds five digits t₀ … t₄ as the fraction 0.t₀t₁t₂t₃t₄ of base 3, rounded up to 8 bits: digit n is what passes
//! the point when the fraction of byte·3ⁿ is multiplied by 3. Digit n of byte m is element 32·n + m for the first 32 bytes,
//! 160 + 16·n + m for the next 16, and 240 + 4·n + m for the last 4, which have only four digits.
//!
//! In GPU order the digits are written out as codes of 2 bits: 2.06 bits an element where the file has 1.69.
//! Scales in GPU order: d.

use super::fit::{error_weights, inverse, level_scale, nearest_f16, whole};
use super::levels;
use super::words::{half_at, set_code, set_half};
use super::{GpuOrder, Layout};

#[allow(non_camel_case_types, reason = "the name of the field, as in the list")]
pub(super) struct TQ1_0;

impl Layout for TQ1_0 {
    fn name(&self) -> &'static str {
        "tq1_0"
    }

    fn gguf_id(&self) -> Option<u32> {
        Some(34)
    }

    fn block_len(&self) -> usize {
        256
    }

    fn block_bytes(&self) -> usize {
        54
    }

    fn levels(&self) -> &'static [i8] {
        &levels::FOUR
    }

    fn spell(&self, bytes: &[u8], levels: &mut [i8], scales: &mut [f32]) {
        scales.fill(half_at(bytes, 52));
        for_each_digit(|element, byte, digit| {
            levels[element] = digit_of(bytes[byte], digit).cast_signed() - 1;
        });
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let weights = error_weights(values, importance);
        let d = nearest_f16(level_scale(values, &weights, [-1.0, 1.0], |v| whole(v, -1.0, 1.0)));
        let inverse = inverse(d.to_f32());
        let mut numbers = [0u16; 52];
        for_each_digit(|element, byte, digit| {
            let value = whole(values[element] * inverse, -1.0, 1.0) + 1.0;
            numbers[byte] += value as u16 * 3u16.pow(4 - digit);
        });
        for (byte, number) in bytes.iter_mut().zip(numbers) {
            *byte = (number * 256).div_ceil(243) as u8;
        }
        bytes[52..].copy_from_slice(&d.to_le_bytes());
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 2, scale_halves: 1 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        for (block, (bytes, codes)) in row.chunks_exact(54).zip(codes.chunks_exact_mut(16)).enumerate() {
            for_each_digit(|element, byte, digit| {
                set_code::<2>(codes, element, u32::from(digit_of(bytes[byte], digit)));
            });
            set_half(scales, block, [bytes[52], bytes[53]]);
        }
    }

    fn wgsl(&self) -> &'static str {
        include_str!("../../shaders/quant/tq2_0.wgsl")
    }
}

/// Calls `take` with each element, its byte and the number of its digit there.
fn for_each_digit(mut take: impl FnMut(usize, usize, u32)) {
    for (first, element, bytes, digits) in [(0, 0, 32, 5), (32, 160, 16, 5), (48, 240, 4, 4)] {
        for digit in 0..digits {
            for byte in 0..bytes {
                take(element + digit as usize * bytes + byte, first + byte, digit);
            }
        }
    }
}

fn digit_of(byte: u8, digit: u32) -> u8 {
    let fraction = byte.wrapping_mul(3u8.pow(digit));
    ((u16::from(fraction) * 3) >> 8) as u8
}
