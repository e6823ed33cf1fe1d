// matvec: teams of LANES threads along K, each thread one unit of 32 at a time against 4 rows of weights, so that x stays
// in registers across them; then one sum per output through workgroup memory.

// Threads of a team, 8 to 64: with fewer, outputs would outnumber the threads that finish them.
override LANES: u32 = 64u;

var<workgroup> parts: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let teams = 64u / LANES;
    let team = thread / LANES;
    let first = (group.x + 32768u * group.z) * teams * OUTPUTS;
    let row = group.y;
    var sums = vec4<f32>(0.0);
    if (team < teams) {
        let j = first + OUTPUTS * team;
        for (var unit = thread % LANES; unit < (p.k + 31u) / 32u; unit += LANES) {
            let e = x32(row, unit);
            sums += vec4<f32>(
                dot32(w32(row_of(j, 0u), unit), e),
                dot32(w32(row_of(j, 1u), unit), e),
                dot32(w32(row_of(j, 2u), unit), e),
                dot32(w32(row_of(j, 3u), unit), e),
            );
        }
    }
    parts[thread] = sums;
    workgroupBarrier();
    let j = first + thread;
    if (thread < OUTPUTS * teams && j < p.n) {
        var sum = vec4<f32>(0.0);
        for (var lane = 0u; lane < LANES; lane++) {
            sum += parts[thread / OUTPUTS * LANES + lane];
        }
        finish(row * p.y_stride + p.y_offset + j, output(sum, thread % OUTPUTS));
    }
}
