//! A weight matrix in file order.

use std::sync::Arc;

use crate::base::{Bytes, product};
use crate::error::{Error, Result};

use super::Format;

/// A row-major `(rows, cols)` matrix whose rows are runs of blocks, still in the bytes of the file.
///
/// `y = W·x` has one output per row; `cols` is the inner dimension K.
#[derive(Clone, Debug)]
pub struct Matrix {
    name: Arc<str>,
    format: Format,
    rows: usize,
    cols: usize,
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
        Ok(Self { name: name.into(), format, rows, cols, bytes })
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

    /// All bytes in file order.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Bytes of one row in file order.
    pub fn row_bytes(&self) -> usize {
        self.bytes.len() / self.rows
    }

    /// The bytes of row `row` in file order.
    ///
    /// # Panics
    /// Where `row` is not below [`Self::rows`].
    pub fn row(&self, row: usize) -> &[u8] {
        let row_bytes = self.row_bytes();
        &self.bytes[row * row_bytes..(row + 1) * row_bytes]
    }

    /// Decodes row `row` into `out` of [`Self::cols`] elements.
    ///
    /// # Panics
    /// Where `row` or the length of `out` does not fit.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        self.format.decode(self.row(row), out);
    }
}
