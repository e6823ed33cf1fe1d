// i8 in GPU order: per unit two vectors of signed bytes, per block one word, an f32 scale; w = q * s.
fn weights4(c: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(c));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let s = bitcast<f32>(scales[scales_at + unit]);
    let a = codes[codes_at + 2u * unit];
    let b = codes[codes_at + 2u * unit + 1u];
    return array<vec4<f32>, 8>(
        weights4(a.x) * s, weights4(a.y) * s, weights4(a.z) * s, weights4(a.w) * s,
        weights4(b.x) * s, weights4(b.y) * s, weights4(b.z) * s, weights4(b.w) * s,
    );
}
