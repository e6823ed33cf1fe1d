// f16 in GPU order: per unit four vectors of half words, the elements themselves.
fn halves4(a: u32, b: u32) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(a), unpack2x16float(b));
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = codes_at + 4u * unit;
    let c0 = codes[at];
    let c1 = codes[at + 1u];
    let c2 = codes[at + 2u];
    let c3 = codes[at + 3u];
    return array<vec4<f32>, 8>(
        halves4(c0.x, c0.y), halves4(c0.z, c0.w),
        halves4(c1.x, c1.y), halves4(c1.z, c1.w),
        halves4(c2.x, c2.y), halves4(c2.z, c2.w),
        halves4(c3.x, c3.y), halves4(c3.z, c3.w),
    );
}
