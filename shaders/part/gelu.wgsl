// a/2 * (1 + tanh(√(2/π) * (a + 0.044715 a³))), which is a / (1 + exp(-2 * …)). exp(88) is finite, and beyond it the
// quotient has long been zero in any tolerance.
fn gelu(a: f32) -> f32 {
    let twice = 1.5957691 * (a + 0.044715 * a * a * a);
    return a / (1.0 + exp(min(-twice, 88.0)));
}
