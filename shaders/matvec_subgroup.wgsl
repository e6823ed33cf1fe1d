// matvec: a workgroup along K, each thread one unit of 32 at a time against 4 rows of weights or two times 4, so that x
// stays in registers across them; sums by subgroup operations.
fn finish_sums(place: Place, first: u32, sums: vec4<f32>) {
    let sum = sum_of_group(place, sums);
    let j = first + place.thread;
    if (place.thread < OUTPUTS && j < p.n) {
        finish(place.group.y * p.y_stride + p.y_offset + j, output(sum, place.thread));
    }
}

@compute @workgroup_size(WG)
fn main(place: Place) {
    let first = (place.group.x + 32768u * place.group.z) * SETS * OUTPUTS;
    var sums = vec4<f32>(0.0);
    var others = vec4<f32>(0.0);
    for (var unit = place.thread; unit < (p.k + 31u) / 32u; unit += WG) {
        let x = unit_x(x32(place.group.y, unit));
        sums += four_products(first, unit, x);
        if (SETS == 2u) {
            others += four_products(first + OUTPUTS, unit, x);
        }
    }
    finish_sums(place, first, sums);
    if (SETS == 2u) {
        // Nobody still reads the sums before.
        workgroupBarrier();
        finish_sums(place, first + OUTPUTS, others);
    }
}
