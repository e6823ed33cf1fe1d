//! A weight matrix in file order.

use std::ops::Range;
use std::sync::Arc;

use crate::base::{Bytes, product};
use crate::error::{Error, Result};

use super::Format;

/// A row-major `(rows, cols)` matrix whose rows are runs of blocks, still in the bytes of the file.
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

/// A run of rows that stand together in the file.
#[derive(Clone, Debug)]
struct Part {
    first_row: usize,
    bytes: Bytes,
}

impl Matrix {
    /// Checks that `bytes` are exactly `rows` rows of `cols` elements.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] naming the tensor.
    pub fn new(name: &str, format: Format, rows: usize, cols: usize, bytes: Bytes) -> Result<Self> {
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
        let expected = product(&[rows as u64, row_bytes as u64])?;
        if bytes.len() != expected {
            return refuse(format!(
                "{} bytes where {rows} × {cols} in {format} take {expected}",
                bytes.len()
            ));
        }
        Ok(Self { name: name.into(), format, rows, cols, parts: vec![Part { first_row: 0, bytes }] })
    }

    /// The rows of `first`, then those of `rest`, or `None` where formats or columns differ.
    pub fn join(first: &Self, rest: &[&Self]) -> Option<Self> {
        let mut joined = first.clone();
        for matrix in rest {
            if matrix.format != joined.format || matrix.cols != joined.cols {
                return None;
            }
            let moved =
                |part: &Part| Part { first_row: joined.rows + part.first_row, bytes: part.bytes.clone() };
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
        let cut = |(rows, bytes): (Range<usize>, &Bytes)| {
            let (start, end) = (rows.start.max(range.start), rows.end.min(range.end));
            let cut = (start < end)
                .then(|| bytes.slice((start - rows.start) * row_bytes..(end - rows.start) * row_bytes))??;
            Some(Part { first_row: start - range.start, bytes: cut })
        };
        let parts = self.parts().filter_map(cut).collect();
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

    /// Runs of rows that stand together in the file: which rows, and their bytes.
    pub fn parts(&self) -> impl Iterator<Item = (Range<usize>, &Bytes)> {
        let row_bytes = self.row_bytes();
        self.parts
            .iter()
            .map(move |part| (part.first_row..part.first_row + part.bytes.len() / row_bytes, &part.bytes))
    }

    /// Tells the system that the bytes are not needed for a while, as [`Bytes::release`] does.
    pub fn release(&self) {
        self.parts.iter().for_each(|part| part.bytes.release());
    }

    /// The bytes of row `row` in file order.
    ///
    /// # Panics
    /// Where `row` is not below [`Self::rows`].
    pub fn row(&self, row: usize) -> &[u8] {
        let part = self.parts.iter().rfind(|part| part.first_row <= row).expect("a matrix has a first part");
        let row_bytes = self.row_bytes();
        &part.bytes[(row - part.first_row) * row_bytes..][..row_bytes]
    }

    /// Decodes row `row` into `out` of [`Self::cols`] elements.
    ///
    /// # Panics
    /// Where `row` or the length of `out` does not fit.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        self.format.decode(self.row(row), out);
    }
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

    #[test]
    fn a_wrong_size_is_refused() {
        let bytes = Bytes::from(vec![0; 33]);
        assert!(Matrix::new("m", Format::Q4_0, 1, 32, bytes.clone()).is_err());
        assert!(Matrix::new("m", Format::Q4_0, 1, 33, bytes.clone()).is_err());
        assert!(Matrix::new("m", Format::Q4_0, 0, 32, bytes.clone()).is_err());
        assert!(Matrix::new("m", Format::Q4_0, usize::MAX, 32, bytes).is_err());
    }
}
