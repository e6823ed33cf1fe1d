// Units of 32 as packed signed bytes. Those of x are rounded to 16 bits, in steps of a 32639th of the largest, and split
// in two bytes, x = 256 * high + low, so that the largest still has a high byte.

// Outputs of a thread in matvec, in fours, which share what it costs to round x.
const SETS = 2u;

alias UnitW = Codes;

struct UnitX {
    // Bytes of the first 16 and of the others, four to a word.
    low0: vec4<u32>,
    high0: vec4<u32>,
    low1: vec4<u32>,
    high1: vec4<u32>,
    sums: vec2<i32>,
    step: f32,
}

fn unit_w(j: u32, unit: u32) -> UnitW {
    return codes_of(j, unit);
}

// The nearest whole numbers of up to 16 bits: 1.5 * 2^23 leaves no fraction bits, and the number in the lowest.
fn nearest4(e: vec4<f32>) -> vec4<i32> {
    return bitcast<vec4<i32>>(e + vec4<f32>(12582912.0)) - vec4<i32>(0x4b400000);
}

// The low byte is signed, so half of a high unit is rounded up.
fn high4(n: vec4<i32>) -> u32 {
    return pack4xI8((n + vec4<i32>(128)) >> vec4<u32>(8u));
}

fn unit_x(e: array<vec4<f32>, 8>) -> UnitX {
    let most = magnitude32(e);
    let steps = select(0.0, 32639.0 / most, most > LEAST);
    let n0 = nearest4(e[0] * steps);
    let n1 = nearest4(e[1] * steps);
    let n2 = nearest4(e[2] * steps);
    let n3 = nearest4(e[3] * steps);
    let n4 = nearest4(e[4] * steps);
    let n5 = nearest4(e[5] * steps);
    let n6 = nearest4(e[6] * steps);
    let n7 = nearest4(e[7] * steps);
    let low0 = vec4<u32>(pack4xI8(n0), pack4xI8(n1), pack4xI8(n2), pack4xI8(n3));
    let high0 = vec4<u32>(high4(n0), high4(n1), high4(n2), high4(n3));
    let low1 = vec4<u32>(pack4xI8(n4), pack4xI8(n5), pack4xI8(n6), pack4xI8(n7));
    let high1 = vec4<u32>(high4(n4), high4(n5), high4(n6), high4(n7));
    let ones = vec4<u32>(0x01010101u);
    let sums = vec2<i32>(products(ones, high0, low0), products(ones, high1, low1));
    return UnitX(low0, high0, low1, high1, sums, most / 32639.0);
}

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

// The product of 16 codes with 16 numbers in two bytes each.
fn products(codes: vec4<u32>, high: vec4<u32>, low: vec4<u32>) -> i32 {
    return 256 * dot16(codes, high) + dot16(codes, low);
}

fn mul(w: UnitW, x: UnitX) -> f32 {
    let dots = vec2<i32>(products(w.low, x.high0, x.low0), products(w.high, x.high1, x.low1)) - MIDDLE * x.sums;
    return x.step * (dot(w.scales, vec2<f32>(dots)) + dot(w.mins, vec2<f32>(x.sums)));
}
