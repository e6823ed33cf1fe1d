// rope_kv: a thread per pair: of a query head, rotated in place, then of a key head and its value. A pair of keys is two
// neighbours, which is how they are stored, so that no word is written by two; where the pairs that rotate are
// others, a thread reads the partners of both.
struct Params {
    rows: u32,
    kv_len: u32,
    stride: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    dims: u32,
    interleaved: u32,
    pages_per_sequence: u32,
}

var<immediate> p: Params;
// token, position, sequence, 0
@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> pages: array<u32>;
// cosine, sine
@group(0) @binding(2) var<storage, read> table: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> keys: array<Pair>;
@group(0) @binding(5) var<storage, read_write> values: array<Pair>;

// Element i of the head that begins at `at`, rotated.
fn rotated(at: u32, i: u32, position: u32) -> f32 {
    if (i >= p.dims) {
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

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let half = p.dims / 2u;
    let position = rows[id.y].y;
    let row = id.y * p.stride;
    if (id.x < p.heads * half) {
        let i = id.x % half;
        let first = row + id.x / half * p.head_dim + select(i, 2u * i, p.interleaved == 1u);
        let second = first + select(half, 1u, p.interleaved == 1u);
        let turn = table[position * half + i];
        let a = x[first];
        let b = x[second];
        x[first] = a * turn.x - b * turn.y;
        x[second] = a * turn.y + b * turn.x;
        return;
    }
    let pairs = p.head_dim / 2u;
    let pair = id.x - p.heads * half;
    let head = pair / pairs;
    if (head >= p.kv_heads) {
        return;
    }
    let page = pages[rows[id.y].z * p.pages_per_sequence + position / 32u];
    let to = ((page * p.kv_heads + head) * 32u + position % 32u) * pairs + pair % pairs;
    let i = 2u * (pair % pairs);
    let key = row + (p.heads + head) * p.head_dim;
    let value = key + p.kv_heads * p.head_dim + i;
    keys[to] = pack_pair(vec2<f32>(rotated(key, i, position), rotated(key, i + 1u, position)));
    values[to] = pack_pair(vec2<f32>(x[value], x[value + 1u]));
}
