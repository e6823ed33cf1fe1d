// q2_k in GPU order: per unit half a vector of 2-bit codes; per block of 8 units five words: a byte per 16 elements, its
// scale below its minimum (four words); f16 d and dmin; w = d * scale * q - dmin * min.
fn pairs4(c: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(c & 0x03030303u));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = scales_at + unit / 8u * 5u;
    let groups = unpack4xU8(scales[at + (unit & 7u) / 2u] >> (16u * (unit & 1u))).xy;
    let dm = unpack2x16float(scales[at + 4u]);
    let d = dm.x * vec2<f32>(groups & vec2<u32>(15u));
    let m = dm.y * vec2<f32>(groups >> vec2<u32>(4u));
    let both = codes[codes_at + unit / 2u];
    let c = select(both.xy, both.zw, (unit & 1u) == 1u);
    let m0 = vec4<f32>(m.x);
    let m1 = vec4<f32>(m.y);
    return array<vec4<f32>, 8>(
        d.x * pairs4(c.x) - m0, d.x * pairs4(c.x >> 2u) - m0,
        d.x * pairs4(c.x >> 4u) - m0, d.x * pairs4(c.x >> 6u) - m0,
        d.y * pairs4(c.y) - m1, d.y * pairs4(c.y >> 2u) - m1,
        d.y * pairs4(c.y >> 4u) - m1, d.y * pairs4(c.y >> 6u) - m1,
    );
}
