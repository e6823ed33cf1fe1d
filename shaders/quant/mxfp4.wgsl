// mxfp4 in GPU order: per unit (a block) one vector of nibbles and a half word with the exponent e; w = 2^(e - 128) * level,
// a nibble a sign above the number of one of 8 levels.
fn levels4(c: u32) -> vec4<f32> {
    let i = unpack4xU8(c & 0x0f0f0f0fu);
    let level = vec4<i32>((vec4<u32>(0xc8643210u) >> (4u * (i & vec4<u32>(7u)))) & vec4<u32>(15u));
    return vec4<f32>(select(level, -level, i > vec4<u32>(7u)));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let e = (scales[scales_at + unit / 2u] >> (16u * (unit & 1u))) & 255u;
    let d = bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << (e & 1u), e < 2u));
    let c = codes[codes_at + unit];
    return array<vec4<f32>, 8>(
        d * levels4(c.x), d * levels4(c.x >> 4u), d * levels4(c.y), d * levels4(c.y >> 4u),
        d * levels4(c.z), d * levels4(c.z >> 4u), d * levels4(c.w), d * levels4(c.w >> 4u),
    );
}
