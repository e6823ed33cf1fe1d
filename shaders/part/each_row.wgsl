// The row of x for row `row` of y.
fn source(row: u32) -> u32 {
    return row;
}
