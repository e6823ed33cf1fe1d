// embed: a thread per unit of 32 elements of a row.
struct Params {
    rows: u32,
    kv_len: u32,
    width: u32,
    first_token: u32,
    tokens: u32,
    code_stride: u32,
    scale_stride: u32,
    scale: f32,
}

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = id.x;
    let row = id.y;
    // Wraps for tokens before the first, which are then too large as well.
    let token = rows[row].x - p.first_token;
    if (32u * unit >= p.width || token >= p.tokens) {
        return;
    }
    var w = decode32(token * p.code_stride, token * p.scale_stride, unit);
    for (var i = 0u; i < min(32u, p.width - 32u * unit); i++) {
        x[row * p.width + 32u * unit + i] = p.scale * w[i / 4u][i % 4u];
    }
}
