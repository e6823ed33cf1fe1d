// For products by cooperative matrices: tiles of 64 outputs by 64 rows by 32 of K, as f16 in workgroup memory. A subgroup
// has a band of 16 rows; where a workgroup has fewer than 4 subgroups, the bands take turns, and where it has more, the
// others compute the last band too and write nothing: all subgroups go the same way, as cooperative matrices ask for.
struct Place {
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

const BANDS = 4u;
// Elements from one line to the next: 32, and 8 more so that neighbouring lines begin in other banks.
const LINE = 40u;
// Where the rows of x begin, behind 64 outputs of W.
const X = 2560u;

var<workgroup> tile: array<f16, 5120>;
// For each band 16 rows of 16 outputs; behind them, what nobody reads.
var<workgroup> done: array<f32, 1280>;
var<workgroup> subgroups: u32;

// The number of subgroups, so that naga knows that it is the same for all threads.
fn bands_at_once(place: Place) -> u32 {
    if (place.thread == 0u) {
        subgroups = place.subgroups;
    }
    return workgroupUniformLoad(&subgroups);
}

fn put(at: u32, e: vec4<f32>) {
    // Activations may be larger than an f16 can be.
    let h = vec4<f16>(clamp(e, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
    tile[at] = h.x;
    tile[at + 1u] = h.y;
    tile[at + 2u] = h.z;
    tile[at + 3u] = h.w;
}

// Fills the tile with a unit of K: threads below 64 with a line of W each, the others with one of x.
fn fill(place: Place, unit: u32) {
    let line = place.thread % 64u;
    let row = 64u * place.group.y + line;
    var e: array<vec4<f32>, 8>;
    if (place.thread < 64u) {
        let w = unit_w(64u * place.group.x + line, unit);
        e = array<vec4<f32>, 8>(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]);
    } else if (row < p.rows) {
        e = x32(row, unit);
    }
    // Nobody still reads the unit before.
    workgroupBarrier();
    let at = LINE * place.thread;
    put(at, e[0]);
    put(at + 4u, e[1]);
    put(at + 8u, e[2]);
    put(at + 12u, e[3]);
    put(at + 16u, e[4]);
    put(at + 20u, e[5]);
    put(at + 24u, e[6]);
    put(at + 28u, e[7]);
    workgroupBarrier();
}

// Writes what stands in `done` of a band: outputs from 16 * block on.
fn finish_band(place: Place, band: u32, block: u32) {
    workgroupBarrier();
    if (band < BANDS) {
        for (var i = place.lane; i < 256u; i += place.lanes) {
            let row = 64u * place.group.y + 16u * band + i / 16u;
            let j = 64u * place.group.x + 16u * block + i % 16u;
            if (row < p.rows && j < p.n) {
                finish(row * p.y_stride + p.y_offset + j, done[256u * band + i]);
            }
        }
    }
    workgroupBarrier();
}
