// q1_0 in GPU order: per unit a quarter of a vector of bits, per block of 4 units one f16 d; w = d or -d.
fn bits4(c: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8((c & 0x01010101u) << 1u)) - vec4<f32>(1.0);
}

fn decode32(codes_at: u32, scales_at: u32, unit: u32) -> array<vec4<f32>, 8> {
    let block = unit / 4u;
    let d = unpack2x16float(scales[scales_at + block / 2u] >> (16u * (block & 1u))).x;
    let c = codes[codes_at + block][unit & 3u];
    return array<vec4<f32>, 8>(
        d * bits4(c), d * bits4(c >> 1u), d * bits4(c >> 2u), d * bits4(c >> 3u),
        d * bits4(c >> 4u), d * bits4(c >> 5u), d * bits4(c >> 6u), d * bits4(c >> 7u),
    );
}
