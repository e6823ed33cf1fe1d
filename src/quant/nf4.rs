//! `nf4`: 32 elements, `s: f32`, 16 bytes of nibbles as in `i4`; w = T[q]·s with the quantiles of a normal distribution
//! (Dettmers et al. 2023, QLoRA, arXiv 2305.14314, appendix E). What such checkpoints become while loading.

use super::fit::{error_weights, inverse, level_scale};
use super::table;
use super::words::set_nibbles;
use super::{GpuOrder, Layout};

pub(super) struct NF4;

impl Layout for NF4 {
    fn name(&self) -> &'static str {
        "nf4"
    }

    fn gguf_id(&self) -> Option<u32> {
        None
    }

    fn block_len(&self) -> usize {
        32
    }

    fn block_bytes(&self) -> usize {
        20
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        table::decode(&TABLE, bytes, out);
    }

    fn encode(&self, values: &[f32], bytes: &mut [u8]) {
        table::encode(&TABLE, values, bytes);
    }

    fn gpu_order(&self) -> GpuOrder {
        GpuOrder { code_bits: 4, scale_halves: 2 }
    }

    fn repack(&self, row: &[u8], codes: &mut [u32], scales: &mut [u32]) {
        table::repack(row, codes, scales);
    }

    fn wgsl(&self) -> &'static str {
        concat!(include_str!("../../shaders/quant/nf4.wgsl"), include_str!("../../shaders/part/table.wgsl"),)
    }
}

/// The values, in the order of their codes.
pub const TABLE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Encodes `values`, whole runs of `run` elements with one scale each, of which the squared errors are the least;
/// `importance` is as long, or empty. Each block of a run gets its scale.
///
/// # Panics
/// Where lengths do not fit each other, or `run` is no whole number of blocks up to 256 elements.
pub fn encode_runs(values: &[f32], importance: &[f32], run: usize, bytes: &mut [u8]) {
    let run_bytes = run / NF4.block_len() * NF4.block_bytes();
    for (index, (values, bytes)) in
        values.chunks_exact(run).zip(bytes.chunks_exact_mut(run_bytes)).enumerate()
    {
        let importance = importance.get(index * run..(index + 1) * run).unwrap_or_default();
        let weights = error_weights(values, importance);
        let level = |v: f32| TABLE[usize::from(nearest(v))];
        let s = level_scale(values, &weights[..run], [-1.0, 1.0], level);
        let inverse = inverse(s);
        for (values, bytes) in values.chunks_exact(32).zip(bytes.chunks_exact_mut(NF4.block_bytes())) {
            bytes[..4].copy_from_slice(&s.to_le_bytes());
            set_nibbles(values, |v| nearest(v * inverse), &mut bytes[4..]);
        }
    }
}

/// The code of the value nearest to `v`: how many of the middles between two values are below.
fn nearest(v: f32) -> u8 {
    const MIDDLES: [f32; 15] = {
        let mut middles = [0.0; 15];
        let mut code = 0;
        while code < 15 {
            middles[code] = 0.5 * (TABLE[code] + TABLE[code + 1]);
            code += 1;
        }
        middles
    };
    MIDDLES.iter().map(|&middle| u8::from(v > middle)).sum()
}
