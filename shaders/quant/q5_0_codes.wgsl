// q5_0 as whole numbers.
const MIDDLE = 16;

fn codes32(codes_at: u32, scales_at: u32, unit: u32) -> Codes {
    let second = unit & 1u;
    let at = scales_at + unit / 2u * 3u;
    let h = scales[at + 2u * second];
    let d = unpack2x16float(scales[at + 1u] >> (16u * second)).x;
    let c = codes[codes_at + unit];
    let fifth0 = vec4<u32>(h << 4u, h << 3u, h << 2u, h << 1u) & vec4<u32>(0x10101010u);
    let fifth1 = vec4<u32>(h, h >> 1u, h >> 2u, h >> 3u) & vec4<u32>(0x10101010u);
    return Codes(nibbles16(c.xy) | fifth0, nibbles16(c.zw) | fifth1, vec2<f32>(d), vec2<f32>(0.0));
}
