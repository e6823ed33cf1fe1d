// matmul: a thread has 4 outputs, 8 apart, of 8 rows, without workgroup memory: the fast form where threads are lanes
// of a CPU's vectors. A unit of W is decoded once for 8 rows, a unit of x fetched once for 32 outputs.
fn four(s: vec4<f32>, e: vec4<f32>, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    return s + vec4<f32>(dot(e, a), dot(e, b), dot(e, c), dot(e, d));
}

// Adds the products of a unit of x with one of each output.
fn four32(
    s: vec4<f32>,
    e: array<vec4<f32>, 8>,
    a: UnitW,
    b: UnitW,
    c: UnitW,
    d: UnitW,
) -> vec4<f32> {
    let s0 = four(s, e[0], a[0], b[0], c[0], d[0]);
    let s1 = four(s0, e[1], a[1], b[1], c[1], d[1]);
    let s2 = four(s1, e[2], a[2], b[2], c[2], d[2]);
    let s3 = four(s2, e[3], a[3], b[3], c[3], d[3]);
    let s4 = four(s3, e[4], a[4], b[4], c[4], d[4]);
    let s5 = four(s4, e[5], a[5], b[5], c[5], d[5]);
    let s6 = four(s5, e[6], a[6], b[6], c[6], d[6]);
    return four(s6, e[7], a[7], b[7], c[7], d[7]);
}

// Writes outputs j, j + 8, j + 16 and j + 24 of a row, where they exist.
fn finish_four(row: u32, j: u32, sums: vec4<f32>) {
    if (row < p.rows) {
        let at = row * p.y_stride + p.y_offset + j;
        for (var i = 0u; i < 4u; i++) {
            if (j + 8u * i < p.n) {
                finish(at + 8u * i, sums[i]);
            }
        }
    }
}

@compute @workgroup_size(8)
fn main(
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(workgroup_id) group: vec3<u32>,
) {
    let j = 32u * group.x + thread;
    let row = 8u * group.y;
    let last = p.rows - 1u;
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    var s4 = vec4<f32>(0.0);
    var s5 = vec4<f32>(0.0);
    var s6 = vec4<f32>(0.0);
    var s7 = vec4<f32>(0.0);
    for (var unit = 0u; unit < (p.k + 31u) / 32u; unit++) {
        let a = unit_w(j, unit);
        let b = unit_w(j + 8u, unit);
        let c = unit_w(j + 16u, unit);
        let d = unit_w(j + 24u, unit);
        s0 = four32(s0, x32_together(row, unit, lane), a, b, c, d);
        s1 = four32(s1, x32_together(min(row + 1u, last), unit, lane), a, b, c, d);
        s2 = four32(s2, x32_together(min(row + 2u, last), unit, lane), a, b, c, d);
        s3 = four32(s3, x32_together(min(row + 3u, last), unit, lane), a, b, c, d);
        s4 = four32(s4, x32_together(min(row + 4u, last), unit, lane), a, b, c, d);
        s5 = four32(s5, x32_together(min(row + 5u, last), unit, lane), a, b, c, d);
        s6 = four32(s6, x32_together(min(row + 6u, last), unit, lane), a, b, c, d);
        s7 = four32(s7, x32_together(min(row + 7u, last), unit, lane), a, b, c, d);
    }
    finish_four(row, j, s0);
    finish_four(row + 1u, j, s1);
    finish_four(row + 2u, j, s2);
    finish_four(row + 3u, j, s3);
    finish_four(row + 4u, j, s4);
    finish_four(row + 5u, j, s5);
    finish_four(row + 6u, j, s6);
    finish_four(row + 7u, j, s7);
}
