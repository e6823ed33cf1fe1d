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
