// matvec: a thread per output, without barriers: the fast form where threads are lanes of a CPU's vectors.
@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(workgroup_id) group: vec3<u32>,
) {
    let j = (group.x + 32768u * group.z) * 64u + thread;
    let row = group.y;
    var sums = vec4<f32>(0.0);
    for (var unit = 0u; unit < (p.k + 31u) / 32u; unit++) {
        let x = unit_x(x32_together(row, unit, lane));
        sums.x += mul(unit_w(row_of(j, 0u), unit), x);
        if (HALVES == 2u) {
            sums.z += mul(unit_w(row_of(j, 2u), unit), x);
        }
    }
    if (j < p.n) {
        finish(row * p.y_stride + p.y_offset + j, output(sums, 0u));
    }
}
