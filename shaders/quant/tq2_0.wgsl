// tq1_0 and tq2_0 in GPU order: per unit half a vector of 2-bit codes, per block of 8 units one f16 d; w = (q - 1) * d.
fn pairs4(c: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(c & 0x03030303u)) - vec4<f32>(1.0);
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let block = unit / 8u;
    let d = unpack2x16float(scales[scales_at + block / 2u] >> (16u * (block & 1u))).x;
    let both = codes[codes_at + unit / 2u];
    let c = select(both.xy, both.zw, (unit & 1u) == 1u);
    return array<vec4<f32>, 8>(
        d * pairs4(c.x), d * pairs4(c.x >> 2u), d * pairs4(c.x >> 4u), d * pairs4(c.x >> 6u),
        d * pairs4(c.y), d * pairs4(c.y >> 2u), d * pairs4(c.y >> 4u), d * pairs4(c.y >> 6u),
    );
}
