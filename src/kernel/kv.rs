//! Keys and values as they are stored: floats, or blocks of 32 codes with a scale.
//!
//! A *vector* is the key, or the value, of a KV head at a position. Those of one page and head are neighbours, a *run* of
//! [`PAGE`]: vector v is number `v % PAGE` of run `v / PAGE` ([`kv_at`]).
//!
//! Floats stand one after the other. In blocks, a run is the codes of its vectors, then their scales, so that codes are
//! read by whole cache lines. A vector has ⌈head_dim / 32⌉ blocks, zeros where it ends before the last of them does; its
//! scales are f16, two in a word, the other half of an odd last one empty. So no word belongs to two vectors. An element
//! is `scale · code`:
//!
//! - 8 bits: `scale = max|x| / 127`, codes −127 ..= 127, four in a word in order;
//! - 4 bits: `scale = x / −8` for the x of the largest magnitude, codes −8 ..= 7, so that all sixteen are used. They are
//!   stored plus 8: elements i and i + 16 are the nibbles of byte i.
//!
//! A code is the nearest one by exact arithmetic (the thresholds between codes are products of 20 bits), so that every
//! device stores the same words. A block with an infinity or a NaN has a scale of NaN: it is to be seen downstream.

use half::f16;

use super::PAGE;

/// Elements of a block.
pub const BLOCK: usize = 32;

/// 1 / 127, by the digits that stand in the shader.
const STEP_8: f32 = 0.007_874_016;
/// The largest f16.
const MOST: f32 = 65504.0;

/// How keys and values are stored, from the most to the fewest bits. Heads that are stored in blocks are turned by a
/// Walsh–Hadamard transform before, which spreads the outliers that few bits have no room for ([`super::kv_blocks`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KvType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Blocks of 8-bit codes: 8.5 bits an element.
    Q8,
    /// Blocks of 4-bit codes: 4.5 bits an element.
    Q4,
}

impl KvType {
    /// Every type.
    pub const ALL: &'static [Self] = &[Self::F32, Self::F16, Self::Q8, Self::Q4];
    /// Those of single elements.
    pub const FLOATS: &'static [Self] = &[Self::F32, Self::F16];
    /// Those of blocks.
    pub const BLOCKS: &'static [Self] = &[Self::Q8, Self::Q4];

    /// `f32`, `f16`, `q8`, `q4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }

    /// The type of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kv| kv.name() == name)
    }

    /// Whether elements are stored in blocks.
    pub fn is_blocks(self) -> bool {
        Self::BLOCKS.contains(&self)
    }

    /// u32 words of `vectors` vectors, whole runs, of `head_dim` elements, an even number.
    pub fn words(self, vectors: usize, head_dim: usize) -> usize {
        let of_vector = match self {
            Self::F32 => head_dim,
            Self::F16 => head_dim / 2,
            Self::Q8 | Self::Q4 => self.code_words(head_dim) + scale_words(head_dim),
        };
        vectors * of_vector
    }

    /// Element `i` of a vector in `words`.
    pub fn get(self, words: &[u32], head_dim: usize, vector: usize, i: usize) -> f32 {
        let at = vector * head_dim + i;
        let (block, element) = (i / BLOCK, i % BLOCK);
        let coded = |code: i32| {
            let [_, scales] = self.places(head_dim, vector);
            code as f32 * half_of(words[scales + block / 2], block % 2).to_f32()
        };
        let [codes, _] = self.places(head_dim, vector);
        match self {
            Self::F32 => f32::from_bits(words[at]),
            Self::F16 => half_of(words[at / 2], at % 2).to_f32(),
            Self::Q8 => coded((words[codes + i / 4] >> (8 * (i % 4))) as i8 as i32),
            Self::Q4 => {
                let shift = 8 * (element % 4) + 4 * (element / 16);
                coded((words[codes + 4 * block + element % 16 / 4] >> shift & 15) as i32 - 8)
            }
        }
    }

    /// Stores a vector in `words`: floats rounded to nearest, ties to even; blocks as the module's page says.
    pub fn put(self, words: &mut [u32], vector: usize, x: &[f32]) {
        let at = vector * x.len();
        let [codes, scales] = self.places(x.len(), vector);
        match self {
            Self::F32 => words[at..at + x.len()].copy_from_slice(bytemuck::cast_slice(x)),
            Self::F16 => {
                for (word, pair) in words[at / 2..].iter_mut().zip(x.as_chunks::<2>().0) {
                    *word = pair_of(pair.map(f16::from_f32));
                }
            }
            Self::Q8 | Self::Q4 => {
                for (block, x) in x.chunks(BLOCK).enumerate() {
                    let (scale, numbers) = self.encode(x);
                    let (count, scales) = (self.words_of_block(), &mut words[scales + block / 2]);
                    *scales = if block % 2 == 0 { 0 } else { *scales } | pair_of_bits(scale, block % 2);
                    self.pack(&numbers, &mut words[codes + count * block..][..count]);
                }
            }
        }
    }

    /// The words where the codes of a vector begin, and its scales.
    pub fn places(self, head_dim: usize, vector: usize) -> [usize; 2] {
        let (run, slot) = (vector / PAGE as usize, vector % PAGE as usize);
        let (of_codes, of_scales) = (self.code_words(head_dim), scale_words(head_dim));
        let first = run * PAGE as usize * (of_codes + of_scales);
        [first + slot * of_codes, first + PAGE as usize * of_codes + slot * of_scales]
    }

    /// Words of the codes of a vector; 0 for floats.
    fn code_words(self, head_dim: usize) -> usize {
        self.words_of_block() * head_dim.div_ceil(BLOCK)
    }

    /// Words of the codes of a block; 0 for floats.
    pub fn words_of_block(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 0,
            Self::Q8 => BLOCK / 4,
            Self::Q4 => BLOCK / 8,
        }
    }

    /// The scale and the codes of a block of at most [`BLOCK`] elements.
    #[inline(always)]
    pub fn encode(self, x: &[f32]) -> (f16, [i8; BLOCK]) {
        // The sign in the lowest place: the largest number is the largest magnitude.
        let largest = x.iter().fold(0, |largest, x| x.to_bits().rotate_left(1).max(largest));
        let largest = f32::from_bits(largest.rotate_right(1));
        let mut codes = [0; BLOCK];
        if !largest.is_finite() {
            return (f16::NAN, codes);
        }
        let (step, low, high) = match self {
            Self::Q4 => (largest * -0.125, -8.0, 7.0),
            _ => (largest.abs() * STEP_8, -127.0, 127.0),
        };
        let scale = f16::from_f32(step.clamp(-MOST, MOST));
        let size = scale.to_f32().abs();
        if size == 0.0 {
            return (scale, codes);
        }
        let sign = if scale.is_sign_negative() { -1.0f32 } else { 1.0 };
        let steps = 1.0 / size;
        for (code, x) in codes.iter_mut().zip(x) {
            let x = sign * x;
            // Off by one at most, beside a threshold.
            let near = (x * steps).round_ties_even().clamp(low, high);
            let less = if x < (near - 0.5) * size { 1.0 } else { 0.0 };
            let more = if x >= (near + 0.5) * size { 1.0 } else { 0.0 };
            *code = (near - less + more).clamp(low, high) as i8;
        }
        (scale, codes)
    }

    /// Codes of a block as words.
    #[inline(always)]
    pub fn pack(self, codes: &[i8; BLOCK], words: &mut [u32]) {
        let nibble = |i: usize| (codes[i] + 8) as u8;
        for (w, to) in words.iter_mut().enumerate() {
            let byte = |i: usize| match self {
                Self::Q4 => nibble(4 * w + i) | nibble(16 + 4 * w + i) << 4,
                _ => codes[4 * w + i] as u8,
            };
            *to = u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]);
        }
    }
}

/// Words of the scales of a vector.
fn scale_words(head_dim: usize) -> usize {
    head_dim.div_ceil(2 * BLOCK)
}

fn half_of(word: u32, which: usize) -> f16 {
    f16::from_bits((word >> (16 * which)) as u16)
}

fn pair_of([low, high]: [f16; 2]) -> u32 {
    pair_of_bits(low, 0) | pair_of_bits(high, 1)
}

fn pair_of_bits(value: f16, which: usize) -> u32 {
    u32::from(value.to_bits()) << (16 * which)
}

/// The vector of a layer's K or V that belongs to `kv_head` of `sequence` at `position`.
pub fn kv_at(
    pages: &[u32],
    pages_per_sequence: u32,
    sequence: u32,
    position: u32,
    kv_head: u32,
    kv_heads: u32,
) -> usize {
    let page = pages[(sequence * pages_per_sequence + position / PAGE) as usize] as usize;
    (page * kv_heads as usize + kv_head as usize) * PAGE as usize + (position % PAGE) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Seed;

    fn stored(kv: KvType, x: &[f32], vector: usize) -> (Vec<u32>, Vec<f32>) {
        let mut words = vec![u32::MAX; kv.words(2 * PAGE as usize, x.len())];
        kv.put(&mut words, vector, x);
        let got = (0..x.len()).map(|i| kv.get(&words, x.len(), vector, i)).collect();
        (words, got)
    }

    #[test]
    fn what_is_stored_is_within_half_a_step() {
        let mut seed = Seed::new(5);
        for &kv in KvType::ALL {
            for head_dim in [2, 6, 30, 32, 64, 80, 96, 130, 256] {
                let x = seed.vector(head_dim, 3.0);
                let (words, got) = stored(kv, &x, 37);
                for (x, got) in x.chunks(BLOCK).zip(got.chunks(BLOCK)) {
                    let most = x.iter().fold(0f32, |most, x| most.max(x.abs()));
                    // Half a step, but a whole one at the end of 4 bits that has no code of its own; and the roundings of f16.
                    let share = match kv {
                        KvType::F32 => 0.0,
                        KvType::F16 => 0.5f32.powi(11),
                        KvType::Q8 => 0.5 / 127.0 + 0.5f32.powi(10),
                        KvType::Q4 => 1.0 / 8.0 + 0.5f32.powi(10),
                    };
                    let far = x.iter().zip(got).map(|(x, got)| (x - got).abs()).fold(0f32, f32::max);
                    assert!(far <= share * most, "{kv:?}, {head_dim}: {far} of {most}");
                }
                let written = words.iter().filter(|&&word| word != u32::MAX).count();
                assert!(written <= kv.words(1, head_dim), "{kv:?}, {head_dim}: {written} words");
            }
        }
    }

    #[test]
    fn vectors_share_no_word() {
        let mut seed = Seed::new(6);
        for &kv in KvType::ALL {
            for head_dim in [2, 64, 96] {
                let all: Vec<Vec<f32>> = (0..2 * PAGE).map(|_| seed.vector(head_dim, 1.0)).collect();
                let mut words = vec![0; kv.words(all.len(), head_dim)];
                for (vector, x) in all.iter().enumerate().rev() {
                    kv.put(&mut words, vector, x);
                }
                for (vector, x) in all.iter().enumerate() {
                    let (_, alone) = stored(kv, x, vector);
                    let got: Vec<f32> = (0..head_dim).map(|i| kv.get(&words, head_dim, vector, i)).collect();
                    assert_eq!(got, alone, "{kv:?}, {head_dim}, {vector}");
                }
            }
        }
    }

    #[test]
    fn blocks_are_what_the_page_says() {
        // The largest is −8 of a negative scale; 16 stands beside 0, 1.5 is a tie and goes up.
        let mut x = [0.0; 32];
        (x[0], x[1], x[16], x[17]) = (8.0, -1.0, -3.0, -1.5);
        let (words, _) = stored(KvType::Q4, &x, 0);
        let scale = u32::from(f16::from_f32(-1.0).to_bits());
        assert_eq!(words[..4], [0x8888_a9b0, 0x8888_8888, 0x8888_8888, 0x8888_8888]);
        assert_eq!(words[4 * PAGE as usize], scale);
        (x[0], x[1], x[16], x[17]) = (127.0, -127.0, 1.5, -1.5);
        let (words, _) = stored(KvType::Q8, &x, 1);
        assert_eq!((words[8], words[12]), (0x0000_817f, 0x0000_ff02));
    }

    #[test]
    fn nothing_vanishes_that_is_not_a_number() {
        for &kv in KvType::BLOCKS {
            for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = [1.0; 64];
                x[40] = wrong;
                let (_, got) = stored(kv, &x, 3);
                assert!(got[..32].iter().all(|got| (got - 1.0).abs() < 0.1) && got[40].is_nan(), "{kv:?}");
            }
            // Too small for a scale, too large for one, and in between.
            for (x, expected) in [(1e-8, 0.0), (-3e38, 65504.0 * if kv == KvType::Q8 { 127.0 } else { 8.0 })]
            {
                assert_eq!(stored(kv, &[x; 32], 0).1[5].abs(), expected, "{kv:?}");
            }
            assert!(stored(kv, &[-2e-4; 32], 0).1.iter().all(|got| (got + 2e-4).abs() < 4e-6), "{kv:?}");
        }
    }
}
