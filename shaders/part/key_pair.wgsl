// Scores by keys of two elements at a time, for any head.
const PAIRS_OF_KEY = 1u;

fn key_part(vector: u32, part: u32) -> vec4<f32> {
    return vec4<f32>(key_pair(vector, part), 0.0, 0.0);
}
