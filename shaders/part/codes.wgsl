// Units of 32 weights as whole numbers: weight i is (code i - MIDDLE) * scales[i / 16] + mins[i / 16].
struct Codes {
    // Signed bytes, four to a word: those of the first 16, and of the others.
    low: vec4<u32>,
    high: vec4<u32>,
    scales: vec2<f32>,
    mins: vec2<f32>,
}

// The 16 nibbles of two words as bytes.
fn nibbles16(c: vec2<u32>) -> vec4<u32> {
    return vec4<u32>(c.x, c.x >> 4u, c.y, c.y >> 4u) & vec4<u32>(0x0f0f0f0fu);
}

// The unit of row j of the weights from 32 * unit on; rows past the last repeat it.
fn codes_of(j: u32, unit: u32) -> Codes {
    let row = min(j, HALVES * p.n - 1u);
    return codes32(row * p.code_stride, row * p.scale_stride, unit);
}

// Where the largest magnitude of a unit of x is no greater, the unit counts as zero: a quotient by it is to be finite.
const LEAST = 1e-30;

fn magnitude4(e: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(e) & vec4<u32>(0x7fffffffu);
}

// The largest magnitude; NaN where there is one: the bits of numbers without sign are in their order, NaN behind.
fn magnitude32(e: array<vec4<f32>, 8>) -> f32 {
    let most = max(
        max(max(magnitude4(e[0]), magnitude4(e[1])), max(magnitude4(e[2]), magnitude4(e[3]))),
        max(max(magnitude4(e[4]), magnitude4(e[5])), max(magnitude4(e[6]), magnitude4(e[7]))),
    );
    return bitcast<f32>(max(max(most.x, most.y), max(most.z, most.w)));
}
