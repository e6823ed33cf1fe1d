// Keys and values as f16: a pair of elements is one word, the first in the lower half.
alias Pair = u32;
alias Four = vec2<u32>;

// Bytes of an element.
const ELEMENT = 2u;

fn pack_pair(v: vec2<f32>) -> Pair {
    return half_bits(v.x) | (half_bits(v.y) << 16u);
}

fn unpack_pair(pair: Pair) -> vec2<f32> {
    return unpack2x16float(pair);
}

fn unpack_four(four: Four) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(four.x), unpack2x16float(four.y));
}
