// Keys four elements at a time, values two.
@group(0) @binding(3) var<storage, read> keys: array<Four>;
@group(0) @binding(4) var<storage, read> values: array<Pair>;

fn key_four(vector: u32, four: u32) -> vec4<f32> {
    return unpack_four(keys[vector * (PAIRS / 2u) + four]);
}

fn value_pair(vector: u32, pair: u32) -> vec2<f32> {
    return unpack_pair(values[vector * PAIRS + pair]);
}
