// q4_1 as whole numbers.
const MIDDLE = 8;

fn codes32(codes_at: u32, scales_at: u32, unit: u32) -> Codes {
    let dm = unpack2x16float(scales[scales_at + unit]);
    let c = codes[codes_at + unit];
    return Codes(nibbles16(c.xy), nibbles16(c.zw), vec2<f32>(dm.x), vec2<f32>(dm.y + 8.0 * dm.x));
}
