// matvec: teams of LANES threads along K, each thread one unit of 32 at a time against 4 rows of weights or two times 4, so
// that x stays in registers across them; then one sum per output through workgroup memory.

// Threads of a team, 8 to 64: with fewer, outputs would outnumber the threads that finish them.
override LANES: u32 = 64u;

// The sums of threads, for each set.
var<workgroup> parts: array<vec4<f32>, 64u * SETS>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let teams = 64u / LANES;
    let team = thread / LANES;
    let of_set = OUTPUTS * teams;
    let first = (group.x + 32768u * group.z) * of_set * SETS;
    let row = group.y;
    var sums = vec4<f32>(0.0);
    var others = vec4<f32>(0.0);
    if (team < teams) {
        let j = first + OUTPUTS * team;
        for (var unit = thread % LANES; unit < (p.k + 31u) / 32u; unit += LANES) {
            let x = unit_x(x32(row, unit));
            sums += four_products(j, unit, x);
            if (SETS == 2u) {
                others += four_products(j + of_set, unit, x);
            }
        }
    }
    parts[thread] = sums;
    if (SETS == 2u) {
        parts[64u + thread] = others;
    }
    workgroupBarrier();
    for (var i = 0u; i < SETS; i++) {
        let j = first + of_set * i + thread;
        if (thread < of_set && j < p.n) {
            var sum = vec4<f32>(0.0);
            for (var lane = 0u; lane < LANES; lane++) {
                sum += parts[64u * i + thread / OUTPUTS * LANES + lane];
            }
            finish(row * p.y_stride + p.y_offset + j, output(sum, thread % OUTPUTS));
        }
    }
}
