// Keys two elements at a time, for any head.
alias Key = Pair;
const PAIRS_OF_KEY = 1u;

fn unpack_key(key: Key) -> vec4<f32> {
    return vec4<f32>(unpack_pair(key), 0.0, 0.0);
}
