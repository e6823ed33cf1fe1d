
// Codes name one of sixteen values T0 to T15; w = T[q] * s. An indexed array would be copied for each use, so the values
// are chosen bit by bit.
fn choose(bit: vec4<bool>, no: vec4<f32>, yes: vec4<f32>) -> vec4<f32> {
    return select(no, yes, bit);
}

fn pair(bit: vec4<bool>, no: f32, yes: f32) -> vec4<f32> {
    return select(vec4<f32>(no), vec4<f32>(yes), bit);
}

fn weights4(c: u32, s: f32) -> vec4<f32> {
    let code = unpack4xU8(c & 0x0f0f0f0fu);
    let b0 = (code & vec4<u32>(1u)) != vec4<u32>(0u);
    let b1 = (code & vec4<u32>(2u)) != vec4<u32>(0u);
    let b2 = (code & vec4<u32>(4u)) != vec4<u32>(0u);
    let b3 = (code & vec4<u32>(8u)) != vec4<u32>(0u);
    let low = choose(b2, choose(b1, pair(b0, T0, T1), pair(b0, T2, T3)), choose(b1, pair(b0, T4, T5), pair(b0, T6, T7)));
    let high =
        choose(b2, choose(b1, pair(b0, T8, T9), pair(b0, T10, T11)), choose(b1, pair(b0, T12, T13), pair(b0, T14, T15)));
    return choose(b3, low, high) * s;
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let s = bitcast<f32>(scales[scales_at + unit]);
    let c = codes[codes_at + unit];
    return array<vec4<f32>, 8>(
        weights4(c.x, s), weights4(c.x >> 4u, s), weights4(c.y, s), weights4(c.y >> 4u, s),
        weights4(c.z, s), weights4(c.z >> 4u, s), weights4(c.w, s), weights4(c.w >> 4u, s),
    );
}
