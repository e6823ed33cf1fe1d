// rope_kv_blocks: the body of kv_blocks with heads that are rotated as they are read, queries too.
struct Params {
    rows: u32,
    kv_len: u32,
    stride: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    block: u32,
    pages_per_sequence: u32,
    dims: u32,
    interleaved: u32,
}

// Queries are written in any case.
const READS_QUERIES = true;

// cosine, sine
@group(0) @binding(5) var<storage, read> table: array<vec2<f32>>;

// Element i of the head that begins at `at`, rotated where the head is one that rotates.
fn element(at: u32, i: u32, position: u32, rotates: bool) -> f32 {
    if (i >= p.dims || !rotates) {
        return x[at + i];
    }
    let half = p.dims / 2u;
    var turn_of = i % half;
    var partner = select(i - half, i + half, i < half);
    var is_first = i < half;
    if (p.interleaved == 1u) {
        turn_of = i / 2u;
        partner = i ^ 1u;
        is_first = i % 2u == 0u;
    }
    let turn = table[position * half + turn_of];
    return x[at + i] * turn.x + select(x[at + partner], -x[at + partner], is_first) * turn.y;
}
