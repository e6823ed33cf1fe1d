// Keys and values in blocks of 32 nibbles plus 8; in a word, low nibbles are four elements and high ones those 16 further.

// Words of the codes of a block.
const CODE_WORDS = 4u;
const LEAST = -8.0;
const MOST = 7.0;

// The word of a block with its elements 4 * four ..
fn word_of(four: u32) -> u32 {
    return four & 3u;
}

fn codes_in(word: u32, four: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8((word >> (four & 4u)) & 0x0f0f0f0fu)) - vec4<f32>(8.0);
}

// What codes stand for before it is rounded to f16, by the element of the largest magnitude.
fn step_of(largest: f32) -> f32 {
    return largest * -0.125;
}

// The word of four elements and the four that are 16 further.
fn word_with(low: vec4<i32>, high: vec4<i32>) -> u32 {
    return pack4xU8(vec4<u32>(low + vec4<i32>(8))) | (pack4xU8(vec4<u32>(high + vec4<i32>(8))) << 4u);
}
