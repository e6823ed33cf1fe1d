// i4 in GPU order: per unit one vector of nibbles, per block one word, an f32 scale; w = (q - 8) * s.
fn weights4(c: u32, s: f32) -> vec4<f32> {
    return (vec4<f32>(unpack4xU8(c & 0x0f0f0f0fu)) - 8.0) * s;
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let s = bitcast<f32>(scales[scales_at + unit]);
    let c = codes[codes_at + unit];
    return array<vec4<f32>, 8>(
        weights4(c.x, s), weights4(c.x >> 4u, s),
        weights4(c.y, s), weights4(c.y >> 4u, s),
        weights4(c.z, s), weights4(c.z >> 4u, s),
        weights4(c.w, s), weights4(c.w >> 4u, s),
    );
}
