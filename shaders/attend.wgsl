// attend: a workgroup of 32 threads per head and row, page by page. A thread is first a key of the page (its score),
// then pairs of dimensions of the result (the sum over the page's values).
struct Params {
    rows: u32,
    kv_len: u32,
    q_stride: u32,
    q_offset: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    pages_per_sequence: u32,
    scale: f32,
    window: u32,
    cap: f32,
    block: u32,
}

var<immediate> p: Params;
// token, position, sequence, 0
@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> pages: array<u32>;
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// Pairs of elements of a head, at most 128.
override PAIRS: u32 = 32u;
// Pairs of a thread.
override OWN: u32 = (PAIRS + 31u) / 32u;

// Whether rows see less than all of their keys.
override WINDOWED: bool = false;
// What scores stay below, softly; 0 for nothing.
override CAP: f32 = 0.0;

// Elements of a block of the transform that turns results back, 1 for none, and 1 / sqrt of that.
override BLOCK: u32 = 1u;
override SHARE: f32 = 1.0;

// A score that no key reaches; finite, so that differences of scores are.
const NOTHING = -3.0e38;

var<workgroup> query: array<vec2<f32>, 128>;
var<workgroup> scores: array<f32, 32>;
var<workgroup> weights: array<f32, 32>;

@compute @workgroup_size(32)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let head = group.x;
    let row = group.y;
    let kv_head = head / (p.heads / p.kv_heads);
    let keys_seen = rows[row].y + 1u;
    let first_seen = keys_seen - min(keys_seen, p.window);
    let first_page = rows[row].z * p.pages_per_sequence;
    for (var pair = thread; pair < PAIRS; pair += 32u) {
        let at = row * p.q_stride + p.q_offset + 2u * (head * PAIRS + pair);
        query[pair] = vec2<f32>(q[at], q[at + 1u]) * p.scale;
    }
    workgroupBarrier();

    var sums: array<vec2<f32>, 4>;
    var largest = NOTHING;
    var total = 0.0;
    for (var first = first_seen / 32u * 32u; first < keys_seen; first += 32u) {
        let count = min(32u, keys_seen - first);
        let page = (pages[first_page + first / 32u] * p.kv_heads + kv_head) * 32u;
        var score = NOTHING;
        if (thread < count && (!WINDOWED || first + thread >= first_seen)) {
            var products = vec2<f32>(0.0);
            for (var pair = 0u; pair < PAIRS; pair++) {
                products += query[pair] * key_pair(page + thread, pair);
            }
            score = products.x + products.y;
            if (CAP > 0.0) {
                score = soft_cap(vec4<f32>(score), CAP).x;
            }
        }
        scores[thread] = score;
        workgroupBarrier();
        let before = largest;
        for (var t = 0u; t < count; t++) {
            largest = max(largest, scores[t]);
        }
        weights[thread] = exp(score - largest);
        if (WINDOWED && first + thread < first_seen) {
            weights[thread] = 0.0;
        }
        // The scores of the next page are written after this barrier, its weights after the one above.
        workgroupBarrier();
        let shrink = exp(before - largest);
        total *= shrink;
        for (var i = 0u; i < OWN; i++) {
            sums[i] *= shrink;
        }
        for (var t = select(0u, first_seen - min(first_seen, first), WINDOWED); t < count; t++) {
            let weight = weights[t];
            total += weight;
            for (var i = 0u; i < OWN; i++) {
                let pair = thread + 32u * i;
                if (pair < PAIRS) {
                    sums[i] += weight * value_pair(page + t, pair);
                }
            }
        }
    }
    if (BLOCK > 1u) {
        for (var i = 0u; i < OWN; i++) {
            let pair = thread + 32u * i;
            if (pair < PAIRS) {
                query[pair] = vec2<f32>(sums[i].x + sums[i].y, sums[i].x - sums[i].y) * SHARE;
            }
        }
        for (var half = 1u; half < BLOCK / 2u; half *= 2u) {
            workgroupBarrier();
            for (var i = thread; i < PAIRS / 2u; i += 32u) {
                let at = i / half * 2u * half + i % half;
                let a = query[at];
                let b = query[at + half];
                query[at] = a + b;
                query[at + half] = a - b;
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < OWN; i++) {
        let pair = thread + 32u * i;
        if (pair < PAIRS) {
            let at = 2u * ((row * p.heads + head) * PAIRS + pair);
            var sum = sums[i];
            if (BLOCK > 1u) {
                sum = query[pair];
            }
            y[at] = sum.x / total;
            y[at + 1u] = sum.y / total;
        }
    }
}
