//! Matrices that a file holds as (inputs, outputs), turned a row at a time while they load.

use crate::base::Bytes;
use crate::error::Result;
use crate::format::Tensor;
use crate::quant::Rows;

/// Columns of the tensor as rows.
#[derive(Debug)]
pub(super) struct Turned {
    bytes: Bytes,
    /// Bytes of an element.
    size: usize,
    rows: usize,
}

impl Turned {
    /// The tensor of `cols` by `rows` elements.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] where it is in blocks, which stand across the rows, or not of this size.
    pub(super) fn of(tensor: &Tensor, rows: usize, cols: usize) -> Result<Self> {
        let format = tensor.format()?;
        if format.block_len() > 1 {
            return Err(tensor.refuse(format!("blocks of {format} stand across the inputs of the matrix")));
        }
        let (bytes, size) = (tensor.bytes.clone(), format.block_bytes());
        if rows.checked_mul(cols).and_then(|count| count.checked_mul(size)) != Some(bytes.len()) {
            let what = format!("{} bytes do not hold {cols} by {rows} elements in {format}", bytes.len());
            return Err(tensor.refuse(what));
        }
        Ok(Self { bytes, size, rows })
    }
}

impl Rows for Turned {
    fn write(&self, row: usize, bytes: &mut [u8]) {
        let column = self.bytes.chunks_exact(self.rows * self.size).map(|line| &line[row * self.size..]);
        bytes
            .chunks_exact_mut(self.size)
            .zip(column)
            .for_each(|(to, from)| to.copy_from_slice(&from[..self.size]));
    }

    fn release(&self) {
        self.bytes.release();
    }
}
