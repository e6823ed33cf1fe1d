
// The words where the codes of a vector begin, and its scales: a run is the codes of 32 vectors, then their scales, two
// in a word.
fn place_of(vector: u32) -> vec2<u32> {
    let blocks = (p.head_dim + 31u) / 32u;
    let codes = CODE_WORDS * blocks;
    let scales = (blocks + 1u) / 2u;
    let slot = vector % 32u;
    let run = (vector - slot) * (codes + scales);
    return vec2<u32>(run + slot * codes, run + 32u * codes + slot * scales);
}
