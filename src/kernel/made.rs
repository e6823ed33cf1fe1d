//! Made-up data for cases: the same at every run, with the outliers that activations of real models have, and with
//! not-a-number wherever a kernel has no business reading.

use super::Data;
use crate::base::Seed;
use crate::quant::{Format, Matrix};

/// Rows of `width` numbers, one in 29 of them thirty times as large, and NaN up to `stride`.
pub(super) fn activations(seed: &mut Seed, rows: usize, width: usize, stride: usize) -> Vec<f32> {
    let mut values = vec![f32::NAN; rows * stride];
    for row in values.chunks_exact_mut(stride) {
        row[..width].fill_with(|| seed.signed() * if seed.below(29) == 0 { 30.0 } else { 1.0 });
    }
    values
}

/// Blocks that a matrix of [`matrix`] is drawn from: encoding is slow.
const POOL: usize = 64;

/// A matrix with an outlier here and there.
pub(super) fn matrix(seed: &mut Seed, format: Format, rows: usize, cols: usize) -> Matrix {
    let (len, blocks) = (format.block_len(), rows * cols / format.block_len());
    let encoded = if len == 1 { blocks } else { blocks.min(POOL) };
    let values = activations(seed, encoded, len, len).iter().map(|v| v / 8.0).collect::<Vec<_>>();
    let mut bytes = format.encode(&values);
    for _ in encoded..blocks {
        let from = seed.below(encoded as u64) as usize * format.block_bytes();
        bytes.extend_from_within(from..from + format.block_bytes());
    }
    Matrix::new("w", format, rows, cols, bytes.into()).expect("rows and columns are those that were encoded")
}

/// The largest Euclidean norm of the rows of `stride` numbers, of which `width` count.
pub(super) fn largest_norm(values: &[f32], width: usize, stride: usize) -> f32 {
    let norm = |row: &[f32]| row[..width].iter().map(|v| v * v).sum::<f32>().sqrt();
    values.chunks_exact(stride).map(norm).fold(0.0, f32::max)
}

/// The largest magnitude, NaN aside.
pub(super) fn magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, v| f32::max(largest, v.abs()))
}

/// The state `rows` for rows of `[token, position, sequence]`.
pub(super) fn rows(rows: &[[u32; 3]]) -> Data {
    Data::U32(rows.iter().flat_map(|&[token, position, sequence]| [token, position, sequence, 0]).collect())
}

/// A table of pages, all different and in no order.
pub(super) fn pages(seed: &mut Seed, sequences: u32, pages_per_sequence: u32) -> Vec<u32> {
    let mut pages: Vec<u32> = (0..sequences * pages_per_sequence).collect();
    for i in (1..pages.len()).rev() {
        pages.swap(i, seed.below(i as u64 + 1) as usize);
    }
    pages
}

/// Numbers with few bits, which [`plain_turns`] leave nothing to round of: a rounding in f32, which devices make in more
/// ways than one, may tip one of what is stored.
pub(super) fn few_bits(seed: &mut Seed, len: usize) -> Vec<f32> {
    (0..len).map(|_| (seed.signed() * 64.0).round() / 8.0).collect()
}

/// Cosines and sines, after a fashion.
pub(super) fn plain_turns(count: u32) -> Vec<f32> {
    let turn = |at: u32| [[1.0, 0.0], [0.5, -0.75], [0.0, 1.0], [-0.25, 0.5]][at as usize % 4];
    (0..count).flat_map(|at| turn(at + at / 7)).collect()
}
