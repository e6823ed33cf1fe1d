// q3_k in GPU order: per unit half a vector of low 2-bit codes; per block of 8 units twelve words: a word of high bits per
// unit; a byte per unit, the low 4 bits of its two scales (two words); a nibble per unit, their high 2 bits; f16 d;
// w = d * (scale - 32) * (q - 4).
fn codes4(low: u32, high: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8((low & 0x03030303u) | (high & 0x04040404u))) - vec4<f32>(4.0);
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = scales_at + unit / 8u * 12u;
    let of_block = unit & 7u;
    let h = scales[at + of_block];
    let low = scales[at + 8u + of_block / 4u] >> (8u * (of_block & 3u));
    let high = scales[at + 10u] >> (4u * of_block);
    let packed = vec2<u32>((low & 15u) | ((high & 3u) << 4u), ((low >> 4u) & 15u) | ((high & 12u) << 2u));
    let d = unpack2x16float(scales[at + 11u]).x * (vec2<f32>(packed) - vec2<f32>(32.0));
    let both = codes[codes_at + unit / 2u];
    let c = select(both.xy, both.zw, (unit & 1u) == 1u);
    return array<vec4<f32>, 8>(
        d.x * codes4(c.x, h << 2u), d.x * codes4(c.x >> 2u, h << 1u),
        d.x * codes4(c.x >> 4u, h), d.x * codes4(c.x >> 6u, h >> 1u),
        d.y * codes4(c.y, h >> 2u), d.y * codes4(c.y >> 2u, h >> 3u),
        d.y * codes4(c.y >> 4u, h >> 4u), d.y * codes4(c.y >> 6u, h >> 5u),
    );
}
