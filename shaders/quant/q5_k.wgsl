// q5_k in GPU order: per unit (a group of 32) one vector of low nibbles; per block of 8 units twelve words: four of scales
// and minimums as in q4_k; a word of fifth bits per unit; w = d * scale * q - dmin * min.
fn codes4(low: u32, fifth: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8((low & 0x0f0f0f0fu) | (fifth & 0x10101010u)));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = scales_at + unit / 8u * 12u;
    let group = unit & 7u;
    let low = scales[at + 1u + group / 4u] >> (8u * (group & 3u));
    let high = scales[at + 3u] >> (4u * group);
    let packed = vec2<u32>((low & 15u) | ((high & 3u) << 4u), ((low >> 4u) & 15u) | ((high & 12u) << 2u));
    let dm = unpack2x16float(scales[at]) * vec2<f32>(packed);
    let h = scales[at + 4u + group];
    let c = codes[codes_at + unit];
    let d = dm.x;
    let m = vec4<f32>(dm.y);
    return array<vec4<f32>, 8>(
        d * codes4(c.x, h << 4u) - m, d * codes4(c.x >> 4u, h << 3u) - m,
        d * codes4(c.y, h << 2u) - m, d * codes4(c.y >> 4u, h << 1u) - m,
        d * codes4(c.z, h) - m, d * codes4(c.z >> 4u, h >> 1u) - m,
        d * codes4(c.w, h >> 2u) - m, d * codes4(c.w >> 4u, h >> 3u) - m,
    );
}
