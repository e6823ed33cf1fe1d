struct Params {
    rows: u32,
    kv_len: u32,
    stride: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    block: u32,
    pages_per_sequence: u32,
}

// Queries stay where they are, unless they are turned.
const READS_QUERIES = false;

// Element i of the head that begins at `at`, as it is.
fn element(at: u32, i: u32, position: u32, rotates: bool) -> f32 {
    return x[at + i];
}
