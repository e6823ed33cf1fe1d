// round8: a workgroup per row finds the range of its elements, then rounds them.
struct Params {
    rows: u32,
    kv_len: u32,
    width: u32,
}

const WG = 64u;

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

var<workgroup> ranges: array<vec2<f32>, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.x * p.width;
    var range = vec2<f32>(0.0);
    for (var i = thread; i < p.width; i += WG) {
        let value = x[row + i];
        range = vec2<f32>(min(range.x, value), max(range.y, value));
    }
    ranges[thread] = range;
    workgroupBarrier();
    for (var i = 0u; i < WG; i++) {
        range = vec2<f32>(min(range.x, ranges[i].x), max(range.y, ranges[i].y));
    }
    let step = max((range.y - range.x) / 255.0, 1.1920929e-7);
    let zero = clamp(-128.0 - round(range.x / step), -128.0, 127.0);
    for (var i = thread; i < p.width; i += WG) {
        let code = clamp(round(x[row + i] / step) + zero, -128.0, 127.0);
        y[row + i] = (code - zero) * step;
    }
}
