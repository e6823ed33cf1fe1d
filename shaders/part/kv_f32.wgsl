// Keys and values as f32: a pair of elements is two words.
alias Pair = vec2<u32>;
alias Four = vec4<u32>;

// Bytes of an element.
const ELEMENT = 4u;

fn pack_pair(v: vec2<f32>) -> Pair {
    return bitcast<vec2<u32>>(v);
}

fn unpack_pair(pair: Pair) -> vec2<f32> {
    return bitcast<vec2<f32>>(pair);
}

fn unpack_four(four: Four) -> vec4<f32> {
    return bitcast<vec4<f32>>(four);
}
