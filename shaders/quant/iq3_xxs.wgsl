// iq3_xxs in GPU order: per unit one vector of nibbles, a sign above the number of a level; per block of 8 units two words: a
// nibble of scale per unit; f16 d; w = d * (1/2 + scale) / 2 * (+- level).
fn levels4(c: u32) -> vec4<f32> {
    let q = unpack4xU8(c & 0x0f0f0f0fu);
    let number = q & vec4<u32>(7u);
    let level = vec4<f32>(select(8u * number + 4u, vec4<u32>(62u), number == vec4<u32>(7u)));
    return select(level, -level, q > vec4<u32>(7u));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = scales_at + unit / 8u * 2u;
    let scale = f32((scales[at] >> (4u * (unit & 7u))) & 15u);
    let d = unpack2x16float(scales[at + 1u]).x * (0.5 * scale + 0.25);
    let c = codes[codes_at + unit];
    return array<vec4<f32>, 8>(
        d * levels4(c.x), d * levels4(c.x >> 4u), d * levels4(c.y), d * levels4(c.y >> 4u),
        d * levels4(c.z), d * levels4(c.z >> 4u), d * levels4(c.w), d * levels4(c.w >> 4u),
    );
}
