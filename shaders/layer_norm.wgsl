// layer_norm: a workgroup per row, which it walks three times: for the mean, for the variance about it, for the result.
struct Params {
    rows: u32,
    kv_len: u32,
    width: u32,
    epsilon: f32,
}

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> gain: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

var<workgroup> parts: array<f32, 64>;

// The sum over the workgroup, known to each thread. Between two of them stands a barrier.
fn sum_of_group(thread: u32, value: f32) -> f32 {
    parts[thread] = value;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < 64u; i++) {
        sum += parts[i];
    }
    return sum;
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let row = group.x * p.width;
    var total = 0.0;
    for (var i = thread; i < p.width; i += 64u) {
        total += x[row + i];
    }
    let mean = sum_of_group(thread, total) / f32(p.width);
    var squares = 0.0;
    for (var i = thread; i < p.width; i += 64u) {
        let apart = x[row + i] - mean;
        squares += apart * apart;
    }
    workgroupBarrier();
    let scale = 1.0 / sqrt(sum_of_group(thread, squares) / f32(p.width) + p.epsilon);
    for (var i = thread; i < p.width; i += 64u) {
        y[row + i] = (x[row + i] - mean) * scale * gain[i] + bias[i];
    }
}
