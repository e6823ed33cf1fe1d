// q5_1 as whole numbers.
const MIDDLE = 16;

fn codes32(codes_at: u32, scales_at: u32, unit: u32) -> Codes {
    let at = scales_at + 2u * unit;
    let h = scales[at];
    let dm = unpack2x16float(scales[at + 1u]);
    let c = codes[codes_at + unit];
    let fifth0 = vec4<u32>(h << 4u, h << 3u, h << 2u, h << 1u) & vec4<u32>(0x10101010u);
    let fifth1 = vec4<u32>(h, h >> 1u, h >> 2u, h >> 3u) & vec4<u32>(0x10101010u);
    let mins = vec2<f32>(dm.y + 16.0 * dm.x);
    return Codes(nibbles16(c.xy) | fifth0, nibbles16(c.zw) | fifth1, vec2<f32>(dm.x), mins);
}
