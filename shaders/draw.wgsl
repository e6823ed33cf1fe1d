// draw: a workgroup of 128 threads per output. A thread weighs a candidate, the first one adds: src/base/chance.rs, in
// whole numbers because the result may not depend on the device.
struct Params {
    rows: u32,
    kv_len: u32,
    k: u32,
}

struct Stage {
    what: u32,
    value: u32,
    mantissa: u32,
    exponent: i32,
}

struct Stages {
    count: u32,
    seed_low: u32,
    seed_high: u32,
    first: u32,
    list: array<Stage, 7>,
}

var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> found: array<u32>;
@group(0) @binding(1) var<storage, read> outputs: array<u32>;
@group(0) @binding(2) var<storage, read> chains: array<Stages>;
// token, position, sequence, 0
@group(0) @binding(3) var<storage, read_write> rows: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> tokens: array<u32>;

const NOT_A_TOKEN = 0xffffffffu;
const TOO_FAR = 0xffffffffu;
const NEGATIVE_INFINITY = 0xff800000u;
const MOST = 1u;
const SHARE = 2u;
const NEAR = 3u;
const DRAW = 4u;

const ROOTS = array<u32, 20>(
    0xb504f334u, 0xd744fccbu, 0xeac0c6e8u, 0xf5257d15u, 0xfa83b2dbu, 0xfd3e0c0du, 0xfe9e115cu, 0xff4ecb59u,
    0xffa75652u, 0xffd3a752u, 0xffe9d2b3u, 0xfff4e91cu, 0xfffa747fu, 0xfffd3a3bu, 0xfffe9d1du, 0xffff4e8eu,
    0xffffa747u, 0xffffd3a3u, 0xffffe9d2u, 0xfffff4e9u,
);

// Steps below the largest, and weights.
var<workgroup> below: array<u32, 128>;
var<workgroup> weights: array<u32, 128>;
var<workgroup> kept: u32;

// The upper half of a product.
fn high_of(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);
}

// The mantissa of f32 bits, below 2^30, for an exponent not below its own.
fn mantissa_at(bits: u32, exponent: i32) -> i32 {
    let field = (bits >> 23u) & 0xffu;
    let fraction = (bits & 0x7fffffu) | select(0x800000u, 0u, field == 0u);
    let shift = u32(exponent - exponent_of(bits));
    let magnitude = i32(select(0u, (fraction << 6u) >> min(shift, 31u), shift < 32u));
    return select(magnitude, -magnitude, (bits >> 31u) == 1u);
}

fn exponent_of(bits: u32) -> i32 {
    return max(i32((bits >> 23u) & 0xffu), 1) - 156;
}

fn steps_below(largest: u32, logit: u32, stage: Stage) -> u32 {
    if (logit == NEGATIVE_INFINITY) {
        return TOO_FAR;
    }
    let exponent = max(exponent_of(largest), exponent_of(logit));
    let difference = u32(mantissa_at(largest, exponent) - mantissa_at(logit, exponent));
    if (difference == 0u || stage.mantissa == 0u) {
        return 0u;
    }
    let zeros = countLeadingZeros(difference);
    let high = high_of(difference << zeros, stage.mantissa);
    let shift = exponent - i32(zeros) + stage.exponent + 52;
    if (shift > 0) {
        return TOO_FAR;
    }
    return select(0u, high >> u32(min(-shift, 31)), shift > -32);
}

fn weight_of(steps: u32) -> u32 {
    let halvings = steps >> 20u;
    if (halvings > 30u) {
        return 0u;
    }
    var roots = ROOTS;
    var weight = 0x80000000u;
    for (var i = 0u; i < 20u; i++) {
        if (((steps >> (19u - i)) & 1u) == 1u) {
            weight = high_of(weight, roots[i]);
        }
    }
    return weight >> (halvings + 1u);
}

fn mix(word: u32) -> u32 {
    var mixed = word ^ (word >> 16u);
    mixed *= 0x85ebca6bu;
    mixed ^= mixed >> 13u;
    mixed *= 0xc2b2ae35u;
    return mixed ^ (mixed >> 16u);
}

fn mixed_with(hash: u32, word: u32) -> u32 {
    return mix(hash ^ (mix(word) + 0x85ebca6bu));
}

// The sum of the first weights that reaches a share of those of `count`: its place. Sums are (low, high).
fn place_of(count: u32, share: u32, is_beyond: bool) -> u32 {
    var total = vec2<u32>(0u, 0u);
    for (var i = 0u; i < count; i++) {
        total = plus(total, weights[i]);
    }
    let high = high_of(total.x, share) + total.y * share;
    let wanted = vec2<u32>(((total.x * share) >> 24u) | (high << 8u), high >> 24u);
    var sum = vec2<u32>(0u, 0u);
    for (var i = 0u; i < count; i++) {
        sum = plus(sum, weights[i]);
        let is_equal = all(sum == wanted);
        let is_above = sum.y > wanted.y || (sum.y == wanted.y && sum.x > wanted.x);
        if (is_above || (is_equal && !is_beyond)) {
            return i;
        }
    }
    return 0u;
}

fn plus(sum: vec2<u32>, weight: u32) -> vec2<u32> {
    let low = sum.x + weight;
    return vec2<u32>(low, sum.y + u32(low < weight));
}

// How many candidates a stage keeps; of one that draws, the place.
fn result_of(stage: Stage, count: u32, chance: u32) -> u32 {
    switch (stage.what) {
        case MOST: {
            return min(count, stage.value);
        }
        case NEAR: {
            var near = 0u;
            while (near < count && below[near] <= stage.value) {
                near++;
            }
            return near;
        }
        case SHARE: {
            return place_of(count, stage.value, false) + 1u;
        }
        case DRAW: {
            return place_of(count, chance, true);
        }
        default: {
            return count;
        }
    }
}

@compute @workgroup_size(128)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let output = group.x;
    let from_token = output * (2u * p.k + 1u);
    let row = outputs[output];
    let stages = min(chains[output].count, 7u);
    var place = 0u;
    var count = p.k;
    for (var i = 0u; i < stages; i++) {
        let stage = chains[output].list[i];
        if (thread < count) {
            let largest = found[from_token + p.k];
            let steps = steps_below(largest, found[from_token + p.k + thread], stage);
            below[thread] = steps;
            weights[thread] = weight_of(steps);
        }
        workgroupBarrier();
        if (thread == 0u) {
            let step = rows[row].y - chains[output].first;
            let seeded = mixed_with(mixed_with(0x9e3779b9u, chains[output].seed_low), chains[output].seed_high);
            kept = result_of(stage, count, mixed_with(mixed_with(seeded, step), 0u) >> 8u);
        }
        let result = workgroupUniformLoad(&kept);
        if (stage.what == DRAW) {
            place = result;
            break;
        }
        count = result;
    }
    if (thread == 0u && stages > 0u) {
        let token = found[from_token + place];
        tokens[output] = token;
        rows[row].x = token;
    }
}
