// What all products with a matrix share: parameters, bindings, four products of a unit.
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

// The products of a unit of x with those of the 4 rows of the weights that make the outputs from `first` on.
fn four_products(first: u32, unit: u32, x: UnitX) -> vec4<f32> {
    return vec4<f32>(
        mul(unit_w(row_of(first, 0u), unit), x),
        mul(unit_w(row_of(first, 1u), unit), x),
        mul(unit_w(row_of(first, 2u), unit), x),
        mul(unit_w(row_of(first, 3u), unit), x),
    );
}
