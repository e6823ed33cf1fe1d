//! A weight matrix in file order.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::base::{Bytes, product};
use crate::error::{Error, Result};

use super::Format;

/// A row-major `(rows, cols)` matrix whose rows are runs of blocks, still in the bytes of the file, or made of them when
/// they are asked for.
///
/// `y = W·x` has one output per row; `cols` is the inner dimension K. Matrices of one format and K can be joined
/// row after row without moving a byte: that is how Q, K and V become one product.
#[derive(Clone, Debug)]
pub struct Matrix {
    name: Arc<str>,
    format: Format,
    rows: usize,
    cols: usize,
    parts: Vec<Part>,
}

/// Rows that stand in a file in a layout of its own, and are rewritten to blocks one at a time: so a foreign layout costs
/// no second copy of the weights. Whatever can be wrong with the bytes has been found out before.
pub trait Rows: fmt::Debug + Send + Sync {
    /// Writes row `row` in file order.
    fn write(&self, row: usize, bytes: &mut [u8]);
    /// As [`Bytes::release`].
    fn release(&self);
}

/// A run of rows from one source.
#[derive(Clone, Debug)]
struct Part {
    first_row: usize,
    rows: usize,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// As the file has them.
    Stored(Bytes),
    /// Made, from this one on.
    Made(Arc<dyn Rows>, usize),
}

impl Matrix {
    /// Checks that `bytes` are exactly `rows` rows of `cols` elements.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] naming the tensor.
    pub fn new(name: &str, format: Format, rows: usize, cols: usize, bytes: Bytes) -> Result<Self> {
        let expected = checked_size(name, format, rows, cols)?;
        if bytes.len() != expected {
            let what = format!("{} bytes where {rows} × {cols} in {format} take {expected}", bytes.len());
            return Err(Error::bad_file(what).at(format!("tensor {name}")));
        }
        Ok(Self::of(name, format, rows, cols, Source::Stored(bytes)))
    }

    /// A matrix whose rows `made` writes.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] naming the tensor, where the shape is empty or not of whole blocks.
    pub fn made(name: &str, format: Format, rows: usize, cols: usize, made: Arc<dyn Rows>) -> Result<Self> {
        checked_size(name, format, rows, cols)?;
        Ok(Self::of(name, format, rows, cols, Source::Made(made, 0)))
    }

    fn of(name: &str, format: Format, rows: usize, cols: usize, source: Source) -> Self {
        Self { name: name.into(), format, rows, cols, parts: vec![Part { first_row: 0, rows, source }] }
    }

    /// The same with all rows in the bytes of a file or in memory.
    pub fn stored(&self) -> Self {
        let row_bytes = self.row_bytes();
        let stored = |part: &Part| match &part.source {
            Source::Stored(_) => part.clone(),
            Source::Made(made, first) => {
                let mut bytes = vec![0; part.rows * row_bytes];
                for (row, bytes) in bytes.chunks_exact_mut(row_bytes).enumerate() {
                    made.write(first + row, bytes);
                }
                made.release();
                Part { source: Source::Stored(bytes.into()), ..part.clone() }
            }
        };
        Self { parts: self.parts.iter().map(stored).collect(), ..self.clone() }
    }

    /// The rows of `first`, then those of `rest`, or `None` where formats or columns differ.
    pub fn join(first: &Self, rest: &[&Self]) -> Option<Self> {
        let mut joined = first.clone();
        for matrix in rest {
            if matrix.format != joined.format || matrix.cols != joined.cols {
                return None;
            }
            let moved = |part: &Part| Part { first_row: joined.rows + part.first_row, ..part.clone() };
            joined.parts.extend(matrix.parts.iter().map(moved));
            joined.rows += matrix.rows;
            joined.name = format!("{}+{}", joined.name, matrix.name).into();
        }
        Some(joined)
    }

    /// The rows `range` as a matrix, without copying.
    ///
    /// # Panics
    /// Where the range is empty or reaches past the last row.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start < range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let row_bytes = self.row_bytes();
        let cut = |part: &Part| {
            let end = part.first_row + part.rows;
            let (start, end) = (part.first_row.max(range.start), end.min(range.end));
            let rows = end.checked_sub(start).filter(|&rows| rows > 0)?;
            let skipped = start - part.first_row;
            let source = match &part.source {
                Source::Stored(bytes) => {
                    Source::Stored(bytes.slice(skipped * row_bytes..(skipped + rows) * row_bytes)?)
                }
                Source::Made(made, first) => Source::Made(made.clone(), first + skipped),
            };
            Some(Part { first_row: start - range.start, rows, source })
        };
        let parts = self.parts.iter().filter_map(cut).collect();
        let name = format!("{}[{}..{}]", self.name, range.start, range.end);
        Self { name: name.into(), format: self.format, rows: range.len(), cols: self.cols, parts }
    }

    /// The tensor's name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The block layout.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs, K.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of one row in file order.
    pub fn row_bytes(&self) -> usize {
        self.cols / self.format.block_len() * self.format.block_bytes()
    }

    /// Bytes of all rows in file order.
    pub fn bytes(&self) -> u64 {
        self.rows as u64 * self.row_bytes() as u64
    }

    /// Bytes of those rows that are made when they are asked for.
    pub fn made_bytes(&self) -> u64 {
        let made = self.parts.iter().filter(|part| matches!(part.source, Source::Made(..)));
        made.map(|part| part.rows as u64 * self.row_bytes() as u64).sum()
    }

    /// Tells the system that the bytes are not needed for a while, as [`Bytes::release`] does.
    pub fn release(&self) {
        for part in &self.parts {
            match &part.source {
                Source::Stored(bytes) => bytes.release(),
                Source::Made(made, _) => made.release(),
            }
        }
    }

    /// The bytes of each row of `range` in file order.
    ///
    /// # Panics
    /// Where the range reaches past the last row.
    #[inline]
    pub fn rows_in(&self, range: Range<usize>) -> impl Iterator<Item = Cow<'_, [u8]>> {
        assert!(range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let row_bytes = self.row_bytes();
        self.parts.iter().flat_map(move |part| {
            let inside = |row: usize| row.clamp(part.first_row, part.first_row + part.rows) - part.first_row;
            (inside(range.start)..inside(range.end)).map(move |row| part.row(row, row_bytes))
        })
    }

    /// The bytes of row `row` in file order.
    ///
    /// # Panics
    /// Where `row` is not below [`Self::rows`].
    pub fn row(&self, row: usize) -> Cow<'_, [u8]> {
        let part = self.parts.iter().rfind(|part| part.first_row <= row).expect("a matrix has a first part");
        part.row(row - part.first_row, self.row_bytes())
    }

    /// Decodes row `row` into `out` of [`Self::cols`] elements.
    ///
    /// # Panics
    /// Where `row` or the length of `out` does not fit.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        self.format.decode(&self.row(row), out);
    }
}

impl Part {
    /// The bytes of the part's row `row`.
    #[inline]
    fn row(&self, row: usize, row_bytes: usize) -> Cow<'_, [u8]> {
        match &self.source {
            Source::Stored(bytes) => Cow::Borrowed(&bytes[row * row_bytes..][..row_bytes]),
            Source::Made(made, first) => {
                let mut bytes = vec![0; row_bytes];
                made.write(first + row, &mut bytes);
                Cow::Owned(bytes)
            }
        }
    }
}

/// Bytes of a matrix in file order.
fn checked_size(name: &str, format: Format, rows: usize, cols: usize) -> Result<usize> {
    let refuse = |what: String| Err(Error::bad_file(what).at(format!("tensor {name}")));
    if rows == 0 || cols == 0 {
        return refuse(format!("a matrix of {rows} rows and {cols} columns is empty"));
    }
    let Some(row_bytes) = format.row_bytes(cols) else {
        return refuse(format!(
            "{cols} columns are not a whole number of {format} blocks of {}",
            format.block_len()
        ));
    };
    product(&[rows as u64, row_bytes as u64])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, first: f32) -> Matrix {
        let values: Vec<f32> = (0..rows * 32).map(|i| first + (i / 32) as f32).collect();
        Matrix::new("m", Format::Q4_0, rows, 32, Format::Q4_0.encode(&values).into()).unwrap()
    }

    fn row_of(matrix: &Matrix, row: usize) -> f32 {
        let mut out = [0.0; 32];
        matrix.decode_row(row, &mut out);
        out[31].round()
    }

    #[test]
    fn joined_and_sliced_rows_keep_their_order() {
        let joined = Matrix::join(&matrix(3, 0.0), &[&matrix(2, 10.0), &matrix(4, 20.0)]).unwrap();
        let rows: Vec<f32> = (0..joined.rows()).map(|row| row_of(&joined, row)).collect();
        assert_eq!(rows, [0.0, 1.0, 2.0, 10.0, 11.0, 20.0, 21.0, 22.0, 23.0]);
        let sliced = joined.slice(2..7);
        let rows: Vec<f32> = (0..sliced.rows()).map(|row| row_of(&sliced, row)).collect();
        assert_eq!(rows, [2.0, 10.0, 11.0, 20.0, 21.0]);
    }

    /// Rows of `matrix` that are copied when they are asked for.
    #[derive(Debug)]
    struct Copied(Matrix);

    impl Rows for Copied {
        fn write(&self, row: usize, bytes: &mut [u8]) {
            bytes.copy_from_slice(&self.0.row(row));
        }

        fn release(&self) {
            self.0.release();
        }
    }

    #[test]
    fn made_rows_are_rows() {
        let made = |matrix| Matrix::made("m", Format::Q4_0, 3, 32, Arc::new(Copied(matrix))).unwrap();
        let joined = Matrix::join(&matrix(2, 10.0), &[&made(matrix(3, 0.0)), &matrix(2, 20.0)]).unwrap();
        for matrix in [joined.clone(), joined.stored()] {
            let sliced = matrix.slice(1..6);
            let rows: Vec<f32> = (0..5).map(|row| row_of(&sliced, row)).collect();
            assert_eq!(rows, [11.0, 0.0, 1.0, 2.0, 20.0]);
            let expected: Vec<_> = (3..6).map(|row| matrix.row(row)).collect();
            assert_eq!(matrix.rows_in(3..6).collect::<Vec<_>>(), expected);
        }
        assert!(Matrix::made("m", Format::Q4_0, 3, 33, Arc::new(Copied(matrix(1, 0.0)))).is_err());
    }

    #[test]
    fn a_wrong_size_is_refused() {
        let bytes = Bytes::from(vec![0; 33]);
        assert!(Matrix::new("m", Format::Q4_0, 1, 32, bytes.clone()).is_err());
        assert!(Matrix::new("m", Format::Q4_0, 1, 33, bytes.clone()).is_err());
        assert!(Matrix::new("m", Format::Q4_0, 0, 32, bytes.clone()).is_err());
        assert!(Matrix::new("m", Format::Q4_0, usize::MAX, 32, bytes).is_err());
    }
}
