// iq1_s in GPU order: per unit half a vector of 2-bit codes, a level plus 1; per block of 8 units two words: a nibble per unit,
// whether levels move down above a 3-bit scale; f16 d; w = d * (1 + 2 * scale) * (level +- 1/8).
fn levels4(c: u32, moved: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(c & 0x03030303u)) + moved;
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = scales_at + unit / 8u * 2u;
    let nibble = scales[at] >> (4u * (unit & 7u));
    let d = unpack2x16float(scales[at + 1u]).x * f32(2u * (nibble & 7u) + 1u);
    let m = vec4<f32>(select(-0.875, -1.125, (nibble & 8u) == 8u));
    let both = codes[codes_at + unit / 2u];
    let c = select(both.xy, both.zw, (unit & 1u) == 1u);
    return array<vec4<f32>, 8>(
        d * levels4(c.x, m), d * levels4(c.x >> 2u, m), d * levels4(c.x >> 4u, m), d * levels4(c.x >> 6u, m),
        d * levels4(c.y, m), d * levels4(c.y >> 2u, m), d * levels4(c.y >> 4u, m), d * levels4(c.y >> 6u, m),
    );
}
