// z8 in GPU order: per unit two vectors of signed bytes, per block two words, f32 scale and zero point; w = (q - z) * s.
fn weights4(c: u32, s: f32, z: f32) -> vec4<f32> {
    return (vec4<f32>(unpack4xI8(c)) - z) * s;
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let s = bitcast<f32>(scales[scales_at + 2u * unit]);
    let z = bitcast<f32>(scales[scales_at + 2u * unit + 1u]);
    let a = codes[codes_at + 2u * unit];
    let b = codes[codes_at + 2u * unit + 1u];
    return array<vec4<f32>, 8>(
        weights4(a.x, s, z), weights4(a.y, s, z), weights4(a.z, s, z), weights4(a.w, s, z),
        weights4(b.x, s, z), weights4(b.y, s, z), weights4(b.z, s, z), weights4(b.w, s, z),
    );
}
