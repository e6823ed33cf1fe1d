//! The product for many rows in codes: weights are spread once for all rows, then tiles of six rows by sixteen
//! (or twice sixteen) outputs stay in registers while they run down the columns.
//!
//! A thread takes [`OUTPUTS`] outputs and [`DEPTH`] runs of columns at a time. It transposes their codes so that a
//! vector holds one pair of columns of sixteen outputs; a pair of a row of activations is then broadcast to all of
//! them. Within a run the sums are whole numbers; a row is added up in the same order whatever the number of
//! threads and rows.

use crate::error::Result;
use crate::kernel::Epilogue;
use crate::quant::Matrix;

use super::codes::{Codes, Rounded, with_codes};
use super::cores::Columns;
use super::pool::Pool;
use super::product::{finish, rows};
use super::simd::{Isa, Pairs, Simd, dispatch};

/// Outputs that a thread takes at once: two groups.
const OUTPUTS: usize = 2 * GROUP;
/// Outputs of a vector.
const GROUP: usize = 16;
/// Runs spread at once, a multiple of those of a block: 18 KiB of weights for [`OUTPUTS`].
const DEPTH: usize = 8;

/// A run of 32 columns of sixteen outputs.
#[derive(Clone)]
#[repr(align(64))]
struct Run {
    /// `[pair of columns][output]`
    codes: Pairs,
    /// Of each half of the run, where the halves have scales of their own, else only the first.
    scales: [[f32; GROUP]; 2],
    mins: [f32; GROUP],
}

/// y = W·x for rows `x`; `columns` cuts y by outputs.
pub(super) fn product<'y>(
    pool: &mut Pool,
    isa: Isa,
    x: &[Rounded],
    matrix: &Matrix,
    epilogue: Option<Epilogue>,
    columns: impl FnOnce(usize) -> Columns<'y>,
) -> Result<()> {
    let empty = Run { codes: [[[0; 2]; 16]; 16], scales: [[0.0; GROUP]; 2], mins: [0.0; GROUP] };
    let scratch = || (vec![[[0; 2]; 16]; DEPTH * GROUP], vec![empty.clone(); 2 * DEPTH]);
    pool.each_with(columns(OUTPUTS), scratch, |(codes, runs), (first, mut y)| {
        dispatch!(isa, s => with_codes!(
            matrix.format(),
            U => piece::<_, U>(s, matrix, first, x, codes, runs, epilogue, &mut y),
            else unreachable!("rounded only where the format has codes")
        ));
    })
}

/// Outputs `first ..` of the matrix, as many as `y` has columns.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one call, kept apart to be compiled for each instruction set")]
fn piece<S: Simd, U: Codes>(
    s: S,
    matrix: &Matrix,
    first: usize,
    x: &[Rounded],
    codes: &mut [[[i16; 2]; 16]],
    runs: &mut [Run],
    epilogue: Option<Epilogue>,
    y: &mut [&mut [f32]],
) {
    let (all, outputs) = (matrix.cols() / 32, y[0].len());
    let (low, high) = runs.split_at_mut(DEPTH);
    for from in (0..all).step_by(DEPTH) {
        let len = DEPTH.min(all - from);
        let middle = first + outputs.min(GROUP);
        spread::<S, U>(s, matrix, first..middle, from, codes, &mut low[..len]);
        spread::<S, U>(s, matrix, middle..first + outputs, from, codes, &mut high[..len]);
        let add = if from == 0 { epilogue } else { Some(Epilogue::Add) };
        if outputs <= GROUP {
            strip::<S, U, 1>(s, [&low[..len]], from, x, add, 0, y);
        } else if S::WIDE {
            strip::<S, U, 2>(s, [&low[..len], &high[..len]], from, x, add, 0, y);
        } else {
            strip::<S, U, 1>(s, [&low[..len]], from, x, add, 0, y);
            strip::<S, U, 1>(s, [&high[..len]], from, x, add, GROUP, y);
        }
    }
}

/// Runs `from ..` of up to sixteen outputs; the outputs that are not there are zero.
#[inline(always)]
fn spread<S: Simd, U: Codes>(
    s: S,
    matrix: &Matrix,
    outputs: std::ops::Range<usize>,
    from: usize,
    codes: &mut [[[i16; 2]; 16]],
    runs: &mut [Run],
) {
    let per_block = U::LEN / 32;
    let bytes = from / per_block * U::BYTES..(from + runs.len()) / per_block * U::BYTES;
    for run in &mut *runs {
        (run.scales, run.mins) = ([[0.0; GROUP]; 2], [0.0; GROUP]);
    }
    for (output, row) in rows(matrix, outputs).enumerate() {
        for (index, block) in row[bytes.clone()].chunks_exact(U::BYTES).enumerate() {
            U::codes(
                s,
                block,
                #[inline(always)]
                |run, i, [first, second]| {
                    let run = index * per_block + run;
                    s.store_codes(i, &mut codes[run * GROUP + output]);
                    [runs[run].scales[0][output], runs[run].mins[output]] = s.values(first);
                    runs[run].scales[1][output] = s.values(second)[0];
                },
            );
        }
    }
    for (run, codes) in runs.iter_mut().zip(codes.as_chunks::<GROUP>().0) {
        s.transpose(codes, &mut run.codes);
    }
}

/// Adds runs `from ..` of `G` groups of outputs to the columns `column ..` of all rows.
#[inline(always)]
fn strip<S: Simd, U: Codes, const G: usize>(
    s: S,
    runs: [&[Run]; G],
    from: usize,
    x: &[Rounded],
    epilogue: Option<Epilogue>,
    column: usize,
    y: &mut [&mut [f32]],
) {
    let (sixes, y_sixes) = (x.as_chunks::<6>(), y.as_chunks_mut::<6>());
    for (x, y) in sixes.0.iter().zip(y_sixes.0) {
        tile::<S, U, 6, G>(s, runs, from, x, epilogue, column, y);
    }
    let (twos, y_twos) = (sixes.1.as_chunks::<2>(), y_sixes.1.as_chunks_mut::<2>());
    for (x, y) in twos.0.iter().zip(y_twos.0) {
        tile::<S, U, 2, G>(s, runs, from, x, epilogue, column, y);
    }
    let (ones, y_ones) = (twos.1.as_chunks::<1>(), y_twos.1.as_chunks_mut::<1>());
    for (x, y) in ones.0.iter().zip(y_ones.0) {
        tile::<S, U, 1, G>(s, runs, from, x, epilogue, column, y);
    }
}

#[inline(always)]
fn tile<S: Simd, U: Codes, const R: usize, const G: usize>(
    s: S,
    runs: [&[Run]; G],
    from: usize,
    x: &[Rounded; R],
    epilogue: Option<Epilogue>,
    column: usize,
    y: &mut [&mut [f32]; R],
) {
    let len = runs[0].len();
    let (mut codes, mut blocks) = ([&x[0].codes[..0]; R], [&x[0].blocks[..0]; R]);
    for r in 0..R {
        (codes[r], blocks[r]) = (&x[r].codes[from..from + len], &x[r].blocks[from..from + len]);
    }
    let mut dots = [[s.no_lanes(); G]; R];
    for index in 0..len {
        let (halves, pairs) = if U::HALVES { (2, 8) } else { (1, 16) };
        for half in 0..halves {
            let mut sums = [[s.no_sums(); G]; R];
            for pair in (0..pairs).map(
                #[inline(always)]
                |pair| half * pairs + pair,
            ) {
                let mut w = [s.pairs(&runs[0][index].codes[pair]); G];
                for g in 1..G {
                    w[g] = s.pairs(&runs[g][index].codes[pair]);
                }
                for r in 0..R {
                    let x = s.pair(codes[r][index][pair]);
                    for g in 0..G {
                        sums[r][g] = s.add_dots(sums[r][g], w[g], x);
                    }
                }
            }
            for g in 0..G {
                let scales = s.lanes(&runs[g][index].scales[half]);
                for r in 0..R {
                    dots[r][g] = s.add_scaled(dots[r][g], sums[r][g], scales, blocks[r][index][0]);
                }
            }
        }
        if U::MINS {
            for g in 0..G {
                let mins = s.lanes(&runs[g][index].mins);
                for r in 0..R {
                    dots[r][g] = s.add_times(dots[r][g], mins, blocks[r][index][1]);
                }
            }
        }
    }
    for r in 0..R {
        for g in 0..G {
            let mut sums = [0.0; GROUP];
            s.store_lanes(dots[r][g], &mut sums);
            for (y, dot) in y[r][column + g * GROUP..].iter_mut().zip(sums) {
                *y = finish(epilogue, *y, dot);
            }
        }
    }
}
