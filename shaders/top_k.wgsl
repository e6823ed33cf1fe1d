// top_k: a workgroup of 256 threads per row. The k-th largest is found by radix select, a byte at a time: first over
// the order of the logits, then, where more are equal to it than are wanted, over their tokens. Exact for any row.
struct Params {
    rows: u32,
    kv_len: u32,
    width: u32,
    k: u32,
}

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read_write> found: array<u32>;

const NAN = 0x7fc00000u;
const NOT_A_TOKEN = 0xffffffffu;

struct Choice {
    digit: u32,
    wanted: u32,
    present: u32,
}

var<workgroup> tops: array<u32, 256>;
var<workgroup> largest: u32;
var<workgroup> least: u32;
var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> choice: Choice;
var<workgroup> sums: array<f32, 256>;
var<workgroup> taken: atomic<u32>;
var<workgroup> orders: array<u32, 128>;
var<workgroup> tokens: array<u32, 128>;

// As `order_of`, with NaN above all numbers.
fn order_at(row: u32, token: u32) -> u32 {
    let bits = logits[row * p.width + token];
    return select(order_of(bits), 0xffffffffu, is_nan(bits));
}

fn number_of(order: u32) -> f32 {
    return bitcast<f32>(select(~order, order & 0x7fffffffu, order >= 0x80000000u));
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let row = group.x;
    let to = row * (2u * p.k + 1u);
    var top = 0u;
    for (var token = thread; token < p.width; token += 256u) {
        top = max(top, order_at(row, token));
    }
    tops[thread] = top;
    if (thread == 0u) {
        atomicStore(&taken, 0u);
    }
    workgroupBarrier();
    var above = 0u;
    for (var i = 0u; i < 256u; i++) {
        above += u32(tops[i] > top || (tops[i] == top && i < thread));
    }
    if (above == 0u) {
        largest = top;
    }
    // At least k logits reach the k-th of the threads' largest: most others need not be counted.
    if (above == p.k - 1u) {
        least = top;
    }
    let best = workgroupUniformLoad(&largest);
    if (best < SMALLEST_FINITE || best > LARGEST_FINITE) {
        if (thread < p.k) {
            found[to + thread] = NOT_A_TOKEN;
            found[to + p.k + thread] = NAN;
        }
        if (thread == 0u) {
            found[to + 2u * p.k] = NAN;
        }
        return;
    }

    let m = number_of(best);
    var sum = 0.0;
    var wanted = p.k;
    var prefix = 0u;
    // The order of the k-th largest, and of the tokens t that have it, those with ~t >= tokens_from are taken.
    var threshold = 0u;
    var tokens_from = 0u;
    for (var pass_of = 0u; pass_of < 8u; pass_of++) {
        let shift = 24u - 8u * (pass_of % 4u);
        atomicStore(&bins[thread], 0u);
        workgroupBarrier();
        for (var token = thread; token < p.width; token += 256u) {
            let order = order_at(row, token);
            if (pass_of == 0u && order >= SMALLEST_FINITE) {
                sum += exp(number_of(order) - m);
            }
            if (order < least || (pass_of >= 4u && order != threshold)) {
                continue;
            }
            let word = select(order, ~token, pass_of >= 4u);
            if (shift == 24u || (word >> (shift + 8u)) == prefix) {
                atomicAdd(&bins[(word >> shift) & 255u], 1u);
            }
        }
        workgroupBarrier();
        var higher = 0u;
        for (var i = thread + 1u; i < 256u; i++) {
            higher += atomicLoad(&bins[i]);
        }
        let here = atomicLoad(&bins[thread]);
        if (higher < wanted && wanted <= higher + here) {
            choice = Choice(thread, wanted - higher, here);
        }
        let chosen = workgroupUniformLoad(&choice);
        prefix = (prefix << 8u) | chosen.digit;
        wanted = chosen.wanted;
        if (pass_of == 3u) {
            threshold = prefix;
            prefix = 0u;
            if (chosen.wanted == chosen.present) {
                break;
            }
        }
        if (pass_of == 7u) {
            tokens_from = prefix;
        }
    }

    sums[thread] = sum;
    for (var token = thread; token < p.width; token += 256u) {
        let order = order_at(row, token);
        if (order > threshold || (order == threshold && ~token >= tokens_from)) {
            let at = min(atomicAdd(&taken, 1u), 127u);
            orders[at] = order;
            tokens[at] = token;
        }
    }
    workgroupBarrier();
    if (thread < p.k) {
        let order = orders[thread];
        let token = tokens[thread];
        var rank = 0u;
        for (var i = 0u; i < p.k; i++) {
            rank += u32(orders[i] > order || (orders[i] == order && tokens[i] < token));
        }
        found[to + rank] = token;
        found[to + p.k + rank] = logits[row * p.width + token];
    }
    if (thread == 0u) {
        var total = 0.0;
        for (var i = 0u; i < 256u; i++) {
            total += sums[i];
        }
        found[to + 2u * p.k] = bitcast<u32>(m + log(total));
    }
}
