// q4_k in GPU order: per unit (a group of 32) one vector of nibbles; per block of 8 units four words: f16 d and
// dmin; a byte per group, low 4 bits of scale and minimum (two words); a nibble per group, their high 2 bits;
// w = d * scale * q - dmin * min.
fn nibbles4(c: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(c & 0x0f0f0f0fu));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = scales_at + unit / 8u * 4u;
    let group = unit & 7u;
    let low = scales[at + 1u + group / 4u] >> (8u * (group & 3u));
    let high = scales[at + 3u] >> (4u * group);
    let packed = vec2<u32>((low & 15u) | ((high & 3u) << 4u), ((low >> 4u) & 15u) | ((high & 12u) << 2u));
    let dm = unpack2x16float(scales[at]) * vec2<f32>(packed);
    let c = codes[codes_at + unit];
    let d = dm.x;
    let m = vec4<f32>(dm.y);
    return array<vec4<f32>, 8>(
        d * nibbles4(c.x) - m, d * nibbles4(c.x >> 4u) - m,
        d * nibbles4(c.y) - m, d * nibbles4(c.y >> 4u) - m,
        d * nibbles4(c.z) - m, d * nibbles4(c.z >> 4u) - m,
        d * nibbles4(c.w) - m, d * nibbles4(c.w >> 4u) - m,
    );
}
