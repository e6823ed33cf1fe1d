// q4_0 in GPU order: per unit one vector of nibbles, per block one f16 scale; w = (q - 8) * d.
fn nibbles4(c: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(c & 0x0f0f0f0fu));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let d = unpack2x16float(scales[scales_at + unit / 2u] >> (16u * (unit & 1u))).x;
    let c = codes[codes_at + unit];
    let e = vec4<f32>(8.0);
    return array<vec4<f32>, 8>(
        (nibbles4(c.x) - e) * d, (nibbles4(c.x >> 4u) - e) * d,
        (nibbles4(c.y) - e) * d, (nibbles4(c.y >> 4u) - e) * d,
        (nibbles4(c.z) - e) * d, (nibbles4(c.z >> 4u) - e) * d,
        (nibbles4(c.w) - e) * d, (nibbles4(c.w >> 4u) - e) * d,
    );
}
