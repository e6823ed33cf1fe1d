// i4 in GPU order: per unit one vector of nibbles, per block one word, an f32 scale; w = (q - 8) * s.
fn four(c: u32, s: f32) -> vec4<f32> {
    return (vec4<f32>(unpack4xU8(c & 0x0f0f0f0fu)) - 8.0) * s;
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let s = bitcast<f32>(scales[scales_at + unit]);
    let c = codes[codes_at + unit];
    return array<vec4<f32>, 8>(
        four(c.x, s), four(c.x >> 4u, s),
        four(c.y, s), four(c.y >> 4u, s),
        four(c.z, s), four(c.z >> 4u, s),
        four(c.w, s), four(c.w >> 4u, s),
    );
}
