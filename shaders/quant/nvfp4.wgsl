// nvfp4 in GPU order: per unit one vector of nibbles; per block of 2 units a word: a byte of scale per 16 elements;
// w = scale / 2 * level, the levels as in mxfp4.
fn levels4(c: u32) -> vec4<f32> {
    let i = unpack4xU8(c & 0x0f0f0f0fu);
    let level = vec4<i32>((vec4<u32>(0xc8643210u) >> (4u * (i & vec4<u32>(7u)))) & vec4<u32>(15u));
    return vec4<f32>(select(level, -level, i > vec4<u32>(7u)));
}

fn half_scale(byte: u32) -> f32 {
    let e = byte & 0x7fu;
    let d = select(bitcast<f32>((e << 20u) + (119u << 23u)), f32(e) / 1024.0, e < 8u);
    return select(d, 0.0, byte == 0x7fu);
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let bytes = unpack4xU8(scales[scales_at + unit / 2u] >> (16u * (unit & 1u))).xy;
    let d0 = half_scale(bytes.x);
    let d1 = half_scale(bytes.y);
    let c = codes[codes_at + unit];
    return array<vec4<f32>, 8>(
        d0 * levels4(c.x), d0 * levels4(c.x >> 4u), d0 * levels4(c.y), d0 * levels4(c.y >> 4u),
        d1 * levels4(c.z), d1 * levels4(c.z >> 4u), d1 * levels4(c.w), d1 * levels4(c.w >> 4u),
    );
}
