//! Matrices of signed bytes, w = (q − z)·s.

use crate::base::Bytes;
use crate::error::Result;
use crate::format::Tensor;
use crate::model::Linear;

use super::grouped::{Grouped, Integer, Scales, Shape, integers, matrix, whole};

/// The linear of a tensor `(N, K)`; zero points are i8 in the shape of the scales, or all 0.
pub(super) fn linear(
    name: &str,
    tensor: &Tensor,
    scales: Scales,
    points: Option<&Tensor>,
    [n, k]: [usize; 2],
) -> Result<Linear> {
    let weights = integers(tensor, &[Integer::I8], &[n, k])?;
    let zeros = points.map(|points| integers(points, &[Integer::I8], &scales.dims)).transpose()?;
    let zeros = zeros.filter(|zeros| zeros.iter().any(|&zero| zero != 0));
    let format = whole(8, zeros.is_none(), scales.are_halves());
    let shape = Shape { rows: n, cols: k, group: scales.group, format };
    Ok(Linear::plain(matrix(name, shape, Signed { weights, scales, zeros, cols: k })?))
}

#[derive(Debug)]
struct Signed {
    weights: Bytes,
    scales: Scales,
    zeros: Option<Bytes>,
    cols: usize,
}

impl Grouped for Signed {
    fn codes(&self, row: usize, codes: &mut [u8]) {
        let from = &self.weights[row * self.cols..][..self.cols];
        codes.iter_mut().zip(from).for_each(|(code, byte)| *code = byte ^ 128);
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        self.scales.get(row, group)
    }

    fn zero(&self, row: usize, group: usize) -> f32 {
        self.zeros.as_ref().map_or(128.0, |zeros| f32::from(zeros[self.scales.index(row, group)] ^ 128))
    }

    fn release(&self) {
        self.weights.release();
    }
}
