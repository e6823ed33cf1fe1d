// f32 bits as u32 that compare as the numbers do, with both zeros equal: no float comparison is asked of a
// compiler that may flush subnormals or assume that no NaN exists.
const LARGEST_FINITE = 0xff7fffffu;
const SMALLEST_FINITE = 0x00800000u;

fn order_of(bits: u32) -> u32 {
    if ((bits & 0x7fffffffu) == 0u) {
        return 0x80000000u;
    }
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

fn is_nan(bits: u32) -> bool {
    return (bits & 0x7fffffffu) > 0x7f800000u;
}
