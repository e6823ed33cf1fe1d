// squares: a thread per element.
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
    if (id.x >= p.width) {
        return;
    }
    var sum = y[id.x];
    for (var row = 0u; row < p.rows; row++) {
        let value = x[row * p.width + id.x];
        sum += value * value;
    }
    y[id.x] = sum;
}
