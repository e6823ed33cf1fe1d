// matmul: tiles of 64 rows by 64 outputs by 32 of K, as units of whole numbers or of f16 in workgroup memory. A thread
// fetches a unit of W, or of x, or none, then adds to 4 rows by 4 outputs, 16 apart, in registers.
var<workgroup> w_tile: array<UnitW, 64>;
var<workgroup> x_tile: array<UnitX, 64>;

fn four(w0: UnitW, w1: UnitW, w2: UnitW, w3: UnitW, line: u32) -> vec4<f32> {
    let x = x_tile[line];
    return vec4<f32>(mul(w0, x), mul(w1, x), mul(w2, x), mul(w3, x));
}

// Writes outputs j, j + 16, j + 32 and j + 48 of a row, where they exist.
fn finish_four(row: u32, j: u32, sums: vec4<f32>) {
    if (row < p.rows) {
        let at = row * p.y_stride + p.y_offset + j;
        for (var i = 0u; i < 4u; i++) {
            if (j + 16u * i < p.n) {
                finish(at + 16u * i, sums[i]);
            }
        }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let line = thread % 64u;
    let last = p.rows - 1u;
    let of_row = thread / 16u;
    let row = 64u * group.y + of_row;
    let of_col = thread % 16u;
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    for (var unit = 0u; unit < (p.k + 31u) / 32u; unit++) {
        // Nobody still reads the unit before.
        workgroupBarrier();
        if (thread < 64u) {
            w_tile[line] = unit_w(64u * group.x + line, unit);
        } else if (thread < 128u) {
            x_tile[line] = unit_x(x32(min(64u * group.y + line, last), unit));
        }
        workgroupBarrier();
        let w0 = w_tile[of_col];
        let w1 = w_tile[of_col + 16u];
        let w2 = w_tile[of_col + 32u];
        let w3 = w_tile[of_col + 48u];
        s0 += four(w0, w1, w2, w3, of_row);
        if (64u * group.y + 16u < p.rows) {
            s1 += four(w0, w1, w2, w3, of_row + 16u);
        }
        if (64u * group.y + 32u < p.rows) {
            s2 += four(w0, w1, w2, w3, of_row + 32u);
        }
        if (64u * group.y + 48u < p.rows) {
            s3 += four(w0, w1, w2, w3, of_row + 48u);
        }
    }
    let j = 64u * group.x + of_col;
    finish_four(row, j, s0);
    finish_four(row + 16u, j, s1);
    finish_four(row + 32u, j, s2);
    finish_four(row + 48u, j, s3);
}
