// rope: a thread per pair.
struct Params {
    rows: u32,
    kv_len: u32,
    stride: u32,
    offset: u32,
    heads: u32,
    head_dim: u32,
    dims: u32,
    interleaved: u32,
}

var<immediate> p: Params;
// token, position, sequence, 0
@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>;
// cosine, sine
@group(0) @binding(1) var<storage, read> table: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let half = p.dims / 2u;
    let head = id.x / half;
    let i = id.x % half;
    if (head >= p.heads) {
        return;
    }
    let turn = table[rows[id.y].y * half + i];
    let at = id.y * p.stride + p.offset + head * p.head_dim;
    let first = at + select(i, 2u * i, p.interleaved == 1u);
    let second = first + select(half, 1u, p.interleaved == 1u);
    let a = x[first];
    let b = x[second];
    x[first] = a * turn.x - b * turn.y;
    x[second] = a * turn.y + b * turn.x;
}
