// rms_norm: a workgroup per row; the fragments before say how it adds, from where, and what becomes of the result.
struct Params {
    rows: u32,
    kv_len: u32,
    width: u32,
    epsilon: f32,
}

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> gain: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(place: Place) {
    let from_row = source(place.group.x) * p.width;
    let to_row = place.group.x * p.width;
    var squares = 0.0;
    for (var i = place.thread; i < p.width; i += WG) {
        squares += x[from_row + i] * x[from_row + i];
    }
    let sum = sum_of_group(place, vec4<f32>(squares, 0.0, 0.0, 0.0)).x;
    let scale = 1.0 / sqrt(sum / f32(p.width) + p.epsilon);
    for (var i = place.thread; i < p.width; i += WG) {
        finish(to_row + i, x[from_row + i] * scale * gain[i]);
    }
}
