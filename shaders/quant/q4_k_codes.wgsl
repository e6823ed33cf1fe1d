// q4_k as whole numbers.
const MIDDLE = 8;

fn codes32(codes_at: u32, scales_at: u32, unit: u32) -> Codes {
    let at = scales_at + unit / 8u * 4u;
    let group = unit & 7u;
    let low = scales[at + 1u + group / 4u] >> (8u * (group & 3u));
    let high = scales[at + 3u] >> (4u * group);
    let packed = vec2<u32>((low & 15u) | ((high & 3u) << 4u), ((low >> 4u) & 15u) | ((high & 12u) << 2u));
    let dm = unpack2x16float(scales[at]) * vec2<f32>(packed);
    let c = codes[codes_at + unit];
    return Codes(nibbles16(c.xy), nibbles16(c.zw), vec2<f32>(dm.x), vec2<f32>(8.0 * dm.x - dm.y));
}
