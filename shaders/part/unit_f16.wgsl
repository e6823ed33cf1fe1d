// Units of 32 as f16: codes as they are, and x in parts of the largest, so that no sum overflows. A lane of a vector adds
// four products in f16.

// Outputs of a thread in matvec, in fours, which share what it costs to round x.
const SETS = 2u;

struct UnitW {
    e: array<vec4<f16>, 8>,
    scales: vec2<f32>,
    mins: vec2<f32>,
}

struct UnitX {
    e: array<vec4<f16>, 8>,
    sums: vec2<f32>,
    most: f32,
}

fn bytes4(c: u32) -> vec4<f16> {
    return vec4<f16>(unpack4xI8(c)) - vec4<f16>(f16(MIDDLE));
}

fn unit_w(j: u32, unit: u32) -> UnitW {
    let w = codes_of(j, unit);
    let e = array<vec4<f16>, 8>(
        bytes4(w.low.x), bytes4(w.low.y), bytes4(w.low.z), bytes4(w.low.w),
        bytes4(w.high.x), bytes4(w.high.y), bytes4(w.high.z), bytes4(w.high.w),
    );
    return UnitW(e, w.scales, w.mins);
}

fn sum4(e: vec4<f32>) -> f32 {
    return (e.x + e.y) + (e.z + e.w);
}

fn unit_x(e: array<vec4<f32>, 8>) -> UnitX {
    let most = magnitude32(e);
    let parts = select(0.0, 1.0 / most, most > LEAST);
    let scaled = array<vec4<f16>, 8>(
        vec4<f16>(e[0] * parts), vec4<f16>(e[1] * parts), vec4<f16>(e[2] * parts), vec4<f16>(e[3] * parts),
        vec4<f16>(e[4] * parts), vec4<f16>(e[5] * parts), vec4<f16>(e[6] * parts), vec4<f16>(e[7] * parts),
    );
    return UnitX(scaled, vec2<f32>(sum4(e[0] + e[1] + e[2] + e[3]), sum4(e[4] + e[5] + e[6] + e[7])), most);
}

fn mul(w: UnitW, x: UnitX) -> f32 {
    let low = w.e[0] * x.e[0] + w.e[1] * x.e[1] + w.e[2] * x.e[2] + w.e[3] * x.e[3];
    let high = w.e[4] * x.e[4] + w.e[5] * x.e[5] + w.e[6] * x.e[6] + w.e[7] * x.e[7];
    let dots = vec2<f32>(sum4(vec4<f32>(low)), sum4(vec4<f32>(high)));
    return x.most * dot(w.scales, dots) + dot(w.mins, x.sums);
}
