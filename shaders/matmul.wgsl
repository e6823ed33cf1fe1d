// matmul: tiles of 64 rows by 64 outputs by 32 of K. A thread decodes one unit of W and fetches one of x into
// workgroup memory, then adds to 8 rows by 8 outputs, 8 apart, in registers.

// Vector i of line l stands at 8 l + (i xor l mod 8): eight threads that read one vector of eight
// neighbouring lines touch all banks, without padding, which 16 KiB have no room for.
var<workgroup> w_tile: array<vec4<f32>, 512>;
var<workgroup> x_tile: array<vec4<f32>, 512>;

fn four(e: vec4<f32>, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(dot(e, a), dot(e, b), dot(e, c), dot(e, d));
}

// Writes the outputs of a thread in a row, of which `cols` exist. Takes vectors, because indices that are not
// constant would move the arrays they come from out of registers.
fn finish_row(at: u32, cols: u32, low: vec4<f32>, high: vec4<f32>) {
    for (var j = 0u; j < cols; j++) {
        finish(at + 8u * j, select(low, high, j >= 4u)[j % 4u]);
    }
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let first_col = 64u * group.x;
    let first_row = 64u * group.y;
    let rows = min(p.rows - first_row, 64u);
    let of_col = thread % 8u;
    let of_row = thread / 8u;
    // Outputs 0, 8, 16, 24 and 32, 40, 48, 56 from of_col on, of row of_row + 8 i.
    var low: array<vec4<f32>, 8>;
    var high: array<vec4<f32>, 8>;
    for (var unit = 0u; unit < (p.k + 31u) / 32u; unit++) {
        let w = unit_w(first_col + thread, unit);
        var e: array<vec4<f32>, 8>;
        if (thread < rows) {
            e = x32(first_row + thread, unit);
        }
        workgroupBarrier();
        let line = 8u * thread;
        w_tile[line + (0u ^ of_col)] = w[0];
        w_tile[line + (1u ^ of_col)] = w[1];
        w_tile[line + (2u ^ of_col)] = w[2];
        w_tile[line + (3u ^ of_col)] = w[3];
        w_tile[line + (4u ^ of_col)] = w[4];
        w_tile[line + (5u ^ of_col)] = w[5];
        w_tile[line + (6u ^ of_col)] = w[6];
        w_tile[line + (7u ^ of_col)] = w[7];
        x_tile[line + (0u ^ of_col)] = e[0];
        x_tile[line + (1u ^ of_col)] = e[1];
        x_tile[line + (2u ^ of_col)] = e[2];
        x_tile[line + (3u ^ of_col)] = e[3];
        x_tile[line + (4u ^ of_col)] = e[4];
        x_tile[line + (5u ^ of_col)] = e[5];
        x_tile[line + (6u ^ of_col)] = e[6];
        x_tile[line + (7u ^ of_col)] = e[7];
        workgroupBarrier();
        for (var i = 0u; i < 8u; i++) {
            let w0 = w_tile[8u * (of_col + 0u) + (i ^ of_col)];
            let w1 = w_tile[8u * (of_col + 8u) + (i ^ of_col)];
            let w2 = w_tile[8u * (of_col + 16u) + (i ^ of_col)];
            let w3 = w_tile[8u * (of_col + 24u) + (i ^ of_col)];
            let w4 = w_tile[8u * (of_col + 32u) + (i ^ of_col)];
            let w5 = w_tile[8u * (of_col + 40u) + (i ^ of_col)];
            let w6 = w_tile[8u * (of_col + 48u) + (i ^ of_col)];
            let w7 = w_tile[8u * (of_col + 56u) + (i ^ of_col)];
            if (rows > 0u) {
                let e = x_tile[8u * (of_row + 0u) + (i ^ of_row)];
                low[0] += four(e, w0, w1, w2, w3);
                high[0] += four(e, w4, w5, w6, w7);
            }
            if (rows > 8u) {
                let e = x_tile[8u * (of_row + 8u) + (i ^ of_row)];
                low[1] += four(e, w0, w1, w2, w3);
                high[1] += four(e, w4, w5, w6, w7);
            }
            if (rows > 16u) {
                let e = x_tile[8u * (of_row + 16u) + (i ^ of_row)];
                low[2] += four(e, w0, w1, w2, w3);
                high[2] += four(e, w4, w5, w6, w7);
            }
            if (rows > 24u) {
                let e = x_tile[8u * (of_row + 24u) + (i ^ of_row)];
                low[3] += four(e, w0, w1, w2, w3);
                high[3] += four(e, w4, w5, w6, w7);
            }
            if (rows > 32u) {
                let e = x_tile[8u * (of_row + 32u) + (i ^ of_row)];
                low[4] += four(e, w0, w1, w2, w3);
                high[4] += four(e, w4, w5, w6, w7);
            }
            if (rows > 40u) {
                let e = x_tile[8u * (of_row + 40u) + (i ^ of_row)];
                low[5] += four(e, w0, w1, w2, w3);
                high[5] += four(e, w4, w5, w6, w7);
            }
            if (rows > 48u) {
                let e = x_tile[8u * (of_row + 48u) + (i ^ of_row)];
                low[6] += four(e, w0, w1, w2, w3);
                high[6] += four(e, w4, w5, w6, w7);
            }
            if (rows > 56u) {
                let e = x_tile[8u * (of_row + 56u) + (i ^ of_row)];
                low[7] += four(e, w0, w1, w2, w3);
                high[7] += four(e, w4, w5, w6, w7);
            }
        }
    }
    let cols = (min(p.n - first_col, 64u) + 7u - of_col) / 8u;
    let at = (first_row + of_row) * p.y_stride + p.y_offset + first_col + of_col;
    let down = 8u * p.y_stride;
    if (of_row < rows) {
        finish_row(at, cols, low[0], high[0]);
    }
    if (of_row + 8u < rows) {
        finish_row(at + down, cols, low[1], high[1]);
    }
    if (of_row + 16u < rows) {
        finish_row(at + 2u * down, cols, low[2], high[2]);
    }
    if (of_row + 24u < rows) {
        finish_row(at + 3u * down, cols, low[3], high[3]);
    }
    if (of_row + 32u < rows) {
        finish_row(at + 4u * down, cols, low[4], high[4]);
    }
    if (of_row + 40u < rows) {
        finish_row(at + 5u * down, cols, low[5], high[5]);
    }
    if (of_row + 48u < rows) {
        finish_row(at + 6u * down, cols, low[6], high[6]);
    }
    if (of_row + 56u < rows) {
        finish_row(at + 7u * down, cols, low[7], high[7]);
    }
}
