// Keys and values that are stored in blocks, four elements at a time or two.
@group(0) @binding(3) var<storage, read> keys: array<u32>;
@group(0) @binding(4) var<storage, read> values: array<u32>;

fn scale_in(word: u32, block: u32) -> f32 {
    return unpack2x16float(word >> (16u * (block & 1u))).x;
}

fn key_four(vector: u32, four: u32) -> vec4<f32> {
    let at = place_of(vector);
    let block = four / 8u;
    let word = keys[at.x + CODE_WORDS * block + word_of(four % 8u)];
    return codes_in(word, four % 8u) * scale_in(keys[at.y + block / 2u], block);
}

fn value_four(vector: u32, four: u32) -> vec4<f32> {
    let at = place_of(vector);
    let block = four / 8u;
    let word = values[at.x + CODE_WORDS * block + word_of(four % 8u)];
    return codes_in(word, four % 8u) * scale_in(values[at.y + block / 2u], block);
}

fn key_pair(vector: u32, pair: u32) -> vec2<f32> {
    let four = key_four(vector, pair / 2u);
    return select(four.xy, four.zw, pair % 2u == 1u);
}

fn value_pair(vector: u32, pair: u32) -> vec2<f32> {
    let four = value_four(vector, pair / 2u);
    return select(four.xy, four.zw, pair % 2u == 1u);
}
