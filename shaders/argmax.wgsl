// argmax: a workgroup per row. Logits are read as bits and compared by their order.
struct Params {
    rows: u32,
    kv_len: u32,
    width: u32,
}

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read> outputs: array<u32>;
// token, position, sequence, 0
@group(0) @binding(2) var<storage, read_write> rows: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> found: array<u32>;

const NOT_A_TOKEN = 0xffffffffu;

struct Best {
    order: u32,
    token: u32,
}

var<workgroup> bests: array<Best, 256>;

// NOT_A_TOKEN wins over all, then the larger logit, then the smaller token.
fn better(a: Best, b: Best) -> Best {
    if (a.token == NOT_A_TOKEN) {
        return a;
    }
    if (b.token == NOT_A_TOKEN || b.order > a.order || (b.order == a.order && b.token < a.token)) {
        return b;
    }
    return a;
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    // No logit has order 0.
    var best = Best(0u, 0u);
    for (var token = thread; token < p.width; token += 256u) {
        let bits = logits[group.x * p.width + token];
        let order = order_of(bits);
        let is_number = !is_nan(bits) && order <= LARGEST_FINITE;
        best = better(best, Best(order, select(NOT_A_TOKEN, token, is_number)));
    }
    bests[thread] = best;
    workgroupBarrier();
    if (thread < 16u) {
        for (var i = 1u; i < 16u; i++) {
            best = better(best, bests[thread + 16u * i]);
        }
        bests[thread] = best;
    }
    workgroupBarrier();
    if (thread == 0u) {
        for (var i = 1u; i < 16u; i++) {
            best = better(best, bests[i]);
        }
        let token = select(best.token, NOT_A_TOKEN, best.order < SMALLEST_FINITE);
        found[group.x] = token;
        let row = rows[outputs[group.x]];
        rows[outputs[group.x]] = vec4<u32>(token, row.y + 1u, row.zw);
    }
}
