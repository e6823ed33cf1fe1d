// q6_k as whole numbers.
const MIDDLE = 32;

fn codes32(codes_at: u32, scales_at: u32, unit: u32) -> Codes {
    let at = scales_at + unit / 8u * 21u;
    let of_block = unit & 7u;
    let h0 = scales[at + 2u * of_block];
    let h1 = scales[at + 2u * of_block + 1u];
    let pair = scales[at + 16u + of_block / 2u] >> (16u * (of_block & 1u));
    let signed = bitcast<vec2<i32>>(vec2<u32>(pair << 24u, pair << 16u)) >> vec2<u32>(24u);
    let d = unpack2x16float(scales[at + 20u]).x * vec2<f32>(signed);
    let c = codes[codes_at + unit];
    let high0 = vec4<u32>(h0 << 4u, h0 << 2u, h0, h0 >> 2u) & vec4<u32>(0x30303030u);
    let high1 = vec4<u32>(h1 << 4u, h1 << 2u, h1, h1 >> 2u) & vec4<u32>(0x30303030u);
    return Codes(nibbles16(c.xy) | high0, nibbles16(c.zw) | high1, d, vec2<f32>(0.0));
}
