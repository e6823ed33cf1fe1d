//! What computes: threads, their instructions, and scratch that is kept between calls.

use crate::error::Result;

use super::CpuOptions;
use super::ahead::Ahead;
use super::codes::Rounded;
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

    /// The same in as many parts of whole pieces, one behind the other; fewer where there are not so many.
    pub(super) fn shared(mut self, parts: usize) -> Vec<Self> {
        let columns = self.left.div_ceil(self.step.max(1)).div_ceil(parts) * self.step;
        let mut shares = Vec::with_capacity(parts);
        while self.left > columns {
            let (at, step) = (self.at, self.step);
            shares.push(Self { rows: self.cut(columns), at, left: columns, step });
        }
        shares.push(self);
        shares
    }

    /// The first `columns`, which go.
    fn cut(&mut self, columns: usize) -> Vec<&'a mut [f32]> {
        self.at += columns;
        self.left -= columns;
        let cut = |row: &mut &'a mut [f32]| {
            let (piece, rest) = std::mem::take(row).split_at_mut(columns);
            *row = rest;
            piece
        };
        self.rows.iter_mut().map(cut).collect()
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
        Some((self.at, self.cut(step)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let pieces = self.left.div_ceil(self.step.max(1));
        (pieces, Some(pieces))
    }
}

impl<'a> DoubleEndedIterator for Columns<'a> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let before = self.left.checked_sub(1)? / self.step * self.step;
        let cut = |row: &mut &'a mut [f32]| {
            let (rest, piece) = std::mem::take(row).split_at_mut(before);
            *row = rest;
            piece
        };
        let piece = self.rows.iter_mut().map(cut).collect();
        self.left = before;
        Some((self.at + before, piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(y: &mut [f32], columns: usize) -> Columns<'_> {
        Columns::of(y, [2, 12], 1, columns, 4)
    }

    fn pieces<'a>(columns: impl Iterator<Item = (usize, Vec<&'a mut [f32]>)>) -> Vec<(usize, usize, f32)> {
        columns.map(|(first, rows)| (first, rows[0].len(), rows[1][0])).collect()
    }

    #[test]
    fn columns_are_cut_from_both_sides_and_shared_in_whole_pieces() {
        let mut y: Vec<f32> = (0..24).map(|i| i as f32).collect();
        assert_eq!(pieces(of(&mut y, 10)), [(0, 4, 13.0), (4, 4, 17.0), (8, 2, 21.0)]);
        assert_eq!(pieces(of(&mut y, 10).rev()), [(8, 2, 21.0), (4, 4, 17.0), (0, 4, 13.0)]);
        assert_eq!(pieces(of(&mut y, 8).rev()), [(4, 4, 17.0), (0, 4, 13.0)]);
        let shares = of(&mut y, 10).shared(2);
        assert_eq!(shares.iter().map(|share| (share.at, share.left)).collect::<Vec<_>>(), [(0, 8), (8, 2)]);
        assert_eq!(pieces(shares.into_iter().flatten()), [(0, 4, 13.0), (4, 4, 17.0), (8, 2, 21.0)]);
        assert_eq!(of(&mut y, 3).shared(5).len(), 1);
        assert!(of(&mut y, 0).next_back().is_none());
    }
}
