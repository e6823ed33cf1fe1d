// How the pages of a sequence are split: 16 to a split, or more where there would be more than 16 splits, and about as
// many to each.
fn pages_of_split() -> u32 {
    let pages_seen = (p.kv_len + 31u) / 32u;
    let splits = min((pages_seen + 15u) / 16u, 16u);
    return (pages_seen + splits - 1u) / splits;
}

// The splits of `count` keys, or of more pages than a split has where `count` is the length of the submission.
fn splits_of(count: u32) -> u32 {
    let keys_of_split = 32u * pages_of_split();
    return (count + keys_of_split - 1u) / keys_of_split;
}
