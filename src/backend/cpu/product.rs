//! `matvec` and `matmul`: y = W·x for a few rows by dot products, for many in tiles.

use std::ops::Range;

use crate::error::Result;
use crate::kernel::matvec::Params;
use crate::kernel::{Call, Epilogue, Form};
use crate::quant::Matrix;

use super::code_tiles;
use super::codes::{self, Rounded, has_codes, with_codes};
use super::cores::{Columns, Cores};
use super::simd::{Isa, Simd, dispatch};
use super::tiles;
use super::unit::{Unit, decode, prefetch, with_unit};

/// Up to so many rows, decoding each weight for every few rows costs less than transposing the rows.
const FEW_ROWS: usize = 6;
/// A product of fewer weights is not worth waking anybody: some 2 µs.
const SMALL: usize = 1 << 14;

/// y = W·x, or y += W·x; x is `(rows, x_stride)`, y is `(rows, y_stride)` from column `y_offset` on.
pub(super) fn product(
    cores: &mut Cores,
    p: &Params,
    call: Call,
    form: Form,
    x: &[f32],
    matrix: &Matrix,
    y: &mut [f32],
) -> Result<()> {
    let (rows, k, n) = (call.rows as usize, p.k as usize, p.n as usize);
    let x: Vec<&[f32]> = (0..rows).map(|r| &x[r * p.x_stride as usize..][..k]).collect();
    let y_shape = [rows, p.y_stride as usize];
    let rounds = !cores.exact && has_codes(matrix.format());
    if rounds {
        round(cores, &x)?;
    }
    let Cores { pool, isa, rounded, .. } = &mut *cores;
    let (isa, rounded) = (*isa, if rounds { &rounded[..rows] } else { &[] });
    if rows > FEW_ROWS {
        if rounds {
            return code_tiles::product(pool, isa, rounded, matrix, form.epilogue, |step| {
                Columns::of(y, y_shape, p.y_offset as usize, n, step)
            });
        }
        return tiles::product(cores, &x, matrix, form.epilogue, |step| {
            Columns::of(y, y_shape, p.y_offset as usize, n, step)
        });
    }
    let inputs = Inputs { floats: x, rounded };
    let pieces = if n * k < SMALL { 1 } else { 8 * pool.threads() };
    let work = Columns::of(y, y_shape, p.y_offset as usize, n, n.div_ceil(pieces));
    pool.each(work, |(first, mut y)| {
        for (four, y) in y.chunks_mut(4).enumerate() {
            let outputs = Outputs { matrix, first, epilogue: form.epilogue };
            match y.len() {
                1 => few::<1>(isa, outputs, &inputs, 4 * four, y),
                2 => few::<2>(isa, outputs, &inputs, 4 * four, y),
                3 => few::<3>(isa, outputs, &inputs, 4 * four, y),
                _ => few::<4>(isa, outputs, &inputs, 4 * four, y),
            }
        }
    })
}

/// Rows of activations, and rounded where the product is taken in codes.
struct Inputs<'a> {
    floats: Vec<&'a [f32]>,
    rounded: &'a [Rounded],
}

/// Rounds rows of activations.
fn round(cores: &mut Cores, x: &[&[f32]]) -> Result<()> {
    let Cores { pool, isa, rounded, .. } = cores;
    rounded.resize_with(x.len().max(rounded.len()), Rounded::default);
    let isa = *isa;
    pool.each(x.iter().zip(rounded), |(x, rounded)| dispatch!(isa, _s => rounded.set(x)))
}

/// Outputs `first ..` of the matrix.
#[derive(Clone, Copy)]
struct Outputs<'a> {
    matrix: &'a Matrix,
    first: usize,
    epilogue: Option<Epilogue>,
}

/// The outputs of rows `at .. at + R`.
fn few<const R: usize>(isa: Isa, outputs: Outputs<'_>, inputs: &Inputs<'_>, at: usize, y: &mut [&mut [f32]]) {
    let (matrix, format) = (outputs.matrix, outputs.matrix.format());
    if !inputs.rounded.is_empty() {
        let x: [&Rounded; R] = std::array::from_fn(|r| &inputs.rounded[at + r]);
        return dispatch!(isa, s => with_codes!(
            format,
            U => outputs.each(y, #[inline(always)] |row| codes::dot::<_, U, R>(s, row, x)),
            else unreachable!("rounded only where the format has codes")
        ));
    }
    let x: [&[f32]; R] = std::array::from_fn(|r| inputs.floats[at + r]);
    dispatch!(isa, s => with_unit!(
        format,
        U => outputs.each(y, #[inline(always)] |row| dot::<_, U, R>(s, matrix, row, x)),
        else {
            let mut weights = vec![0.0; matrix.cols()];
            outputs.each(y, #[inline(always)] |row| {
                decode(s, format, row, &mut weights);
                let mut dots = [0.0; R];
                dots.iter_mut().zip(x).for_each(#[inline(always)] |(dot, x)| *dot = s.dot(&weights, x));
                dots
            });
        }
    ));
}

impl Outputs<'_> {
    #[inline(always)]
    fn each<const R: usize>(self, y: &mut [&mut [f32]], mut dot: impl FnMut(&[u8]) -> [f32; R]) {
        let range = self.first..self.first + y[0].len();
        for (j, row) in rows(self.matrix, range).enumerate() {
            let dots = dot(row);
            for (y, dot) in y.iter_mut().zip(dots) {
                y[j] = finish(self.epilogue, y[j], dot);
            }
        }
    }
}

/// The bytes of each row of `range`.
#[inline(always)]
pub(super) fn rows(matrix: &Matrix, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
    let row_bytes = matrix.row_bytes();
    matrix.parts().flat_map(move |(rows, bytes)| {
        let inside = |row: usize| row.clamp(rows.start, rows.end) - rows.start;
        bytes[inside(range.start) * row_bytes..inside(range.end) * row_bytes].chunks_exact(row_bytes)
    })
}

/// What becomes of `y` when the product is `dot`.
#[inline(always)]
pub(super) fn finish(epilogue: Option<Epilogue>, y: f32, dot: f32) -> f32 {
    match epilogue {
        Some(Epilogue::Add) => y + dot,
        _ => dot,
    }
}

/// A row of weights times `R` rows of activations; four running sums of eight lanes for each.
#[inline(always)]
fn dot<S: Simd, U: Unit, const R: usize>(s: S, matrix: &Matrix, row: &[u8], x: [&[f32]; R]) -> [f32; R] {
    let (blocks, rest) = row.split_at(row.len() / U::BYTES * U::BYTES);
    let mut units: [&[[[f32; 8]; 4]]; R] = [&[]; R];
    for (units, x) in units.iter_mut().zip(x) {
        *units = x.as_chunks::<8>().0.as_chunks::<4>().0;
    }
    let mut sums = [[s.splat(0.0); 4]; R];
    for (index, block) in blocks.chunks_exact(U::BYTES).enumerate() {
        prefetch(s, block);
        U::decode(
            s,
            block,
            #[inline(always)]
            |unit, w| {
                for (sums, units) in sums.iter_mut().zip(units) {
                    let x = &units[index * (U::LEN / 32) + unit];
                    for i in 0..4 {
                        sums[i] = s.fma(w[i], s.load(&x[i]), sums[i]);
                    }
                }
            },
        );
    }
    let mut dots = [0.0; R];
    for (dot, [a, b, c, d]) in dots.iter_mut().zip(sums) {
        *dot = s.sum(s.add(s.add(a, b), s.add(c, d)));
    }
    if !rest.is_empty() {
        let done = blocks.len() / U::BYTES * U::LEN;
        let mut weights = [0.0; 32];
        let weights = &mut weights[..matrix.cols() - done];
        matrix.format().decode(rest, weights);
        for (dot, x) in dots.iter_mut().zip(x) {
            *dot += s.dot(weights, &x[done..]);
        }
    }
    dots
}
