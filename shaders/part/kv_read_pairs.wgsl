// Keys and values two elements at a time, for any head.
@group(0) @binding(3) var<storage, read> keys: array<Pair>;
@group(0) @binding(4) var<storage, read> values: array<Pair>;

fn key_pair(vector: u32, pair: u32) -> vec2<f32> {
    return unpack_pair(keys[vector * PAIRS + pair]);
}

fn value_pair(vector: u32, pair: u32) -> vec2<f32> {
    return unpack_pair(values[vector * PAIRS + pair]);
}
