// matmul: a thread per output and 16 rows, without workgroup memory: the fast form where threads are lanes of a
// CPU's vectors and what all read is one load.
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let j = 64u * group.x + thread;
    let first_row = 16u * group.y;
    let rows = min(p.rows - first_row, 16u);
    var sums: array<f32, 16>;
    for (var unit = 0u; unit < (p.k + 31u) / 32u; unit++) {
        let w = w32(j, unit);
        for (var r = 0u; r < 16u; r++) {
            if (r < rows) {
                sums[r] += dot32(w, x32(first_row + r, unit));
            }
        }
    }
    if (j < p.n) {
        for (var r = 0u; r < 16u; r++) {
            if (r < rows) {
                finish((first_row + r) * p.y_stride + p.y_offset + j, sums[r]);
            }
        }
    }
}
