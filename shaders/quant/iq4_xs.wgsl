// iq4_xs in GPU order: per unit (a group of 32) one vector of nibbles; per block of 8 units two words: f16 d below the
// high 2 bits of each unit's scale; their low nibbles; w = d * (scale - 32) * level, the levels as in iq4_nl.
fn levels4(c: u32) -> vec4<f32> {
    let i = unpack4xU8(c & 0x0f0f0f0fu);
    let second = (i & vec4<u32>(4u)) != vec4<u32>(0u);
    let low = select(vec4<u32>(0xbfad9881u), vec4<u32>(0xf6eaddcfu), second);
    let high = select(vec4<u32>(0x26190d01u), vec4<u32>(0x71594535u), second);
    let four = select(low, high, i > vec4<u32>(7u));
    return vec4<f32>(bitcast<vec4<i32>>(four << (vec4<u32>(24u) - 8u * (i & vec4<u32>(3u)))) >> vec4<u32>(24u));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = scales_at + unit / 8u * 2u;
    let group = unit & 7u;
    let head = scales[at];
    let scale = ((scales[at + 1u] >> (4u * group)) & 15u) | (((head >> (16u + 2u * group)) & 3u) << 4u);
    let d = unpack2x16float(head).x * (f32(scale) - 32.0);
    let c = codes[codes_at + unit];
    return array<vec4<f32>, 8>(
        d * levels4(c.x), d * levels4(c.x >> 4u), d * levels4(c.y), d * levels4(c.y >> 4u),
        d * levels4(c.z), d * levels4(c.z >> 4u), d * levels4(c.w), d * levels4(c.w >> 4u),
    );
}
