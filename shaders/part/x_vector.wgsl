// Rows of x as vectors, for k and x_stride that are multiples of 4.
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

// Whether the last unit of a row is not whole; what lies behind the row may be anything and is not read.
override RAGGED: bool = false;

// The 32 elements of row `row` from 32 * unit on; zero past k.
fn x32(row: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = row * (p.x_stride / 4u) + 8u * unit;
    if (RAGGED && 32u * unit + 32u > p.k) {
        var e: array<vec4<f32>, 8>;
        for (var i = 0u; i < p.k / 4u - 8u * unit; i++) {
            e[i] = x[at + i];
        }
        return e;
    }
    return array<vec4<f32>, 8>(
        x[at], x[at + 1u], x[at + 2u], x[at + 3u], x[at + 4u], x[at + 5u], x[at + 6u], x[at + 7u],
    );
}
