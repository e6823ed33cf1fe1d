// kronecker: a thread per output; the fragment before says what becomes of a result.
struct Params {
    rows: u32,
    kv_len: u32,
    width: u32,
    terms: u32,
    y_parts: u32,
    x_parts: u32,
    y_stride: u32,
    y_offset: u32,
}

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> v: array<f32>;
@group(0) @binding(1) var<storage, read> factors: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= p.y_parts * p.width) {
        return;
    }
    let i = id.x / p.width;
    let first = id.y * p.x_parts * p.terms * p.width + id.x % p.width;
    var sum = 0.0;
    for (var t = 0u; t < p.terms; t++) {
        for (var j = 0u; j < p.x_parts; j++) {
            sum += factors[(t * p.y_parts + i) * p.x_parts + j] * v[first + (j * p.terms + t) * p.width];
        }
    }
    finish(id.y * p.y_stride + p.y_offset + id.x, sum);
}
