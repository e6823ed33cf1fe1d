//! A small seeded generator for test data, probes and synthetic weights.

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed gives the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// A generator of its own sequence for each `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0 .. `end`, for `end` far below 2⁶⁴.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    /// Uniform in −1 .. 1.
    pub fn signed(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `len` numbers, uniform in −`scale` .. `scale`.
    pub fn vector(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| self.signed() * scale).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence_within_bounds() {
        let mut seed = Seed::new(7);
        let numbers = seed.vector(1000, 2.0);
        assert_eq!(numbers, Seed::new(7).vector(1000, 2.0));
        assert!(numbers.iter().all(|number| (-2.0..2.0).contains(number)));
        assert!(numbers.iter().sum::<f32>().abs() < 150.0);
    }
}
