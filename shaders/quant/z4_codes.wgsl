// z4 as whole numbers.
const MIDDLE = 8;

fn codes32(codes_at: u32, scales_at: u32, unit: u32) -> Codes {
    let s = bitcast<f32>(scales[scales_at + 2u * unit]);
    let z = bitcast<f32>(scales[scales_at + 2u * unit + 1u]);
    let c = codes[codes_at + unit];
    return Codes(nibbles16(c.xy), nibbles16(c.zw), vec2<f32>(s), vec2<f32>((8.0 - z) * s));
}
