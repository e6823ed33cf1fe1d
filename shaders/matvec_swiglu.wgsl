// matvec_swiglu: what the shaders of matvec become where the 4 sums of a thread are 2 gates and their 2 ups: row j of
// the weights is gate j, row n + j is up j.
const OUTPUTS = 2u;
const HALVES = 2u;

// The row of the weights whose product is sum `slot` for the outputs from `first` on.
fn row_of(first: u32, slot: u32) -> u32 {
    return first + select(slot, p.n + slot - 2u, slot >= 2u);
}

fn output(sums: vec4<f32>, i: u32) -> f32 {
    // exp(88) is finite, and beyond it the quotient has long been zero in any tolerance.
    return sums[i] / (1.0 + exp(min(-sums[i], 88.0))) * sums[i + 2u];
}
