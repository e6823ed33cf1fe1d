// How the pages that a row sees are split: 16 to a split, or more where there would be more than 16 splits, and about as
// many to each.

// Pages that a row sees at most; a window may begin and end inside one.
fn most_pages() -> u32 {
    return min((p.kv_len + 31u) / 32u, (p.window + 31u) / 32u + 1u);
}

fn pages_of_split() -> u32 {
    let splits = min((most_pages() + 15u) / 16u, 16u);
    return (most_pages() + splits - 1u) / splits;
}

fn most_splits() -> u32 {
    return (most_pages() + pages_of_split() - 1u) / pages_of_split();
}

// The splits of a row that is preceded by `count` keys, its own included.
fn splits_of(count: u32) -> u32 {
    let pages = (count + 31u) / 32u - (count - min(count, p.window)) / 32u;
    return (pages + pages_of_split() - 1u) / pages_of_split();
}
