//! Chance in whole numbers: who draws from the same logits with the same seed draws the same token.
//!
//! What a chain of filters keeps is a matter of sums of exponentials, which each device rounds in its own way. So a
//! candidate is weighed here in 32-bit words: it stands x = (largest − logit) · sharpness · log₂ e below the largest, in
//! steps of 2⁻²⁰, and weighs 2⁻ˣ, in steps of 2⁻³⁰; sums have 64 bits. `shaders/draw.wgsl` says the same again.

use bytemuck::{Pod, Zeroable};

/// A chain as a device takes it, for candidates that begin with the largest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Stages {
    /// How many of the list count; 0 leaves the token as it is.
    pub count: u32,
    /// The lower and the upper half.
    pub seed: [u32; 2],
    /// The position of the answer's first token: that at position p is its step p − first.
    pub first: u32,
    /// In order; the last draws.
    pub list: [Stage; Stages::MOST],
}

/// What a filter keeps, or the draw from what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Stage {
    what: u32,
    value: u32,
    scale: Scale,
}

/// `mantissa · 2^exponent`, the mantissa 0 or at least 2³¹.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Scale {
    mantissa: u32,
    exponent: i32,
}

/// The `value` largest.
const MOST: u32 = 1;
/// The fewest that weigh `value` · 2⁻²⁴ of all.
const SHARE: u32 = 2;
/// Those at most `value` steps below the largest.
const NEAR: u32 = 3;
/// One.
const DRAW: u32 = 4;

/// Bits of a share, and of the number drawn.
const SHARE_BITS: u32 = 24;
/// Bits of a step below the largest.
const STEP_BITS: u32 = 20;

/// 2³² · 2^−2⁻ʲ for j from 1 on.
const ROOTS: [u32; STEP_BITS as usize] = [
    0xb504_f334,
    0xd744_fccb,
    0xeac0_c6e8,
    0xf525_7d15,
    0xfa83_b2db,
    0xfd3e_0c0d,
    0xfe9e_115c,
    0xff4e_cb59,
    0xffa7_5652,
    0xffd3_a752,
    0xffe9_d2b3,
    0xfff4_e91c,
    0xfffa_747f,
    0xfffd_3a3b,
    0xfffe_9d1d,
    0xffff_4e8e,
    0xffff_a747,
    0xffff_d3a3,
    0xffff_e9d2,
    0xffff_f4e9,
];

impl Stages {
    /// The most that a list holds.
    pub const MOST: usize = 7;

    /// The place of the token for `position` among candidates with these logits, the largest first and finite.
    pub fn draw(&self, logits: &[f32], position: u32) -> usize {
        let chance = counted(self.seed, u64::from(position.wrapping_sub(self.first)));
        let mut left = logits;
        for stage in &self.list[..(self.count as usize).min(Self::MOST)] {
            match stage.what {
                DRAW => return stage.drawn(left, chance),
                _ => left = &left[..stage.kept(left)],
            }
        }
        0
    }
}

impl Stage {
    /// Keeps the `count` largest; all where it is 0.
    pub fn most(count: u32) -> Self {
        Self { what: MOST, value: if count == 0 { u32::MAX } else { count }, scale: Scale::default() }
    }

    /// Keeps the fewest of the largest that weigh `share` of all, 0 ..= 1.
    pub fn share(share: f32, sharpness: f64) -> Self {
        let value = (f64::from(share) * f64::from(1 << SHARE_BITS)).ceil() as u32;
        Self { what: SHARE, value, scale: Scale::of(sharpness) }
    }

    /// Keeps those that weigh at least `ratio` of the largest, 0 ..= 1.
    pub fn near(ratio: f32, sharpness: f64) -> Self {
        let value = (-f64::from(ratio).log2() * f64::from(1 << STEP_BITS)) as u32;
        Self { what: NEAR, value, scale: Scale::of(sharpness) }
    }

    /// Draws one.
    pub fn draw(sharpness: f64) -> Self {
        Self { what: DRAW, value: 0, scale: Scale::of(sharpness) }
    }

    /// How many of the first `logits` stay, which begin with the largest: at least 1 of those that there are.
    pub fn kept(&self, logits: &[f32]) -> usize {
        match self.what {
            MOST => logits.len().min(self.value as usize),
            NEAR => logits.iter().take_while(|&&logit| self.below(logits, logit) <= self.value).count(),
            SHARE => {
                let least = part(self.total(logits), self.value);
                let reached = self.sums(logits).position(|sum| sum >= least);
                reached.map_or(logits.len(), |last| last + 1)
            }
            _ => logits.len(),
        }
    }

    /// The place of the one that `chance`, of [`counted`], falls on.
    pub fn drawn(&self, logits: &[f32], chance: u32) -> usize {
        let at = part(self.total(logits), chance);
        self.sums(logits).position(|sum| sum > at).unwrap_or(0)
    }

    fn total(&self, logits: &[f32]) -> u64 {
        self.sums(logits).last().unwrap_or(0)
    }

    fn sums(&self, logits: &[f32]) -> impl Iterator<Item = u64> {
        logits.iter().scan(0u64, |sum, &logit| {
            *sum += u64::from(weight(self.below(logits, logit)));
            Some(*sum)
        })
    }

    fn below(&self, logits: &[f32], logit: f32) -> u32 {
        steps_below(logits[0], logit, self.scale)
    }
}

impl Scale {
    /// `sharpness · log₂ e`.
    fn of(sharpness: f64) -> Self {
        let factor = (sharpness * std::f64::consts::LOG2_E).clamp(0.0, 1e300);
        if factor < 1e-300 {
            return Self::default();
        }
        let bits = factor.to_bits();
        let exponent = (bits >> 52) as i32 - 1023;
        Self { mantissa: (bits >> 21) as u32 | 1 << 31, exponent: exponent - 31 }
    }
}

/// 24 random bits for `step` of the sequence of `seed`: a mixed counter (the finaliser of MurmurHash3, public domain,
/// applied to each word in turn).
pub fn counted(seed: [u32; 2], step: u64) -> u32 {
    let words = [seed[0], seed[1], step as u32, (step >> 32) as u32];
    let mixed =
        words.iter().fold(0x9e37_79b9u32, |hash, &word| mix(hash ^ mix(word).wrapping_add(0x85eb_ca6b)));
    mixed >> (32 - SHARE_BITS)
}

fn mix(mut word: u32) -> u32 {
    word ^= word >> 16;
    word = word.wrapping_mul(0x85eb_ca6b);
    word ^= word >> 13;
    word = word.wrapping_mul(0xc2b2_ae35);
    word ^ (word >> 16)
}

/// (largest − logit) · scale in steps of 2⁻²⁰, rounded down; what is too far for them is as far as they go.
fn steps_below(largest: f32, logit: f32, scale: Scale) -> u32 {
    if logit == f32::NEG_INFINITY {
        return u32::MAX;
    }
    let (a, b) = (Fixed::of(largest), Fixed::of(logit));
    let exponent = a.exponent.max(b.exponent);
    let difference = a.at(exponent).wrapping_sub(b.at(exponent)) as u32;
    if difference == 0 || scale.mantissa == 0 {
        return 0;
    }
    let zeros = difference.leading_zeros();
    let high = high_of(difference << zeros, scale.mantissa);
    // high · 2^(32 + …) in units of 2⁻²⁰.
    let shift = exponent - zeros as i32 + scale.exponent + 32 + STEP_BITS as i32;
    match shift {
        1.. => u32::MAX,
        -31..=0 => high >> -shift,
        _ => 0,
    }
}

/// A finite f32: `mantissa · 2^exponent`, the mantissa below 2³⁰.
struct Fixed {
    mantissa: i32,
    exponent: i32,
}

impl Fixed {
    fn of(number: f32) -> Self {
        let bits = number.to_bits();
        let (field, fraction) = ((bits >> 23) & 0xff, bits & 0x7f_ffff);
        let mantissa = if field == 0 { fraction } else { fraction | 0x80_0000 } << 6;
        let mantissa = if bits >> 31 == 1 { -(mantissa as i32) } else { mantissa as i32 };
        Self { mantissa, exponent: field.max(1) as i32 - 156 }
    }

    /// The mantissa for a larger exponent, rounded towards zero.
    fn at(&self, exponent: i32) -> i32 {
        let shift = exponent - self.exponent;
        let magnitude = if shift < 32 { self.mantissa.unsigned_abs() >> shift } else { 0 } as i32;
        if self.mantissa < 0 { -magnitude } else { magnitude }
    }
}

/// 2^−(steps · 2⁻²⁰) in units of 2⁻³⁰, rounded down again and again.
fn weight(steps: u32) -> u32 {
    let halvings = steps >> STEP_BITS;
    if halvings > 30 {
        return 0;
    }
    let mut weight = 1u32 << 31;
    for (bit, root) in (0..STEP_BITS).rev().zip(ROOTS) {
        if (steps >> bit) & 1 == 1 {
            weight = high_of(weight, root);
        }
    }
    weight >> (halvings + 1)
}

/// `total · share · 2⁻²⁴`, rounded down.
fn part(total: u64, share: u32) -> u64 {
    ((u128::from(total) * u128::from(share)) >> SHARE_BITS) as u64
}

/// The upper half of a product.
fn high_of(a: u32, b: u32) -> u32 {
    ((u64::from(a) * u64::from(b)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Seed;

    #[test]
    fn weights_are_exponentials() {
        let mut seed = Seed::new(21);
        for round in 0..20_000 {
            let largest = seed.signed() * 10f32.powi(round % 8 - 3);
            let logit = largest - seed.signed().abs() * 10f32.powi(round % 5 - 2);
            let sharpness = f64::from(seed.signed().abs()) * 3.0 + 0.01;
            let steps = steps_below(largest, logit, Scale::of(sharpness));
            let gap = (f64::from(largest) - f64::from(logit)) * sharpness;
            // The mantissas keep 30 bits of the larger logit and the scale 32 of its own; a step is 2⁻²⁰.
            let off = f64::from(steps) / f64::from(1 << STEP_BITS) - gap * std::f64::consts::LOG2_E;
            let allowed = 2f64.powi(-20) + 2f64.powi(-27) * (sharpness * f64::from(largest.abs()) + gap);
            assert!(off.abs() <= allowed || gap > 1400.0, "{largest} − {logit}: {off}");
            let exact = 2f64.powf(-f64::from(steps) / f64::from(1 << STEP_BITS));
            let weight = f64::from(weight(steps)) / f64::from(1 << 30);
            assert!((weight - exact).abs() <= 2f64.powi(-30) + exact * 20.0 * 2f64.powi(-31), "{steps}");
        }
        assert_eq!(weight(0), 1 << 30);
    }

    #[test]
    fn extremes_are_weighed() {
        let plain = Scale::of(1.0);
        assert_eq!(steps_below(3.0, 3.0, plain), 0);
        assert_eq!(steps_below(0.0, -0.0, plain), 0);
        assert_eq!(steps_below(1.0, f32::NEG_INFINITY, plain), u32::MAX);
        assert_eq!(steps_below(f32::MAX, f32::MIN, plain), u32::MAX);
        assert_eq!(steps_below(1e-45, -1e-45, plain), 0);
        assert_eq!(steps_below(1e-45, -1e-45, Scale::of(1e300)), u32::MAX);
        assert_eq!(steps_below(9.0, -9.0, Scale::of(0.0)), 0);
        assert_eq!(Scale::of(f64::INFINITY), Scale::of(1e300));
        assert_eq!(Stage::near(0.0, 1.0).kept(&[1.0, f32::NEG_INFINITY]), 2);
        assert_eq!(Stage::share(0.0, 1.0).kept(&[1.0, 1.0]), 1);
        assert_eq!(Stage::most(0).kept(&[1.0, 1.0]), 2);
    }

    #[test]
    fn shares_are_reached_by_the_fewest() {
        let logits = [8f32.ln(), 4f32.ln(), 3f32.ln(), 0.0];
        for (share, kept) in [(0.01, 1), (0.49, 1), (0.51, 2), (0.74, 2), (0.76, 3), (0.93, 3), (0.94, 4)] {
            assert_eq!(Stage::share(share, 1.0).kept(&logits), kept, "{share}");
        }
        for (ratio, kept) in [(1.0, 1), (0.51, 1), (0.49, 2), (0.13, 3), (0.12, 4)] {
            assert_eq!(Stage::near(ratio, 1.0).kept(&logits), kept, "{ratio}");
        }
        let draw = Stage::draw(1.0);
        for (sixteenths, place) in [(0, 0), (7, 0), (9, 1), (11, 1), (13, 2), (14, 2)] {
            assert_eq!(draw.drawn(&logits, sixteenths << 20), place);
        }
        assert_eq!(draw.drawn(&logits, (1 << 24) - 1), 3);
    }
}
