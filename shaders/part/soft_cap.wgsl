// cap * tanh(v / cap): near v where that is small, and never beyond the cap. By the exponential, because `tanh` may
// overflow; exp(88) is finite.
fn soft_cap(v: vec4<f32>, cap: f32) -> vec4<f32> {
    let twice = clamp(2.0 * v / cap, vec4<f32>(-88.0), vec4<f32>(88.0));
    return cap * (1.0 - 2.0 / (exp(twice) + 1.0));
}
