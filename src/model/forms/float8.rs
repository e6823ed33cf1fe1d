//! Matrices of 8-bit floats with 4 bits of exponent and 3 of mantissa (E4M3 without infinities; Micikevicius et al. 2022,
//! arXiv 2209.05433), whose scales belong to the tensor, to rows, or to blocks of it.

use std::sync::Arc;

use half::f16;

use crate::base::Bytes;
use crate::error::Result;
use crate::format::Tensor;
use crate::model::{Linear, Transform};
use crate::quant::{Format, Matrix, Rows};

use super::grouped::{Integer, Scales, integers};

/// The linear of a tensor `(N, K)`, w = q·s. f16 holds every such float: one scale a row stands behind the product, and
/// matrices with more of them become F32.
pub(super) fn linear(name: &str, tensor: &Tensor, scales: Scales, n: usize, k: usize) -> Result<Linear> {
    let bytes = integers(tensor, &[Integer::F8_E4M3], &[n, k])?;
    if let Some(index) = bytes.iter().position(|byte| byte & 127 == 127) {
        return Err(tensor.refuse(format!("element {index} is NaN")));
    }
    if scales.group < k {
        let rows = Floats8 { bytes, cols: k, scales: Some(scales) };
        return Ok(Linear::plain(Matrix::made(name, Format::F32, n, k, Arc::new(rows))?));
    }
    let factors: Vec<f32> = (0..n).map(|row| scales.get(row, 0)).collect();
    let rows = Floats8 { bytes, cols: k, scales: None };
    let base = Matrix::made(name, Format::F16, n, k, Arc::new(rows))?;
    Ok(Linear { post: vec![Transform::Scale(factors.into())], ..Linear::plain(base) })
}

/// F32 with scales, F16 without.
#[derive(Debug)]
struct Floats8 {
    bytes: Bytes,
    cols: usize,
    scales: Option<Scales>,
}

impl Rows for Floats8 {
    fn write(&self, row: usize, bytes: &mut [u8]) {
        let from = &self.bytes[row * self.cols..][..self.cols];
        match &self.scales {
            None => {
                let to = bytes.as_chunks_mut::<2>().0.iter_mut();
                to.zip(from).for_each(|(to, &byte)| *to = f16::from_f32(value(byte)).to_le_bytes());
            }
            Some(scales) => {
                let to = bytes.as_chunks_mut::<4>().0.iter_mut();
                for (col, (to, &byte)) in to.zip(from).enumerate() {
                    *to = (value(byte) * scales.get(row, col / scales.group)).to_le_bytes();
                }
            }
        }
    }

    fn release(&self) {
        self.bytes.release();
    }
}

/// What a byte stands for, save 127 and 255, which are NaN.
fn value(byte: u8) -> f32 {
    // The exponent of an f32 has 120 more at the same value; subnormals come out right by the product.
    let bits = u32::from(byte & 127) << 20;
    let magnitude = f32::from_bits(bits) * 2f32.powi(120);
    if byte & 128 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_floats() {
        for byte in (0..=255u8).filter(|byte| byte & 127 != 127) {
            let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
            let due = match exponent {
                0 => mantissa / 8.0 * 2f32.powi(-6),
                _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
            };
            let due = if byte & 128 == 0 { due } else { -due };
            assert_eq!(value(byte), due, "{byte}");
            assert_eq!(f16::from_f32(due).to_f32(), due, "{byte}");
        }
    }
}
