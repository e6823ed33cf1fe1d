// f32 and f64 in GPU order: per unit eight vectors, the elements themselves.
fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let at = codes_at + 8u * unit;
    return array<vec4<f32>, 8>(
        bitcast<vec4<f32>>(codes[at]), bitcast<vec4<f32>>(codes[at + 1u]),
        bitcast<vec4<f32>>(codes[at + 2u]), bitcast<vec4<f32>>(codes[at + 3u]),
        bitcast<vec4<f32>>(codes[at + 4u]), bitcast<vec4<f32>>(codes[at + 5u]),
        bitcast<vec4<f32>>(codes[at + 6u]), bitcast<vec4<f32>>(codes[at + 7u]),
    );
}
