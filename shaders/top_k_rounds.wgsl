// top_k without atomics: a workgroup of 256 threads per row, and a round for each that is wanted, which finds the largest of
// those that no round before has found.
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

struct Best {
    order: u32,
    token: u32,
}

var<workgroup> bests: array<Best, 256>;
var<workgroup> chosen: Best;
var<workgroup> sums: array<f32, 256>;

// As `order_of`, with NaN above all numbers.
fn order_at(row: u32, token: u32) -> u32 {
    let bits = logits[row * p.width + token];
    return select(order_of(bits), 0xffffffffu, is_nan(bits));
}

fn number_of(order: u32) -> f32 {
    return bitcast<f32>(select(~order, order & 0x7fffffffu, order >= 0x80000000u));
}

// Any before none, the larger before the smaller, the smaller token before the larger.
fn is_before(a: Best, b: Best) -> bool {
    if (a.token == NOT_A_TOKEN || b.token == NOT_A_TOKEN) {
        return b.token == NOT_A_TOKEN;
    }
    return a.order > b.order || (a.order == b.order && a.token < b.token);
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let row = group.x;
    let to = row * (2u * p.k + 1u);
    var last = Best(0u, NOT_A_TOKEN);
    var largest = 0.0;
    for (var rank = 0u; rank < p.k; rank++) {
        var best = Best(0u, NOT_A_TOKEN);
        for (var token = thread; token < p.width; token += 256u) {
            let it = Best(order_at(row, token), token);
            if ((rank == 0u || is_before(last, it)) && is_before(it, best)) {
                best = it;
            }
        }
        bests[thread] = best;
        workgroupBarrier();
        if (thread == 0u) {
            for (var i = 1u; i < 256u; i++) {
                if (is_before(bests[i], best)) {
                    best = bests[i];
                }
            }
            chosen = best;
        }
        last = workgroupUniformLoad(&chosen);
        if (rank == 0u) {
            if (last.order < SMALLEST_FINITE || last.order > LARGEST_FINITE) {
                if (thread < p.k) {
                    found[to + thread] = NOT_A_TOKEN;
                    found[to + p.k + thread] = NAN;
                }
                if (thread == 0u) {
                    found[to + 2u * p.k] = NAN;
                }
                return;
            }
            largest = number_of(last.order);
        }
        if (thread == 0u) {
            found[to + rank] = last.token;
            found[to + p.k + rank] = logits[row * p.width + last.token];
        }
    }

    var sum = 0.0;
    for (var token = thread; token < p.width; token += 256u) {
        let order = order_at(row, token);
        if (order >= SMALLEST_FINITE) {
            sum += exp(number_of(order) - largest);
        }
    }
    sums[thread] = sum;
    workgroupBarrier();
    if (thread == 0u) {
        var total = 0.0;
        for (var i = 0u; i < 256u; i++) {
            total += sums[i];
        }
        found[to + 2u * p.k] = bitcast<u32>(largest + log(total));
    }
}
