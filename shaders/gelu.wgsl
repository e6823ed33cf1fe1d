// gelu: a thread per element.
struct Params {
    rows: u32,
    kv_len: u32,
    width: u32,
}

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < p.width) {
        y[id.y * p.width + id.x] = gelu(x[id.y * p.width + id.x]);
    }
}
