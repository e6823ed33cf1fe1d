//! The product for many rows, in tiles that live in registers and caches (Goto and van de Geijn 2008,
//! *Anatomy of High-Performance Matrix Multiplication*).
//!
//! Activations are transposed once a call into panels of 8 rows, `(panel, k, 8)`, so that a vector holds one
//! column of 8 rows. A thread decodes [`OUTPUTS`] rows of weights for [`DEPTH`] columns, and a tile of 6 outputs ×
//! 16 rows stays in twelve registers while it runs down those columns. Every sum is taken in the same order
//! whatever the number of threads and rows.

use crate::error::Result;
use crate::kernel::Epilogue;
use crate::quant::Matrix;

use super::cores::{Columns, Cores};
use super::product::finish;
use super::simd::{Simd, dispatch};
use super::unit::decode;

/// Outputs that a thread takes at once.
const OUTPUTS: usize = 24;
/// Outputs of a tile.
const TILE: usize = 6;
/// Columns of weights decoded at once, a multiple of the block lengths up to 256.
const DEPTH: usize = 256;

/// y = W·x for rows `x`; `columns` cuts y by outputs.
pub(super) fn product<'y>(
    cores: &mut Cores,
    x: &[&[f32]],
    matrix: &Matrix,
    epilogue: Option<Epilogue>,
    columns: impl FnOnce(usize) -> Columns<'y>,
) -> Result<()> {
    let (k, panels) = (matrix.cols(), x.len().div_ceil(8));
    let Cores { pool, isa, panels: turned, .. } = cores;
    turned.resize((panels * k * 8).max(turned.len()), 0.0);
    let turned = &mut turned[..panels * k * 8];
    pool.each(x.chunks(8).zip(turned.chunks_exact_mut(8 * k)), |(x, panel)| turn(x, panel))?;

    let depth = DEPTH.next_multiple_of(matrix.format().block_len());
    let scratch = || (vec![0.0; OUTPUTS * depth], vec![[0.0; 8]; OUTPUTS * panels]);
    let (isa, turned) = (*isa, turned.as_chunks::<8>().0);
    pool.each_with(columns(OUTPUTS), scratch, |(weights, sums), (first, mut y)| {
        dispatch!(isa, s => piece(s, matrix, first, y[0].len(), turned, weights, sums));
        for (r, y) in y.iter_mut().enumerate() {
            for (j, y) in y.iter_mut().enumerate() {
                *y = finish(epilogue, *y, sums[j * panels + r / 8][r % 8]);
            }
        }
    })
}

/// Transposes up to 8 rows; the rows that are not there are zero.
fn turn(x: &[&[f32]], panel: &mut [f32]) {
    for (column, out) in panel.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *out = std::array::from_fn(|r| x.get(r).map_or(0.0, |x| x[column]));
    }
}

/// `sums[j, panel]` for outputs `first .. first + outputs`.
#[inline(always)]
fn piece<S: Simd>(
    s: S,
    matrix: &Matrix,
    first: usize,
    outputs: usize,
    turned: &[[f32; 8]],
    weights: &mut [f32],
    sums: &mut [[f32; 8]],
) {
    let (k, depth, panels) = (matrix.cols(), weights.len() / OUTPUTS, sums.len() / OUTPUTS);
    let bytes_at = |column: usize| column / matrix.format().block_len() * matrix.format().block_bytes();
    sums.fill([0.0; 8]);
    for from in (0..k).step_by(depth) {
        let len = depth.min(k - from);
        for (j, row) in matrix.rows_in(first..first + outputs).enumerate() {
            let bytes = &row[bytes_at(from)..bytes_at(from + len)];
            decode(s, matrix.format(), bytes, &mut weights[j * depth..][..len]);
        }
        let panel = |panel: usize| &turned[panel * k + from..][..len];
        for pair in (0..panels).step_by(2) {
            for j in (0..outputs).step_by(TILE) {
                let mut w: [&[f32]; TILE] = [&[]; TILE];
                for (i, w) in w.iter_mut().enumerate() {
                    *w = &weights[(j + i) * depth..][..len];
                }
                let sums = &mut sums[j * panels + pair..];
                if pair + 1 < panels {
                    tile(s, w, [panel(pair), panel(pair + 1)], sums, panels);
                } else {
                    tile(s, w, [panel(pair)], sums, panels);
                }
            }
        }
    }
}

/// Adds to `sums[i · stride + p]` the products of `w[i]` with the panels `x[p]`.
#[inline(always)]
fn tile<S: Simd, const P: usize>(
    s: S,
    w: [&[f32]; TILE],
    x: [&[[f32; 8]]; P],
    sums: &mut [[f32; 8]],
    stride: usize,
) {
    let mut tile = [[s.splat(0.0); P]; TILE];
    for column in 0..w[0].len() {
        let mut lanes = [s.splat(0.0); P];
        for p in 0..P {
            lanes[p] = s.load(&x[p][column]);
        }
        for i in 0..TILE {
            let w = s.splat(w[i][column]);
            for p in 0..P {
                tile[i][p] = s.fma(w, lanes[p], tile[i][p]);
            }
        }
    }
    for i in 0..TILE {
        for p in 0..P {
            let sum = &mut sums[i * stride + p];
            s.store(s.add(tile[i][p], s.load(sum)), sum);
        }
    }
}
