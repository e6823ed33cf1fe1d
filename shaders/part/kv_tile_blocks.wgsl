// Blocks on their way to workgroup memory, where they are floats.
alias Four = vec4<f32>;
const ELEMENT = 4u;

// Four elements, counted from the beginning of a vector over it and those behind.
fn key_cell(vector: u32, four: u32) -> Four {
    return key_four(vector + four / FOURS, four % FOURS);
}

fn value_cell(vector: u32, four: u32) -> Four {
    return value_four(vector + four / FOURS, four % FOURS);
}

fn unpack_four(four: Four) -> vec4<f32> {
    return four;
}

// Results on their way through the tile, to be turned back.
fn put_tile(at: u32, v: vec4<f32>) {
    tile[at] = v;
}

fn get_tile(at: u32) -> vec4<f32> {
    return tile[at];
}
