// q4_0 as whole numbers.
const MIDDLE = 8;

fn codes32(codes_at: u32, scales_at: u32, unit: u32) -> Codes {
    let d = unpack2x16float(scales[scales_at + unit / 2u] >> (16u * (unit & 1u))).x;
    let c = codes[codes_at + unit];
    return Codes(nibbles16(c.xy), nibbles16(c.zw), vec2<f32>(d), vec2<f32>(0.0));
}
