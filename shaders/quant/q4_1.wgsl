// q4_1 in GPU order: per unit one vector of nibbles, per block one word of f16 d and m; w = q * d + m.
fn nibbles4(c: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(c & 0x0f0f0f0fu));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let dm = unpack2x16float(scales[scales_at + unit]);
    let c = codes[codes_at + unit];
    let d = dm.x;
    let m = vec4<f32>(dm.y);
    return array<vec4<f32>, 8>(
        nibbles4(c.x) * d + m, nibbles4(c.x >> 4u) * d + m,
        nibbles4(c.y) * d + m, nibbles4(c.y >> 4u) * d + m,
        nibbles4(c.z) * d + m, nibbles4(c.z >> 4u) * d + m,
        nibbles4(c.w) * d + m, nibbles4(c.w >> 4u) * d + m,
    );
}
