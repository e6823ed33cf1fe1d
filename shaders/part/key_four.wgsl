// Keys four elements at a time, for heads of a multiple of 4.
alias Key = Four;
const PAIRS_OF_KEY = 2u;

fn unpack_key(key: Key) -> vec4<f32> {
    return unpack_four(key);
}
