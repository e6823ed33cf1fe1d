//! Matrices of 4-bit floats, a sign above 2 bits of exponent and 1 of mantissa, the even element of two in the low nibble:
//! MXFP4 with a power of two per 32 (OCP Microscaling Formats 1.0), and NVFP4 with a float of 8 bits per 16 and a factor of
//! the whole matrix.

use std::sync::Arc;

use crate::base::Bytes;
use crate::error::{Error, Result};
use crate::format::{Dtype, Tensor};
use crate::model::{Linear, Transform};
use crate::quant::{Format, Matrix, Rows};

use super::grouped::{Integer, integers};

/// The linear of nibbles `(N, K/2)` in u8, or as many bytes in u32, with scales `(N, K/g)`: for MXFP4 g is 32, for NVFP4 it
/// is 16, and the outputs are multiplied by `factor`.
pub(super) fn linear(
    name: &str,
    format: Format,
    [nibbles, scales]: [&Tensor; 2],
    factor: f32,
    [n, k]: [usize; 2],
) -> Result<Linear> {
    let group = if format == Format::MXFP4 { 32 } else { 16 };
    if !k.is_multiple_of(format.block_len()) {
        let what = format!("{k} columns are no whole blocks of {format}");
        return Err(nibbles.locate(Error::unsupported(what)));
    }
    let bytes = match nibbles.dtype {
        Dtype::Other(Integer::U32) => integers(nibbles, &[Integer::U32], &[n, k / 8])?,
        _ => integers(nibbles, &[Integer::U8], &[n, k / 2])?,
    };
    let types = [Integer::U8, Integer::F8_E4M3, Integer::F8_E8M0];
    let powers = integers(scales, &types, &[n, k / group])?;
    // What is not a number here would be one in our blocks.
    let worst = |byte: u8| if format == Format::MXFP4 { byte == 255 } else { byte > 126 };
    if let Some(index) = powers.iter().position(|&byte| worst(byte)) {
        return Err(scales.refuse(format!("element {index} is {}, which is no scale", powers[index])));
    }
    if !factor.is_finite() {
        return Err(nibbles.refuse(format!("the factor of the matrix is {factor}")));
    }
    let rows = Floats4 { bytes, scales: powers, cols: k, group, block: format.block_len() };
    let base = Matrix::made(name, format, n, k, Arc::new(rows))?;
    let post = if factor == 1.0 { Vec::new() } else { vec![Transform::Scale(vec![factor; n].into())] };
    Ok(Linear { post, ..Linear::plain(base) })
}

#[derive(Debug)]
struct Floats4 {
    bytes: Bytes,
    scales: Bytes,
    cols: usize,
    group: usize,
    /// Elements of a block: as many scales as groups, then for each group the nibbles of its halves beside each other.
    block: usize,
}

impl Rows for Floats4 {
    fn write(&self, row: usize, bytes: &mut [u8]) {
        let per_block = self.block / self.group;
        let nibbles = &self.bytes[row * self.cols / 2..][..self.cols / 2];
        let scales = &self.scales[row * self.cols / self.group..][..self.cols / self.group];
        let blocks = bytes.chunks_exact_mut(per_block + self.block / 2);
        let from = nibbles.chunks_exact(self.block / 2).zip(scales.chunks_exact(per_block));
        for (to, (nibbles, scales)) in blocks.zip(from) {
            let (to_scales, to) = to.split_at_mut(per_block);
            to_scales.copy_from_slice(scales);
            let half = self.group / 2;
            for (to, nibbles) in to.chunks_exact_mut(half).zip(nibbles.chunks_exact(half)) {
                let nibble = |element: usize| nibbles[element / 2] >> (4 * (element % 2)) & 15;
                to.iter_mut().enumerate().for_each(|(j, to)| *to = nibble(j) | nibble(j + half) << 4);
            }
        }
    }

    fn release(&self) {
        self.bytes.release();
    }
}
