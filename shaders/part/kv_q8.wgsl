// Keys and values in blocks of 32 signed bytes, four of them in a word.

// Words of the codes of a block.
const CODE_WORDS = 8u;
const LEAST = -127.0;
const MOST = 127.0;

// The word of a block with its elements 4 * four ..
fn word_of(four: u32) -> u32 {
    return four;
}

fn codes_in(word: u32, four: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(word));
}

// What codes stand for before it is rounded to f16, by the element of the largest magnitude.
fn step_of(largest: f32) -> f32 {
    return abs(largest) * 0.007874016;
}

// The word of four elements; the high ones belong to another.
fn word_with(low: vec4<i32>, high: vec4<i32>) -> u32 {
    return pack4xI8(low);
}
