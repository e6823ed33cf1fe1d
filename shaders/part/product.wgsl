// What all products with a matrix share: parameters, bindings, a dot product of 32.
struct Params {
    rows: u32,
    kv_len: u32,
    k: u32,
    n: u32,
    x_stride: u32,
    y_stride: u32,
    y_offset: u32,
    code_stride: u32,
    scale_stride: u32,
}

var<immediate> p: Params;
@group(0) @binding(1) var<storage, read> codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// The 32 elements of row j of the weights from 32 * unit on; rows past the last repeat it.
fn w32(j: u32, unit: u32) -> array<vec4<f32>, 8> {
    let row = min(j, HALVES * p.n - 1u);
    return decode32(row * p.code_stride, row * p.scale_stride, unit);
}

fn dot32(a: array<vec4<f32>, 8>, b: array<vec4<f32>, 8>) -> f32 {
    let ab = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]
        + a[4] * b[4] + a[5] * b[5] + a[6] * b[6] + a[7] * b[7];
    return (ab.x + ab.y) + (ab.z + ab.w);
}
