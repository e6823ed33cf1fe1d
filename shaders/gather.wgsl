// gather: a thread per element; the fragment before says what becomes of a result.
struct Params {
    rows: u32,
    kv_len: u32,
    width: u32,
    x_stride: u32,
    y_stride: u32,
    y_offset: u32,
}

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> order: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < p.width) {
        finish(id.y * p.y_stride + p.y_offset + id.x, x[id.y * p.x_stride + u32(order[id.x])]);
    }
}
