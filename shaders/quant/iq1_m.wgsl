// iq1_m in GPU order: per unit half a vector of 2-bit codes, a level plus 1; per block of 8 units four words: a bit per 8
// elements, whether they move down; a nibble of scale per 16 (two words); f16 d; w = d * (1 + 2 * scale) * (level +- 1/8).
fn levels4(c: u32, moved: f32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(c & 0x03030303u)) + vec4<f32>(moved);
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = scales_at + unit / 8u * 4u;
    let of_block = unit & 7u;
    let down = vec4<u32>(scales[at] >> (4u * of_block)) & vec4<u32>(1u, 2u, 4u, 8u);
    let m = select(vec4<f32>(-0.875), vec4<f32>(-1.125), down != vec4<u32>(0u));
    let pair = scales[at + 1u + of_block / 4u] >> (8u * (of_block & 3u));
    let d = unpack2x16float(scales[at + 3u]).x * vec2<f32>(2u * vec2<u32>(pair & 7u, (pair >> 4u) & 7u) + 1u);
    let both = codes[codes_at + unit / 2u];
    let c = select(both.xy, both.zw, (unit & 1u) == 1u);
    return array<vec4<f32>, 8>(
        d.x * levels4(c.x, m.x), d.x * levels4(c.x >> 2u, m.x),
        d.x * levels4(c.x >> 4u, m.y), d.x * levels4(c.x >> 6u, m.y),
        d.y * levels4(c.y, m.z), d.y * levels4(c.y >> 2u, m.z),
        d.y * levels4(c.y >> 4u, m.w), d.y * levels4(c.y >> 6u, m.w),
    );
}
