// q5_1 in GPU order: per unit one vector of low nibbles; per block two words: fifth bits, f16 d and m;
// w = q * d + m.
fn codes4(low: u32, fifth: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8((low & 0x0f0f0f0fu) | (fifth & 0x10101010u)));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = scales_at + 2u * unit;
    let h = scales[at];
    let dm = unpack2x16float(scales[at + 1u]);
    let c = codes[codes_at + unit];
    let d = dm.x;
    let m = vec4<f32>(dm.y);
    return array<vec4<f32>, 8>(
        codes4(c.x, h << 4u) * d + m, codes4(c.x >> 4u, h << 3u) * d + m,
        codes4(c.y, h << 2u) * d + m, codes4(c.y >> 4u, h << 1u) * d + m,
        codes4(c.z, h) * d + m, codes4(c.z >> 4u, h >> 1u) * d + m,
        codes4(c.w, h >> 2u) * d + m, codes4(c.w >> 4u, h >> 3u) * d + m,
    );
}
