// e8p in GPU order: per unit one vector of nibbles, no scales; w = (2q - 15) / 4.
fn weights4(c: u32, half: f32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(c & 0x0f0f0f0fu)) * half - 3.75;
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let half = 0.5;
    let c = codes[codes_at + unit];
    return array<vec4<f32>, 8>(
        weights4(c.x, half), weights4(c.x >> 4u, half),
        weights4(c.y, half), weights4(c.y >> 4u, half),
        weights4(c.z, half), weights4(c.z >> 4u, half),
        weights4(c.w, half), weights4(c.w >> 4u, half),
    );
}
