// soft_cap: a thread per four elements.
struct Params {
    rows: u32,
    kv_len: u32,
    width: u32,
    cap: f32,
}

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let first = 4u * id.x;
    if (first >= p.width) {
        return;
    }
    let at = id.y * p.width + first;
    let count = min(4u, p.width - first);
    var v = vec4<f32>(0.0);
    for (var i = 0u; i < count; i++) {
        v[i] = x[at + i];
    }
    v = soft_cap(v, p.cap);
    for (var i = 0u; i < count; i++) {
        x[at + i] = v[i];
    }
}
