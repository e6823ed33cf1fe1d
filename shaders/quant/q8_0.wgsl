// q8_0 in GPU order: per unit two vectors of signed bytes, per block one f16 scale; w = q * d.
fn bytes4(c: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(c));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let d = unpack2x16float(scales[scales_at + unit / 2u] >> (16u * (unit & 1u))).x;
    let a = codes[codes_at + 2u * unit];
    let b = codes[codes_at + 2u * unit + 1u];
    return array<vec4<f32>, 8>(
        bytes4(a.x) * d, bytes4(a.y) * d, bytes4(a.z) * d, bytes4(a.w) * d,
        bytes4(b.x) * d, bytes4(b.y) * d, bytes4(b.z) * d, bytes4(b.w) * d,
    );
}
