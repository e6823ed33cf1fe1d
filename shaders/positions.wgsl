// positions: a thread per element.
struct Params {
    rows: u32,
    kv_len: u32,
    width: u32,
}

var<immediate> p: Params;
// token, position, sequence, 0
@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    // Rows that the device feeds back may be of no position.
    let at = rows[id.y].y * p.width + id.x;
    if (id.x < p.width && at < arrayLength(&table)) {
        x[id.y * p.width + id.x] += table[at];
    }
}
