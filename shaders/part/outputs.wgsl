// The 4 sums of a thread are 4 neighbouring outputs.
const OUTPUTS = 4u;
const HALVES = 1u;

// The row of the weights whose product is sum `slot` for the outputs from `first` on.
fn row_of(first: u32, slot: u32) -> u32 {
    return first + slot;
}

fn output(sums: vec4<f32>, i: u32) -> f32 {
    return sums[i];
}
