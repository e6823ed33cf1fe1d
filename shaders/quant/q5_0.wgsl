// q5_0 in GPU order: per unit one vector of low nibbles; per two blocks three words: fifth bits of the first,
// both f16 d, fifth bits of the second; w = (q - 16) * d.
fn codes4(low: u32, fifth: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8((low & 0x0f0f0f0fu) | (fifth & 0x10101010u)));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let second = unit & 1u;
    let at = scales_at + unit / 2u * 3u;
    let h = scales[at + 2u * second];
    let d = unpack2x16float(scales[at + 1u] >> (16u * second)).x;
    let c = codes[codes_at + unit];
    let e = vec4<f32>(16.0);
    return array<vec4<f32>, 8>(
        (codes4(c.x, h << 4u) - e) * d, (codes4(c.x >> 4u, h << 3u) - e) * d,
        (codes4(c.y, h << 2u) - e) * d, (codes4(c.y >> 4u, h << 1u) - e) * d,
        (codes4(c.z, h) - e) * d, (codes4(c.z >> 4u, h >> 1u) - e) * d,
        (codes4(c.w, h >> 2u) - e) * d, (codes4(c.w >> 4u, h >> 3u) - e) * d,
    );
}
