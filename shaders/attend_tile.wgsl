// attend: a workgroup per KV head and 32 queries: rows, each with the query heads of the KV head (at most 8; where there
// are more, a workgroup for each 8). Tiles of keys, then of their values, are fetched into workgroup memory once for
// all of them. A thread is 4 queries: first against keys 8 apart, then, with the weights, for vectors of the result 8
// apart; eight threads have the same queries.
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
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

// Fours of a head, at most 32.
override FOURS: u32 = 16u;
// Query heads of a workgroup.
override HEADS: u32 = 1u;
override ROWS: u32 = 32u / HEADS;
// Vectors of the result in a thread, at most 4.
override OWN: u32 = (FOURS + 7u) / 8u;

// Whether rows see less than all of their keys.
override WINDOWED: bool = false;
// What scores stay below, softly; 0 for nothing.
override CAP: f32 = 0.0;

// Keys of a tile: as many as have room in 8 KiB with heads of 128. Tiles do not reach over pages.
const KEYS = 64u / ELEMENT;
const OF_THREAD = KEYS / 8u;

// Elements of a block of the transform that turns results back, 1 for none, and 1 / sqrt of that.
override BLOCK: u32 = 1u;
override SHARE: f32 = 1.0;

// A score that no key reaches; finite, so that differences of scores are.
const NOTHING = -3.0e38;

var<workgroup> tile: array<Four, 32u * KEYS>;
// By key, then by the threads' queries.
var<workgroup> weights: array<vec4<f32>, 8u * KEYS>;
var<workgroup> parts: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let block = thread / 8u;
    let lane = thread % 8u;
    let heads_of_kv = p.heads / p.kv_heads;
    let groups_of_kv = (heads_of_kv + HEADS - 1u) / HEADS;
    let kv_head = group.x / groups_of_kv;
    let first_head = kv_head * heads_of_kv + group.x % groups_of_kv * HEADS;
    let heads = min(HEADS, (kv_head + 1u) * heads_of_kv - first_head);
    let first_row = group.y * ROWS;
    let end_row = min(first_row + ROWS, p.rows);

    // The four queries; those that do not exist are others again, and not written.
    var row_of: vec4<u32>;
    var q_at: vec4<u32>;
    var y_at: vec4<u32>;
    var exists: vec4<bool>;
    for (var i = 0u; i < 4u; i++) {
        let query = 4u * block + i;
        let row = min(first_row + query / HEADS, end_row - 1u);
        let head = first_head + min(query % HEADS, heads - 1u);
        row_of[i] = row;
        q_at[i] = (row * p.q_stride + p.q_offset) / 4u + head * FOURS;
        y_at[i] = (row * p.heads + head) * FOURS;
        exists[i] = first_row + query / HEADS < end_row && query / HEADS < ROWS && query % HEADS < heads;
    }

    var sums: array<vec4<f32>, 16>;
    var largest = vec4<f32>(NOTHING);
    // Over the keys of this thread alone.
    var total = vec4<f32>(0.0);
    // Neighbouring rows of one sequence at a time.
    var begin = first_row;
    while (begin < end_row) {
        let sequence = rows[begin].z;
        var last = rows[begin].y;
        var least = last;
        var end = begin + 1u;
        while (end < end_row && rows[end].z == sequence) {
            last = max(last, rows[end].y);
            least = min(least, rows[end].y);
            end++;
        }
        // Keys that a query sees: those before this one, from the other on.
        var seen: vec4<u32>;
        for (var i = 0u; i < 4u; i++) {
            seen[i] = select(0u, rows[row_of[i]].y + 1u, row_of[i] >= begin && row_of[i] < end);
        }
        let from_key = seen - min(seen, vec4<u32>(p.window));
        let first_key = least + 1u - min(least + 1u, p.window);
        for (var first = first_key / KEYS * KEYS; first <= last; first += KEYS) {
            let count = min(KEYS, last + 1u - first);
            let page = pages[sequence * p.pages_per_sequence + first / 32u];
            let vector = (page * p.kv_heads + kv_head) * 32u + first % 32u;
            for (var i = thread; i < count * FOURS; i += 64u) {
                tile[i] = key_cell(vector, i);
            }
            workgroupBarrier();
            var scores: array<vec4<f32>, OF_THREAD>;
            for (var i = 0u; i < FOURS; i++) {
                let q0 = q[q_at.x + i];
                let q1 = q[q_at.y + i];
                let q2 = q[q_at.z + i];
                let q3 = q[q_at.w + i];
                for (var j = 0u; j < OF_THREAD; j++) {
                    let k = unpack_four(tile[(lane + 8u * j) * FOURS + i]);
                    scores[j] += vec4<f32>(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
                }
            }
            var top = largest;
            for (var j = 0u; j < OF_THREAD; j++) {
                let key = vec4<u32>(first + lane + 8u * j);
                var is_seen = key < seen;
                if (WINDOWED) {
                    is_seen = is_seen & (key >= from_key);
                }
                var score = scores[j] * p.scale;
                if (CAP > 0.0) {
                    score = soft_cap(score, CAP);
                }
                scores[j] = select(vec4<f32>(NOTHING), score, is_seen);
                top = max(top, scores[j]);
            }
            parts[thread] = top;
            workgroupBarrier();
            for (var i = 0u; i < 8u; i++) {
                top = max(top, parts[8u * block + i]);
            }
            let shrink = exp(largest - top);
            largest = top;
            total *= shrink;
            for (var j = 0u; j < OF_THREAD; j++) {
                let key = vec4<u32>(first + lane + 8u * j);
                var is_seen = key < seen;
                if (WINDOWED) {
                    is_seen = is_seen & (key >= from_key);
                }
                let weight = select(vec4<f32>(0.0), exp(scores[j] - top), is_seen);
                total += weight;
                weights[8u * (lane + 8u * j) + block] = weight;
            }
            // Nobody reads the keys any more.
            for (var i = thread; i < count * FOURS; i += 64u) {
                tile[i] = value_cell(vector, i);
            }
            workgroupBarrier();
            for (var i = 0u; i < OWN; i++) {
                sums[4u * i] *= shrink.x;
                sums[4u * i + 1u] *= shrink.y;
                sums[4u * i + 2u] *= shrink.z;
                sums[4u * i + 3u] *= shrink.w;
            }
            // Values before all windows may be anything.
            for (var t = select(0u, first_key - min(first_key, first), WINDOWED); t < count; t++) {
                let weight = weights[8u * t + block];
                for (var i = 0u; i < OWN; i++) {
                    let v = unpack_four(tile[t * FOURS + min(lane + 8u * i, FOURS - 1u)]);
                    sums[4u * i] += weight.x * v;
                    sums[4u * i + 1u] += weight.y * v;
                    sums[4u * i + 2u] += weight.z * v;
                    sums[4u * i + 3u] += weight.w * v;
                }
            }
            workgroupBarrier();
        }
        begin = end;
    }

    parts[thread] = total;
    workgroupBarrier();
    total = vec4<f32>(0.0);
    for (var i = 0u; i < 8u; i++) {
        total += parts[8u * block + i];
    }
    // The first query of each thread, then the second: of each, eight threads hold the fours.
    for (var query = 0u; BLOCK > 1u && query < 4u; query++) {
        for (var i = 0u; i < OWN; i++) {
            let four = lane + 8u * i;
            if (four < FOURS) {
                put_tile(block * FOURS + four, sums[4u * i + query] * SHARE);
            }
        }
        for (var half = 1u; half < BLOCK / 4u; half *= 2u) {
            workgroupBarrier();
            for (var i = lane; i < FOURS / 2u; i += 8u) {
                let at = block * FOURS + i / half * 2u * half + i % half;
                let a = get_tile(at);
                let b = get_tile(at + half);
                put_tile(at, a + b);
                put_tile(at + half, a - b);
            }
        }
        workgroupBarrier();
        for (var i = 0u; i < OWN; i++) {
            let four = lane + 8u * i;
            if (four < FOURS) {
                let v = get_tile(block * FOURS + four);
                let pairs = vec4<f32>(v.x + v.y, v.x - v.y, v.z + v.w, v.z - v.w);
                sums[4u * i + query] = vec4<f32>(pairs.xy + pairs.zw, pairs.xy - pairs.zw);
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < OWN; i++) {
        let four = lane + 8u * i;
        if (four < FOURS) {
            if (exists.x) {
                y[y_at.x + four] = sums[4u * i] / total.x;
            }
            if (exists.y) {
                y[y_at.y + four] = sums[4u * i + 1u] / total.y;
            }
            if (exists.z) {
                y[y_at.z + four] = sums[4u * i + 2u] / total.z;
            }
            if (exists.w) {
                y[y_at.w + four] = sums[4u * i + 3u] / total.w;
            }
        }
    }
}
