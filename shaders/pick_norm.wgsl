// pick_norm: what rms_norm becomes where the rows to take are listed.
@group(0) @binding(3) var<storage, read> wanted: array<u32>;

// The row of x for row `row` of y.
fn source(row: u32) -> u32 {
    return wanted[row];
}
