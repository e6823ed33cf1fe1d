// kv_write: a thread per pair of elements, so that no word is written by two.
struct Params {
    rows: u32,
    kv_len: u32,
    stride: u32,
    k_offset: u32,
    v_offset: u32,
    kv_heads: u32,
    head_dim: u32,
    pages_per_sequence: u32,
}

var<immediate> p: Params;
// token, position, sequence, 0
@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> pages: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> keys: array<Pair>;
@group(0) @binding(4) var<storage, read_write> values: array<Pair>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let pairs = p.head_dim / 2u;
    let head = id.x / pairs;
    if (head >= p.kv_heads) {
        return;
    }
    let position = rows[id.y].y;
    let page = pages[rows[id.y].z * p.pages_per_sequence + position / 32u];
    let to = ((page * p.kv_heads + head) * 32u + position % 32u) * pairs + id.x % pairs;
    let key = id.y * p.stride + p.k_offset + 2u * id.x;
    let value = id.y * p.stride + p.v_offset + 2u * id.x;
    keys[to] = pack_pair(vec2<f32>(x[key], x[key + 1u]));
    values[to] = pack_pair(vec2<f32>(x[value], x[value + 1u]));
}
