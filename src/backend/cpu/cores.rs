//! What computes: threads, their instructions, and scratch that is kept between calls.

use crate::error::Result;
use crate::quant::Matrix;

use super::CpuOptions;
use super::ahead::Ahead;
use super::codes::Rounded;
use super::packed::Packed;
use super::pool::Pool;
use super::simd::Isa;

/// Handed to every fast implementation.
#[derive(Debug)]
pub(super) struct Cores {
    pub(super) pool: Pool,
    pub(super) isa: Isa,
    /// Whether activations stay f32.
    pub(super) exact: bool,
    pub(super) ahead: Ahead,
    /// Activations as the product of floats wants them.
    pub(super) panels: Vec<f32>,
    /// Rows of activations, rounded.
    pub(super) rounded: Vec<Rounded>,
}

impl Cores {
    pub(super) fn new(options: CpuOptions, isa: Isa) -> Result<Self> {
        let offered = || std::thread::available_parallelism().map_or(1, usize::from);
        let pool = Pool::new(options.threads.unwrap_or_else(offered))?;
        let (ahead, panels, rounded) = (Ahead::default(), Vec::new(), Vec::new());
        Ok(Self { pool, isa, exact: options.exact, ahead, panels, rounded })
    }

    /// The matrix in the order of products in codes, if there are any.
    ///
    /// # Errors
    /// [`crate::Kind::OutOfMemory`].
    pub(super) fn pack(&mut self, matrix: &Matrix) -> Result<Option<Packed>> {
        if self.exact { Ok(None) } else { Packed::new(&mut self.pool, matrix) }
    }
}

/// Cuts the columns `first ..` of a row-major `(rows, stride)` array into pieces that no two threads share.
pub(super) struct Columns<'a> {
    rows: Vec<&'a mut [f32]>,
    at: usize,
    left: usize,
    step: usize,
}

impl<'a> Columns<'a> {
    /// Pieces of `step` of the `columns` columns from column `first` on, for the first `rows` rows.
    pub(super) fn of(
        y: &'a mut [f32],
        [rows, stride]: [usize; 2],
        first: usize,
        columns: usize,
        step: usize,
    ) -> Self {
        let rows = y.chunks_mut(stride).take(rows).map(|row| &mut row[first..first + columns]).collect();
        Self { rows, at: 0, left: columns, step }
    }
}

impl<'a> Iterator for Columns<'a> {
    /// The first column of the piece, and the piece of each row.
    type Item = (usize, Vec<&'a mut [f32]>);

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step.min(self.left);
        if step == 0 {
            return None;
        }
        let cut = |row: &mut &'a mut [f32]| {
            let (piece, rest) = std::mem::take(row).split_at_mut(step);
            *row = rest;
            piece
        };
        let piece = (self.at, self.rows.iter_mut().map(cut).collect());
        self.at += step;
        self.left -= step;
        Some(piece)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let pieces = self.left.div_ceil(self.step.max(1));
        (pieces, Some(pieces))
    }
}
