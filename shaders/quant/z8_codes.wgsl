// z8 as whole numbers.
const MIDDLE = 0;

fn codes32(codes_at: u32, scales_at: u32, unit: u32) -> Codes {
    let s = bitcast<f32>(scales[scales_at + 2u * unit]);
    let z = bitcast<f32>(scales[scales_at + 2u * unit + 1u]);
    return Codes(codes[codes_at + 2u * unit], codes[codes_at + 2u * unit + 1u], vec2<f32>(s), vec2<f32>(-z * s));
}
