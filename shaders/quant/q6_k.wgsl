// q6_k in GPU order: per unit one vector of low nibbles; per block of 8 units 21 words: two words of high 2-bit
// fields per unit; a signed byte of scale per 16 elements (four words); f16 d; w = d * scale * (q - 32).
fn codes4(low: u32, high: u32) -> vec4<f32> {
    let q = unpack4xU8((low & 0x0f0f0f0fu) | (high & 0x30303030u));
    return vec4<f32>(q) - vec4<f32>(32.0);
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = scales_at + unit / 8u * 21u;
    let of_block = unit & 7u;
    let h0 = scales[at + 2u * of_block];
    let h1 = scales[at + 2u * of_block + 1u];
    let pair = scales[at + 16u + of_block / 2u] >> (16u * (of_block & 1u));
    let signed = bitcast<vec2<i32>>(vec2<u32>(pair << 24u, pair << 16u)) >> vec2<u32>(24u);
    let d = unpack2x16float(scales[at + 20u]).x * vec2<f32>(signed);
    let c = codes[codes_at + unit];
    return array<vec4<f32>, 8>(
        d.x * codes4(c.x, h0 << 4u), d.x * codes4(c.x >> 4u, h0 << 2u),
        d.x * codes4(c.y, h0), d.x * codes4(c.y >> 4u, h0 >> 2u),
        d.y * codes4(c.z, h1 << 4u), d.y * codes4(c.z >> 4u, h1 << 2u),
        d.y * codes4(c.w, h1), d.y * codes4(c.w >> 4u, h1 >> 2u),
    );
}
