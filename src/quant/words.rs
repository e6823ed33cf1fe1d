//! Bytes of blocks and words of rows in GPU order: the moves that several layouts share.

use half::f16;

/// The f16 at `at`, as f32: exact.
pub(super) fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The f32 at `at`.
pub(super) fn float_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_bits(word_at(bytes, at))
}

/// The u32 at `at`.
pub(super) fn word_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Copies bytes into words, 4 a word; a last word that is not full keeps zeros above.
pub(super) fn copy_words(bytes: &[u8], words: &mut [u32]) {
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(4)) {
        let mut full = [0; 4];
        full[..bytes.len()].copy_from_slice(bytes);
        *word = u32::from_le_bytes(full);
    }
}

/// The codes of 32 values: of value j in the low nibble of byte j, of value j + 16 in its high nibble.
pub(super) fn set_nibbles(values: &[f32], code: impl Fn(f32) -> u8, bytes: &mut [u8]) {
    let (low, high) = values.split_at(16);
    for (byte, (&low, &high)) in bytes.iter_mut().zip(low.iter().zip(high)) {
        *byte = code(low) | code(high) << 4;
    }
}

/// Sets half word `index` of zeroed `words`, the lower half of a word first.
pub(super) fn set_half(words: &mut [u32], index: usize, half: [u8; 2]) {
    words[index / 2] |= u32::from(u16::from_le_bytes(half)) << (16 * (index % 2));
}

/// Runs of 4-bit codes in GPU order: `low` from the low nibbles of `bytes`, `high` from their high nibbles,
/// 8 bytes to a word of each.
pub(super) fn split_nibbles(bytes: &[u8], low: &mut [u32], high: &mut [u32]) {
    for (bytes, (low, high)) in bytes.chunks_exact(8).zip(low.iter_mut().zip(high)) {
        let (a, b) = (word_at(bytes, 0), word_at(bytes, 4));
        *low = a & 0x0f0f_0f0f | (b & 0x0f0f_0f0f) << 4;
        *high = (a >> 4) & 0x0f0f_0f0f | b & 0xf0f0_f0f0;
    }
}

/// 32 one-bit fields from element order to GPU order: bit i goes to byte i mod 4, bit i div 4.
pub(super) fn spread_bits(bits: u32) -> u32 {
    (0..32).fold(0, |word, i| word | (bits >> i & 1) << (8 * (i % 4) + i / 4))
}

/// The 2-bit fields at `shift` of 32 bytes in GPU order: two words of sixteen elements.
pub(super) fn gather_pairs(bytes: &[u8], shift: usize) -> [u32; 2] {
    let quad = |word: usize, quad: usize| word_at(bytes, 16 * word + 4 * quad) >> shift & 0x0303_0303;
    [0, 1].map(|word| (0..4).fold(0, |fields, i| fields | quad(word, i) << (2 * i)))
}

/// Bit `bit` of each of 32 bytes in GPU order, as [`spread_bits`].
pub(super) fn gather_bits(bytes: &[u8], bit: usize) -> u32 {
    (0..8).fold(0, |fields, quad| fields | (word_at(bytes, 4 * quad) >> bit & 0x0101_0101) << quad)
}

/// Sets the code of `element` in zeroed words of codes of `BITS` bits, at most 8.
pub(super) fn set_code<const BITS: usize>(words: &mut [u32], element: usize, code: u32) {
    let (word, field) = (element / (32 / BITS), element % (32 / BITS));
    words[word] |= code << (8 * (field % 4) + BITS * (field / 4));
}
