// Rows of x element by element, for any k and x_stride.
@group(0) @binding(0) var<storage, read> x: array<f32>;

// The 32 elements of row `row` from 32 * unit on; zero past k, where x is not read.
fn x32(row: u32, unit: u32) -> array<vec4<f32>, 8> {
    var e: array<vec4<f32>, 8>;
    let at = row * p.x_stride + 32u * unit;
    for (var i = 0u; i < min(32u, p.k - 32u * unit); i++) {
        e[i / 4u][i % 4u] = x[at + i];
    }
    return e;
}
