// attend_split: a workgroup per KV head, split and row: teams of TEAM threads, each a page at a time for all query heads
// of the KV head (at most 8; where there are more, a workgroup for each 8). A thread of a team is first a key (its
// scores), then pairs of dimensions of the result (the sums over the page's values). What belongs to query heads
// stands in vectors of 4 of them.
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
@group(0) @binding(6) var<storage, read_write> parts: array<f32>;

// Pairs of elements of a head, at most 128.
override PAIRS: u32 = 32u;
// Query heads of a workgroup: at most 8, at most 4 where a head has more than 64 pairs.
override HEADS: u32 = 1u;
override QUADS: u32 = (HEADS + 3u) / 4u;
override TEAM: u32 = 32u;
override TEAMS: u32 = 4u;
override THREADS: u32 = TEAM * TEAMS;
// Pairs of the result in a thread.
override OWN: u32 = (PAIRS + TEAM - 1u) / TEAM;

// Whether rows see less than all of their keys.
override WINDOWED: bool = false;
// What scores stay below, softly; 0 for nothing.
override CAP: f32 = 0.0;

// Elements of a block of the transform that turns results back, 1 for none, and 1 / sqrt of that.
override BLOCK: u32 = 1u;
override SHARE: f32 = 1.0;

// A score that no key reaches; finite, so that differences of scores are.
const NOTHING = -3.0e38;

// By element, then by four heads: the queries, in the end the result.
var<workgroup> query: array<vec4<f32>, 256>;
// By team, key and four heads.
var<workgroup> scores: array<vec4<f32>, 256>;
var<workgroup> weights: array<vec4<f32>, 256>;
// By team and four heads.
var<workgroup> tops: array<vec4<f32>, 8>;
var<workgroup> totals: array<vec4<f32>, 8>;

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let team = thread / TEAM;
    let lane = thread % TEAM;
    let heads_of_kv = p.heads / p.kv_heads;
    let groups_of_kv = (heads_of_kv + HEADS - 1u) / HEADS;
    let kv_head = group.x / groups_of_kv;
    let first_head = kv_head * heads_of_kv + group.x % groups_of_kv * HEADS;
    let heads = min(HEADS, (kv_head + 1u) * heads_of_kv - first_head);
    let split = group.y;
    let row = group.z;
    let keys_seen = rows[row].y + 1u;
    let table = rows[row].z * p.pages_per_sequence;
    let first_seen = keys_seen - min(keys_seen, p.window);
    let first_page = first_seen / 32u + split * pages_of_split();
    let end_page = min(first_page + pages_of_split(), (keys_seen + 31u) / 32u);
    // The split of another row, with more keys.
    if (first_page >= end_page) {
        return;
    }
    for (var i = thread; i < 2u * PAIRS * QUADS; i += THREADS) {
        var of_heads = vec4<f32>(0.0);
        for (var j = 0u; j < 4u; j++) {
            let head = 4u * (i % QUADS) + j;
            if (head < heads) {
                let at = row * p.q_stride + p.q_offset + (first_head + head) * 2u * PAIRS + i / QUADS;
                of_heads[j] = q[at] * p.scale;
            }
        }
        query[i] = of_heads;
    }
    workgroupBarrier();

    // By pair of the thread, element of the pair, and four heads.
    var sums: array<vec4<f32>, 32>;
    var largest = array<vec4<f32>, 2>(vec4<f32>(NOTHING), vec4<f32>(NOTHING));
    var total: array<vec4<f32>, 2>;
    for (var first = first_page; first < end_page; first += TEAMS) {
        let index = first + team;
        var count = 0u;
        // The first key of the page that is seen.
        var start = 0u;
        var page = 0u;
        if (index < end_page) {
            count = min(32u, keys_seen - 32u * index);
            if (WINDOWED) {
                start = first_seen - min(first_seen, 32u * index);
            }
            page = (pages[table + index] * p.kv_heads + kv_head) * 32u;
        }
        for (var key = lane; key < count; key += TEAM) {
            if (WINDOWED && key < start) {
                continue;
            }
            var score: array<vec4<f32>, 2>;
            for (var i = 0u; i < PAIRS / PAIRS_OF_KEY; i++) {
                let k = key_part(page + key, i);
                for (var quad = 0u; quad < QUADS; quad++) {
                    let at = 2u * PAIRS_OF_KEY * i * QUADS + quad;
                    score[quad] += query[at] * k.x + query[at + QUADS] * k.y;
                    if (PAIRS_OF_KEY == 2u) {
                        score[quad] += query[at + 2u * QUADS] * k.z + query[at + 3u * QUADS] * k.w;
                    }
                }
            }
            for (var quad = 0u; quad < QUADS; quad++) {
                if (CAP > 0.0) {
                    score[quad] = soft_cap(score[quad], CAP);
                }
                scores[(32u * team + key) * QUADS + quad] = score[quad];
            }
        }
        workgroupBarrier();
        var shrink: array<vec4<f32>, 2>;
        for (var quad = 0u; quad < QUADS; quad++) {
            var top = largest[quad];
            for (var t = start; t < count; t++) {
                top = max(top, scores[(32u * team + t) * QUADS + quad]);
            }
            for (var key = lane; key < count; key += TEAM) {
                if (WINDOWED && key < start) {
                    continue;
                }
                let at = (32u * team + key) * QUADS + quad;
                weights[at] = exp(scores[at] - top);
            }
            shrink[quad] = exp(largest[quad] - top);
            largest[quad] = top;
        }
        // The scores of the next page are written after this barrier, its weights after the one above.
        workgroupBarrier();
        for (var quad = 0u; quad < QUADS; quad++) {
            total[quad] *= shrink[quad];
            for (var i = 0u; i < 2u * OWN; i++) {
                sums[i * QUADS + quad] *= shrink[quad];
            }
        }
        for (var t = start; t < count; t++) {
            for (var quad = 0u; quad < QUADS; quad++) {
                let weight = weights[(32u * team + t) * QUADS + quad];
                total[quad] += weight;
                for (var i = 0u; i < OWN; i++) {
                    let pair = lane + TEAM * i;
                    if (pair < PAIRS) {
                        let v = value_pair(page + t, pair);
                        sums[2u * i * QUADS + quad] += weight * v.x;
                        sums[(2u * i + 1u) * QUADS + quad] += weight * v.y;
                    }
                }
            }
        }
    }

    if (lane == 0u) {
        for (var quad = 0u; quad < QUADS; quad++) {
            tops[team * QUADS + quad] = largest[quad];
            totals[team * QUADS + quad] = total[quad];
        }
    }
    workgroupBarrier();
    var factor: array<vec4<f32>, 2>;
    for (var quad = 0u; quad < QUADS; quad++) {
        var top = vec4<f32>(NOTHING);
        for (var i = 0u; i < TEAMS; i++) {
            top = max(top, tops[i * QUADS + quad]);
        }
        var sum = vec4<f32>(0.0);
        for (var i = 0u; i < TEAMS; i++) {
            sum += totals[i * QUADS + quad] * exp(tops[i * QUADS + quad] - top);
        }
        factor[quad] = exp(largest[quad] - top) / sum;
        largest[quad] = top;
        total[quad] = sum;
    }
    // One team after the other adds its share.
    for (var turn = 0u; turn < TEAMS; turn++) {
        for (var i = 0u; turn == team && i < OWN; i++) {
            let pair = lane + TEAM * i;
            for (var quad = 0u; pair < PAIRS && quad < QUADS; quad++) {
                let at = 2u * pair * QUADS + quad;
                let first = sums[2u * i * QUADS + quad] * factor[quad];
                let second = sums[(2u * i + 1u) * QUADS + quad] * factor[quad];
                query[at] = select(first, query[at] + first, turn > 0u);
                query[at + QUADS] = select(second, query[at + QUADS] + second, turn > 0u);
            }
        }
        workgroupBarrier();
    }
    for (var half = 1u; half < BLOCK; half *= 2u) {
        for (var i = thread; i < PAIRS * QUADS; i += THREADS) {
            let at = (i / QUADS / half * 2u * half + i / QUADS % half) * QUADS + i % QUADS;
            let a = query[at];
            let b = query[at + half * QUADS];
            query[at] = a + b;
            query[at + half * QUADS] = a - b;
        }
        workgroupBarrier();
    }
    let splits = most_splits();
    let width = 2u * PAIRS;
    let of_split = (row * splits + split) * p.heads + first_head;
    for (var i = thread; i < heads * width; i += THREADS) {
        let head = i / width;
        let value = query[i % width * QUADS + head / 4u][head % 4u] * SHARE;
        if (splits == 1u) {
            y[(row * p.heads + first_head) * width + i] = value;
        } else {
            parts[(of_split + head) * (width + 1u) + i % width] = value;
        }
    }
    if (splits > 1u && thread < heads) {
        let sum = log(total[thread / 4u]) + largest[thread / 4u];
        parts[(of_split + thread) * (width + 1u) + width] = sum[thread % 4u];
    }
}
