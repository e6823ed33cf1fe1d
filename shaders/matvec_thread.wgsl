// matvec: a thread per output, without barriers: the fast form where threads are lanes of a CPU's vectors.
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let j = (group.x + 32768u * group.z) * 64u + thread;
    let row = group.y;
    var sum = 0.0;
    for (var unit = 0u; unit < (p.k + 31u) / 32u; unit++) {
        sum += dot32(w32(j, unit), x32(row, unit));
    }
    if (j < p.n) {
        finish(row * p.y_stride + p.y_offset + j, sum);
    }
}
