// Floats on their way to workgroup memory, as they are stored.
@group(0) @binding(3) var<storage, read> keys: array<Four>;
@group(0) @binding(4) var<storage, read> values: array<Four>;

// Four elements, counted from the beginning of a vector over it and those behind.
fn key_cell(vector: u32, four: u32) -> Four {
    return keys[vector * FOURS + four];
}

fn value_cell(vector: u32, four: u32) -> Four {
    return values[vector * FOURS + four];
}

// Heads that are stored as floats are not turned.
fn put_tile(at: u32, v: vec4<f32>) {
}

fn get_tile(at: u32) -> vec4<f32> {
    return vec4<f32>(0.0);
}
