// kv_blocks: a workgroup per head of a row: of Q where it is written, then of K, then of V. The fragments before say what
// `element` reads.
var<immediate> p: Params;
// token, position, sequence, 0
@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> pages: array<u32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> keys: array<u32>;
@group(0) @binding(4) var<storage, read_write> values: array<u32>;

const WG = 64u;

// 1 / sqrt(p.block)
override SHARE: f32 = 1.0;

// The head, and zeros up to the end of its last block.
var<workgroup> head: array<f32, 256>;

// The bits of the element of the largest magnitude in block b, and of a NaN or an infinity where there is one.
fn largest_in(b: u32) -> u32 {
    var largest = 0u;
    for (var i = 0u; i < 32u; i++) {
        let bits = bitcast<u32>(head[32u * b + i]);
        largest = max(largest, (bits << 1u) | (bits >> 31u));
    }
    return (largest >> 1u) | (largest << 31u);
}

// As f16.
fn scale_of(b: u32) -> u32 {
    let largest = largest_in(b);
    if ((largest & 0x7fffffffu) >= 0x7f800000u) {
        return 0x7e00u;
    }
    return half_bits(clamp(step_of(bitcast<f32>(largest)), -65504.0, 65504.0));
}

// The nearest codes, whatever the device makes of a division: thresholds are exact products.
fn code4(values: vec4<f32>, scale: u32) -> vec4<i32> {
    let size = unpack2x16float(scale & 0x7fffu).x;
    if ((scale & 0x7fffu) == 0u || (scale & 0x7fffu) >= 0x7c00u) {
        return vec4<i32>(0);
    }
    let v = select(values, -values, (scale & 0x8000u) != 0u);
    let near = clamp(round(v / size), vec4<f32>(LEAST), vec4<f32>(MOST));
    let less = select(vec4<f32>(0.0), vec4<f32>(1.0), v < (near - 0.5) * size);
    let more = select(vec4<f32>(0.0), vec4<f32>(1.0), v >= (near + 0.5) * size);
    return vec4<i32>(clamp(near - less + more, vec4<f32>(LEAST), vec4<f32>(MOST)));
}

fn four_of(at: u32) -> vec4<f32> {
    return vec4<f32>(head[at], head[at + 1u], head[at + 2u], head[at + 3u]);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let position = rows[group.y].y;
    let is_turned = p.block > 1u;
    let number = group.x + select(p.heads, 0u, is_turned || READS_QUERIES);
    let first = group.y * p.stride + number * p.head_dim;
    let blocks = (p.head_dim + 31u) / 32u;
    for (var i = thread; i < 32u * blocks; i += WG) {
        var value = 0.0;
        if (i < p.head_dim) {
            value = element(first, i, position, number < p.heads + p.kv_heads);
        }
        head[i] = value;
    }
    for (var half = 1u; half < p.block; half *= 2u) {
        workgroupBarrier();
        for (var pair = thread; pair < p.head_dim / 2u; pair += WG) {
            let at = pair / half * 2u * half + pair % half;
            let a = head[at];
            let b = head[at + half];
            head[at] = a + b;
            head[at + half] = a - b;
        }
    }
    if (is_turned) {
        workgroupBarrier();
        for (var i = thread; i < p.head_dim; i += WG) {
            head[i] *= SHARE;
        }
    }
    workgroupBarrier();
    if (number < p.heads) {
        for (var i = thread; i < p.head_dim; i += WG) {
            x[first + i] = head[i];
        }
        return;
    }
    let is_key = number < p.heads + p.kv_heads;
    let kv_head = number - p.heads - select(p.kv_heads, 0u, is_key);
    let page = pages[rows[group.y].z * p.pages_per_sequence + position / 32u];
    let to = place_of((page * p.kv_heads + kv_head) * 32u + position % 32u);
    for (var i = thread; i < CODE_WORDS * blocks; i += WG) {
        let block = i / CODE_WORDS;
        let four = 32u * block + 4u * (i % CODE_WORDS);
        let scale = scale_of(block);
        let word = word_with(code4(four_of(four), scale), code4(four_of((four + 16u) % 256u), scale));
        if (is_key) {
            keys[to.x + i] = word;
        } else {
            values[to.x + i] = word;
        }
    }
    for (var i = thread; i < (blocks + 1u) / 2u; i += WG) {
        var word = scale_of(2u * i);
        if (2u * i + 1u < blocks) {
            word |= scale_of(2u * i + 1u) << 16u;
        }
        if (is_key) {
            keys[to.y + i] = word;
        } else {
            values[to.y + i] = word;
        }
    }
}
