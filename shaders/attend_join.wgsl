// attend_join: a thread per element of the result.
struct Params {
    rows: u32,
    kv_len: u32,
    heads: u32,
    head_dim: u32,
    window: u32,
}

var<immediate> p: Params;
// token, position, sequence, 0
@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y;
    let head = id.x / p.head_dim;
    if (head >= p.heads) {
        return;
    }
    let splits = splits_of(rows[row].y + 1u);
    let down = p.heads * (p.head_dim + 1u);
    let first = row * most_splits() * down + head * (p.head_dim + 1u);
    var top = parts[first + p.head_dim];
    for (var split = 1u; split < splits; split++) {
        top = max(top, parts[first + split * down + p.head_dim]);
    }
    var sum = 0.0;
    var total = 0.0;
    for (var split = 0u; split < splits; split++) {
        let weight = exp(parts[first + split * down + p.head_dim] - top);
        total += weight;
        sum += weight * parts[first + split * down + id.x % p.head_dim];
    }
    y[row * p.heads * p.head_dim + id.x] = sum / total;
}
