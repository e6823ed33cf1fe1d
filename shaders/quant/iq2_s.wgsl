// iq2_xxs, iq2_xs and iq2_s in GPU order: per unit half a vector of 2-bit numbers of levels; per block of 8 units eleven
// words: a word of signs per unit; a nibble of scale per 16 elements (two words); f16 d; w = d * (1/2 + scale) / 4 * (+- level).
fn levels4(c: u32, signs: u32) -> vec4<f32> {
    let q = unpack4xU8(c & 0x03030303u);
    let level = vec4<f32>(8u + 17u * q + (q >> vec4<u32>(1u)));
    return select(level, -level, (unpack4xU8(signs) & vec4<u32>(1u)) == vec4<u32>(1u));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = scales_at + unit / 8u * 11u;
    let of_block = unit & 7u;
    let s = scales[at + of_block];
    let pair = scales[at + 8u + of_block / 4u] >> (8u * (of_block & 3u));
    let scale = vec2<f32>(vec2<u32>(pair & 15u, (pair >> 4u) & 15u));
    let d = unpack2x16float(scales[at + 10u]).x * (0.25 * scale + vec2<f32>(0.125));
    let both = codes[codes_at + unit / 2u];
    let c = select(both.xy, both.zw, (unit & 1u) == 1u);
    return array<vec4<f32>, 8>(
        d.x * levels4(c.x, s), d.x * levels4(c.x >> 2u, s >> 1u),
        d.x * levels4(c.x >> 4u, s >> 2u), d.x * levels4(c.x >> 6u, s >> 3u),
        d.y * levels4(c.y, s >> 4u), d.y * levels4(c.y >> 2u, s >> 5u),
        d.y * levels4(c.y >> 4u, s >> 6u), d.y * levels4(c.y >> 6u, s >> 7u),
    );
}
