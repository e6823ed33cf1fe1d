// matvec: a workgroup along K, each thread one unit of 32 at a time against 4 rows of weights, so that x stays in
// registers across them; sums by subgroup operations.
@compute @workgroup_size(WG)
fn main(place: Place) {
    let first = (place.group.x + 32768u * place.group.z) * OUTPUTS;
    let row = place.group.y;
    var sums = vec4<f32>(0.0);
    for (var unit = place.thread; unit < (p.k + 31u) / 32u; unit += WG) {
        let e = x32(row, unit);
        sums += vec4<f32>(
            dot32(w32(row_of(first, 0u), unit), e),
            dot32(w32(row_of(first, 1u), unit), e),
            dot32(w32(row_of(first, 2u), unit), e),
            dot32(w32(row_of(first, 3u), unit), e),
        );
    }
    let sum = sum_of_group(place, sums);
    let j = first + place.thread;
    if (place.thread < OUTPUTS && j < p.n) {
        finish(row * p.y_stride + p.y_offset + j, output(sum, place.thread));
    }
}
