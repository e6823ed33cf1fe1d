// Scores by keys of four elements at a time, for heads of a multiple of 4.
const PAIRS_OF_KEY = 2u;

fn key_part(vector: u32, part: u32) -> vec4<f32> {
    return key_four(vector, part);
}
