// hadamard: a workgroup per part of up to 4096 elements of a block; the fragment before says what becomes of a result.
struct Params {
    rows: u32,
    kv_len: u32,
    width: u32,
    block: u32,
    order: u32,
    y_stride: u32,
    y_offset: u32,
}

const WG = 256u;

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

var<workgroup> part: array<f32, 4096>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let power = p.block / p.order;
    let len = min(power, 4096u);
    let parts = p.block / len;
    // Parts of the same place in T: they differ in the high bits of the power of two.
    let highs = power / len;
    let me = group.x % parts;
    let row = group.y * p.width;
    let block = group.x / parts * p.block;
    for (var i = thread; i < len; i += WG) {
        var sum = 0.0;
        for (var other = 0u; other < parts; other++) {
            let sign = 1.0 - 2.0 * f32(countOneBits((me % highs) & (other % highs)) & 1u);
            sum += sign * table[me / highs * p.order + other / highs] * x[row + block + other * len + i];
        }
        part[i] = sum;
    }
    for (var half = 1u; half < len; half *= 2u) {
        workgroupBarrier();
        for (var pair = thread; pair < len / 2u; pair += WG) {
            let at = pair / half * 2u * half + pair % half;
            let a = part[at];
            let b = part[at + half];
            part[at] = a + b;
            part[at + half] = a - b;
        }
    }
    workgroupBarrier();
    let share = 1.0 / sqrt(f32(p.block));
    let to = group.y * p.y_stride + p.y_offset + block + me * len;
    for (var i = thread; i < len; i += WG) {
        finish(to + i, part[i] * share);
    }
}
