// z2 in GPU order: per unit half a vector of 2-bit codes, per block two words, f32 scale and zero point; w = (q - z) * s.
fn weights4(c: u32, s: f32, z: f32) -> vec4<f32> {
    return (vec4<f32>(unpack4xU8(c & 0x03030303u)) - z) * s;
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let s = bitcast<f32>(scales[scales_at + 2u * unit]);
    let z = bitcast<f32>(scales[scales_at + 2u * unit + 1u]);
    let both = codes[codes_at + unit / 2u];
    let c = select(both.xy, both.zw, (unit & 1u) == 1u);
    return array<vec4<f32>, 8>(
        weights4(c.x, s, z), weights4(c.x >> 2u, s, z), weights4(c.x >> 4u, s, z), weights4(c.x >> 6u, s, z),
        weights4(c.y, s, z), weights4(c.y >> 2u, s, z), weights4(c.y >> 4u, s, z), weights4(c.y >> 6u, s, z),
    );
}
