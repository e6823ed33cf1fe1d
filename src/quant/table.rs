//! Formats whose codes name one of sixteen values: 32 elements, `s: f32`, 16 bytes of nibbles, element j in the low nibble
//! of byte j, element j + 16 in its high nibble; w = T[q]·s.

use super::fit::extreme;
use super::words::{float_at, set_nibbles, split_nibbles, word_at};

pub(super) fn decode(table: &[f32; 16], bytes: &[u8], out: &mut [f32]) {
    let s = float_at(bytes, 0);
    for (j, &byte) in bytes[4..].iter().enumerate() {
        out[j] = table[usize::from(byte & 15)] * s;
        out[j + 16] = table[usize::from(byte >> 4)] * s;
    }
}

pub(super) fn encode(table: &[f32; 16], values: &[f32], bytes: &mut [u8]) {
    let s = extreme(values).abs();
    let code = |v: f32| {
        let off = |&code: &u8| (table[usize::from(code)] * s - v).abs();
        (0..16).min_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or(0)
    };
    bytes[..4].copy_from_slice(&s.to_le_bytes());
    set_nibbles(values, code, &mut bytes[4..]);
}

pub(super) fn repack(row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
    for (block, (bytes, codes)) in row.chunks_exact(20).zip(codes.chunks_exact_mut(4)).enumerate() {
        let (low, high) = codes.split_at_mut(2);
        split_nibbles(&bytes[4..], low, high);
        scales[block] = word_at(bytes, 0);
    }
}
