// iq4_nl in GPU order: per unit (a block) one vector of nibbles and a f16 d; w = d * level, a nibble the number of one of
// 16 levels, four of which stand in each constant as signed bytes.
fn levels4(c: u32) -> vec4<f32> {
    let i = unpack4xU8(c & 0x0f0f0f0fu);
    let second = (i & vec4<u32>(4u)) != vec4<u32>(0u);
    let low = select(vec4<u32>(0xbfad9881u), vec4<u32>(0xf6eaddcfu), second);
    let high = select(vec4<u32>(0x26190d01u), vec4<u32>(0x71594535u), second);
    let four = select(low, high, i > vec4<u32>(7u));
    return vec4<f32>(bitcast<vec4<i32>>(four << (vec4<u32>(24u) - 8u * (i & vec4<u32>(3u)))) >> vec4<u32>(24u));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let d = unpack2x16float(scales[scales_at + unit / 2u] >> (16u * (unit & 1u))).x;
    let c = codes[codes_at + unit];
    return array<vec4<f32>, 8>(
        d * levels4(c.x), d * levels4(c.x >> 4u), d * levels4(c.y), d * levels4(c.y >> 4u),
        d * levels4(c.z), d * levels4(c.z >> 4u), d * levels4(c.w), d * levels4(c.w >> 4u),
    );
}
