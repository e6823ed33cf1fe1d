// head_norm: a workgroup per head and row; the fragment before says how it adds.
struct Params {
    rows: u32,
    kv_len: u32,
    stride: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    epsilon: f32,
}

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> gains: array<f32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(WG)
fn main(place: Place) {
    let head = place.group.x;
    let at = place.group.y * p.stride + head * p.head_dim;
    let gain = select(0u, p.head_dim, head >= p.heads);
    var squares = 0.0;
    for (var i = place.thread; i < p.head_dim; i += WG) {
        squares += x[at + i] * x[at + i];
    }
    let sum = sum_of_group(place, vec4<f32>(squares, 0.0, 0.0, 0.0)).x;
    let scale = 1.0 / sqrt(sum / f32(p.head_dim) + p.epsilon);
    for (var i = place.thread; i < p.head_dim; i += WG) {
        x[at + i] = x[at + i] * scale * gains[gain + i];
    }
}
