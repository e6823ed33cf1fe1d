//! The seeded pick. The numbers come from a counter, not from a running state, so that any step can be drawn
//! again, on any device: 32-bit arithmetic only.

use super::Candidates;

/// A number in 0 .. 1 for `step` of the sequence of `seed`: 24 bits of a mixed counter (the finaliser of
/// MurmurHash3, public domain, applied to each word in turn).
pub fn uniform(seed: u64, step: u64) -> f32 {
    let words = [seed as u32, (seed >> 32) as u32, step as u32, (step >> 32) as u32];
    let mixed =
        words.iter().fold(0x9e37_79b9u32, |hash, &word| mix(hash ^ mix(word).wrapping_add(0x85eb_ca6b)));
    (mixed >> 8) as f32 / (1u32 << 24) as f32
}

/// The candidate at `uniform` of the cumulated probabilities.
pub(super) fn draw(candidates: &Candidates, uniform: f32) -> u32 {
    let mut left = f64::from(uniform);
    for (&(token, _), probability) in candidates.entries.iter().zip(candidates.probabilities()) {
        left -= probability;
        if left < 0.0 {
            return token;
        }
    }
    // The probabilities may add up to a little less than the number drawn.
    candidates.entries.last().map_or(0, |&(token, _)| token)
}

fn mix(mut word: u32) -> u32 {
    word ^= word >> 16;
    word = word.wrapping_mul(0x85eb_ca6b);
    word ^= word >> 13;
    word = word.wrapping_mul(0xc2b2_ae35);
    word ^ (word >> 16)
}
