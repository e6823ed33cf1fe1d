//! `matvec` and `matmul`: y = W·x for a few rows by dot products, for many in tiles.

use std::hint::black_box;

use crate::error::Result;
use crate::kernel::matvec::Params;
use crate::kernel::{Call, Epilogue, Form};
use crate::quant::{Format, Matrix};

use super::codes::{Codes, Rounded, eight, with_codes};
use super::cores::{Columns, Cores};
use super::packed::{GROUP, Packed};
use super::simd::{Isa, Run, Simd, dispatch};
use super::tiles;
use super::unit::{Bf16, F16, F32, Unit, decode};

/// Up to so many rows, decoding each weight for every few rows costs less than transposing the rows.
const FEW_ROWS: usize = 6;
/// A product of fewer weights is not worth waking anybody: some 2 µs.
const SMALL: usize = 1 << 14;
/// Pieces of a product that a thread takes, where it is large enough.
const PIECES: usize = 8;
/// Bytes of weights that stay in a thread's cache while all rows pass.
const KEPT: usize = 256 << 10;
/// Products of so few rows wait for memory, which gives more to those who stay on their way: each thread has a part of the
/// weights.
const IN_ORDER: usize = 4;
/// Bytes of weights that a thread takes of its part, and of another's when its own is done.
const STRETCH: usize = 64 << 10;

/// y = W·x, or y += W·x; x is `(rows, x_stride)`, y is `(rows, y_stride)` from column `y_offset` on. Where the matrix
/// is packed, the activations are rounded.
#[allow(clippy::too_many_arguments, reason = "the arguments of the kernel, and the matrix in two orders")]
pub(super) fn product(
    cores: &mut Cores,
    p: &Params,
    call: Call,
    form: Form,
    x: &[f32],
    matrix: &Matrix,
    packed: Option<Packed<'_>>,
    y: &mut [f32],
) -> Result<()> {
    let (rows, k, n) = (call.rows as usize, p.k as usize, p.n as usize);
    let x: Vec<&[f32]> = (0..rows).map(|r| &x[r * p.x_stride as usize..][..k]).collect();
    let y_shape = [rows, p.y_stride as usize];
    let y_offset = p.y_offset as usize;
    if let Some(packed) = packed {
        round(cores, &x)?;
        let Cores { pool, isa, rounded, ahead, .. } = cores;
        let begun = ahead.begin(rows, packed.bytes());
        let piece = |(first, mut y): (usize, Vec<&mut [f32]>)| {
            dispatch!(*isa, s => with_codes!(
                matrix.format(),
                U => in_codes::<_, U>(s, packed, begun.distance, first, &rounded[..rows], form.epilogue, &mut y),
                else unreachable!("only what has codes is packed")
            ));
        };
        let step = GROUP * groups_at_once(n, GROUP * packed.row_bytes(), rows, pool.threads());
        let columns = Columns::of(y, y_shape, y_offset, n, step);
        if rows > IN_ORDER {
            pool.each(columns, piece)?;
        } else {
            let threads = if packed.bytes() < SMALL { 1 } else { pool.threads() };
            pool.each_share(columns.shared(threads), piece)?;
        }
        ahead.end(&begun, packed.bytes());
        return Ok(());
    }
    if rows > FEW_ROWS {
        return tiles::product(cores, &x, matrix, form.epilogue, |step| {
            Columns::of(y, y_shape, y_offset, n, step)
        });
    }
    let isa = cores.isa;
    let pieces = if n * k < SMALL { 1 } else { PIECES * cores.pool.threads() };
    let work = Columns::of(y, y_shape, y_offset, n, n.div_ceil(pieces));
    cores.pool.each(work, |(first, mut y)| {
        for (x, y) in x.chunks(4).zip(y.chunks_mut(4)) {
            let outputs = Outputs { matrix, first, epilogue: form.epilogue };
            match y.len() {
                1 => few::<1>(isa, outputs, x, y),
                2 => few::<2>(isa, outputs, x, y),
                3 => few::<3>(isa, outputs, x, y),
                _ => few::<4>(isa, outputs, x, y),
            }
        }
    })
}

/// Groups of `bytes` that a thread takes at once, of a matrix of `n` rows.
fn groups_at_once(n: usize, bytes: usize, rows: usize, threads: usize) -> usize {
    let groups = n.div_ceil(GROUP);
    if rows > IN_ORDER {
        return groups.div_ceil(PIECES * threads).min((KEPT / bytes).max(1));
    }
    groups.div_ceil(threads).min((STRETCH / bytes).max(1))
}

/// Adds the products of run `RUN` of a block, the `at + RUN`-th of each row, and asks for the weights `ahead` of its own.
#[inline(always)]
fn add_run<S: Simd, U: Codes, const R: usize, const RUN: usize>(
    s: S,
    block: &[u8],
    ahead: usize,
    levels: &[i8; 16],
    numbers: &[&[Run]; R],
    at: usize,
    sums: &mut [S::Lanes; R],
) {
    // Sixteen rows leave memory its time, and the registers have no room.
    if R < 16 && ahead > 0 {
        let part = GROUP * U::BYTES * 32 / U::LEN;
        for line in (0..part).step_by(64) {
            s.fetch(block, RUN * part + line + ahead);
        }
    }
    // The runs of a large block stay apart: the compiler would mix their reads, which memory does not foresee, and
    // run out of registers.
    let (block, sums) = if U::LEN > 32 { black_box((block, sums)) } else { (block, sums) };
    let mut weights = U::weights::<S, RUN>(s, block);
    if U::LEVELS {
        weights.codes = eight!(i => s.quads_table(weights.codes[i], levels));
    }
    for r in 0..R {
        let x = &numbers[r][at + RUN];
        if U::HALVES {
            let first = s.dot_quads::<4>(&weights.codes, x, 0, U::CODE);
            let second = s.dot_quads::<4>(&weights.codes[4..], x, 4, U::CODE);
            sums[r] = s.add_scaled(sums[r], first, weights.scales[0], x.scale);
            sums[r] = s.add_scaled(sums[r], second, weights.scales[1], x.scale);
        } else {
            let dots = s.dot_quads::<8>(&weights.codes, x, 0, U::CODE);
            sums[r] = s.add_scaled(sums[r], dots, weights.scales[0], x.scale);
        }
        if U::MINS && U::HALVES {
            for half in 0..2 {
                sums[r] = s.add_times(sums[r], weights.mins[half], x.sums[half] as f32 * x.scale);
            }
        } else if U::MINS {
            sums[r] = s.add_times(sums[r], weights.mins[0], x.total);
        }
    }
}

/// Rounds rows of activations.
fn round(cores: &mut Cores, x: &[&[f32]]) -> Result<()> {
    let Cores { pool, isa, rounded, .. } = cores;
    rounded.resize_with(x.len().max(rounded.len()), Rounded::default);
    let isa = *isa;
    pool.each(x.iter().zip(rounded), |(x, rounded)| dispatch!(isa, _s => rounded.set(x)))
}

/// Outputs `first ..` of a packed matrix, as many as `y` has columns; `first` begins a group. A function of its own for each
/// format and instruction set: all of them in one would take the compiler minutes.
#[inline(never)]
fn in_codes<S: Simd, U: Codes>(
    s: S,
    packed: Packed<'_>,
    ahead: usize,
    first: usize,
    x: &[Rounded],
    epilogue: Option<Epilogue>,
    y: &mut [&mut [f32]],
) {
    s.vectorize(
        #[inline(always)]
        || in_tiles::<S, U>(s, packed, ahead, first, x, epilogue, y),
    );
}

#[inline(always)]
fn in_tiles<S: Simd, U: Codes>(
    s: S,
    packed: Packed<'_>,
    ahead: usize,
    first: usize,
    x: &[Rounded],
    epilogue: Option<Epilogue>,
    y: &mut [&mut [f32]],
) {
    let (mut x, mut y) = (x, y);
    while !x.is_empty() {
        // Each size is compiled for each format and instruction set, so what is rare has fewer.
        let rows = match x.len() {
            16.. if S::WIDE && U::COMMON => tiles_of::<S, U, 16>(s, packed, ahead, first, x, epilogue, y),
            4.. => tiles_of::<S, U, 4>(s, packed, ahead, first, x, epilogue, y),
            2.. if U::COMMON => tiles_of::<S, U, 2>(s, packed, ahead, first, x, epilogue, y),
            _ => tiles_of::<S, U, 1>(s, packed, ahead, first, x, epilogue, y),
        };
        (x, y) = (&x[rows..], &mut y[rows..]);
    }
}

/// The first `R` rows of `x` with each group; returns `R`.
#[inline(always)]
fn tiles_of<S: Simd, U: Codes, const R: usize>(
    s: S,
    packed: Packed<'_>,
    ahead: usize,
    first: usize,
    x: &[Rounded],
    epilogue: Option<Epilogue>,
    y: &mut [&mut [f32]],
) -> usize {
    let x: [&Rounded; R] = std::array::from_fn(
        #[inline(always)]
        |r| &x[r],
    );
    let columns = (0..y[0].len()).step_by(GROUP);
    for (column, group) in columns.zip(packed.groups(first / GROUP)) {
        let dots = tile::<S, U, R>(s, group, ahead, packed.levels(), x);
        for (y, dots) in y.iter_mut().zip(dots) {
            for (y, dot) in y[column..].iter_mut().zip(dots) {
                *y = finish(epilogue, *y, dot);
            }
        }
    }
    R
}

/// Sixteen rows of weights times `R` rows of activations. A sum is taken in the same order whatever `R` is.
#[inline(always)]
fn tile<S: Simd, U: Codes, const R: usize>(
    s: S,
    group: &[u8],
    ahead: usize,
    levels: &[i8; 16],
    x: [&Rounded; R],
) -> [[f32; GROUP]; R] {
    let runs = group.len() / (GROUP * U::BYTES) * (U::LEN / 32);
    let mut numbers = [&x[0].runs[..0]; R];
    for r in 0..R {
        numbers[r] = &x[r].runs[..runs];
    }
    let mut sums = [s.no_lanes(); R];
    for (index, block) in group.chunks_exact(GROUP * U::BYTES).enumerate() {
        let at = index * (U::LEN / 32);
        add_run::<S, U, R, 0>(s, block, ahead, levels, &numbers, at, &mut sums);
        if U::LEN == 256 {
            add_run::<S, U, R, 1>(s, block, ahead, levels, &numbers, at, &mut sums);
            add_run::<S, U, R, 2>(s, block, ahead, levels, &numbers, at, &mut sums);
            add_run::<S, U, R, 3>(s, block, ahead, levels, &numbers, at, &mut sums);
            add_run::<S, U, R, 4>(s, block, ahead, levels, &numbers, at, &mut sums);
            add_run::<S, U, R, 5>(s, block, ahead, levels, &numbers, at, &mut sums);
            add_run::<S, U, R, 6>(s, block, ahead, levels, &numbers, at, &mut sums);
            add_run::<S, U, R, 7>(s, block, ahead, levels, &numbers, at, &mut sums);
        }
    }
    let mut dots = [[0.0; GROUP]; R];
    for r in 0..R {
        s.store_lanes(sums[r], &mut dots[r]);
    }
    dots
}

/// Outputs `first ..` of the matrix.
#[derive(Clone, Copy)]
struct Outputs<'a> {
    matrix: &'a Matrix,
    first: usize,
    epilogue: Option<Epilogue>,
}

/// The outputs of `R` rows. Floats are multiplied as they are read; what else comes here, as in exact mode, is decoded first.
fn few<const R: usize>(isa: Isa, outputs: Outputs<'_>, x: &[&[f32]], y: &mut [&mut [f32]]) {
    let (matrix, format) = (outputs.matrix, outputs.matrix.format());
    let x: [&[f32]; R] = std::array::from_fn(|r| x[r]);
    dispatch!(isa, s => match format {
        Format::F32 => outputs.each(y, #[inline(always)] |row| dot::<_, F32, R>(s, matrix, row, x)),
        Format::F16 => outputs.each(y, #[inline(always)] |row| dot::<_, F16, R>(s, matrix, row, x)),
        Format::BF16 => outputs.each(y, #[inline(always)] |row| dot::<_, Bf16, R>(s, matrix, row, x)),
        _ => {
            let mut weights = vec![0.0; matrix.cols()];
            outputs.each(y, #[inline(always)] |row| {
                decode(s, format, row, &mut weights);
                let mut dots = [0.0; R];
                dots.iter_mut().zip(x).for_each(#[inline(always)] |(dot, x)| *dot = s.dot(&weights, x));
                dots
            });
        }
    });
}

impl Outputs<'_> {
    #[inline(always)]
    fn each<const R: usize>(self, y: &mut [&mut [f32]], mut dot: impl FnMut(&[u8]) -> [f32; R]) {
        let range = self.first..self.first + y[0].len();
        for (j, row) in self.matrix.rows_in(range).enumerate() {
            let dots = dot(&row);
            for (y, dot) in y.iter_mut().zip(dots) {
                y[j] = finish(self.epilogue, y[j], dot);
            }
        }
    }
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
