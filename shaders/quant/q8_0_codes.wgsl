// q8_0 as whole numbers.
const MIDDLE = 0;

fn codes32(codes_at: u32, scales_at: u32, unit: u32) -> Codes {
    let d = unpack2x16float(scales[scales_at + unit / 2u] >> (16u * (unit & 1u))).x;
    return Codes(codes[codes_at + 2u * unit], codes[codes_at + 2u * unit + 1u], vec2<f32>(d), vec2<f32>(0.0));
}
