//! torchao 0.18, as it flattens its tensors for safetensors; for N outputs and K inputs in groups of g:
//!
//! - `IntxUnpackedToInt8Tensor` and `Int8Tensor`: `_weight_qdata` i8 `(N, K)`, `_weight_scale` `(N, K/g)` and
//!   `_weight_zero_point` i8 beside it; w = (q − z)·s;
//! - `Float8Tensor`: `_weight_qdata` in 8-bit floats, `_weight_scale` of rows or the tensor;
//! - `Int4Tensor`: `_weight_qdata` i8 `(N, K/2)`, the even input of two in the low nibble, from −8 to 7, `_weight_scale` and
//!   `_weight_zero_point` floats `(K/g, N)`; w = q·s + z, and the input is multiplied by `_weight_act_pre_scale` `(K)` if
//!   there. As its own quantizer unpacks it (`prototype/gptq/api.py`, `_int4_row_dequantize_zp`), and MSLK packs it.
//!
//! Which of them a tensor is shows in its type and shape. Activations stay floats.

use crate::base::Bytes;
use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Dtype, Tensor};
use crate::model::source::Stem;
use crate::model::{Linear, Transform};

use super::grouped::{
    Floats, Grouped, Integer, Scales, Shape, around_zero, integers, matrix, type_of, whole,
};
use super::{Form, Kind, float8, int8};

pub(super) const KIND: Kind = Kind { method: "torchao", read };

#[derive(Debug)]
struct TorchAo;

fn read(_checkpoint: &Checkpoint, _settings: &Config) -> Result<Box<dyn Form>> {
    // The settings tell how it was done; what it is stands in the tensors.
    Ok(Box::new(TorchAo))
}

impl Form for TorchAo {
    fn linear(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>> {
        let Some(data) = stem.get("._weight_qdata") else { return Ok(None) };
        let (n, k) = (rows as usize, cols as usize);
        let dims = [u64::from(rows), u64::from(cols)];
        let is_whole = data.dims == dims;
        let is_halved = k.is_multiple_of(2) && data.dims == [dims[0], dims[1] / 2];
        let scales = || Scales::of(stem.tensor("._weight_scale")?, n, k, None);
        match data.dtype {
            Dtype::Other(Integer::I8) if is_whole => {
                int8::linear(stem.name(), data, scales()?, stem.get("._weight_zero_point"), [n, k]).map(Some)
            }
            Dtype::Other(Integer::F8_E4M3) if is_whole => {
                float8::linear(stem.name(), data, scales()?, n, k).map(Some)
            }
            Dtype::Other(Integer::I8) if is_halved => nibbles(stem, data, [n, k]).map(Some),
            _ => {
                let (is, maker) = (type_of(data), class_of(data));
                let what = format!("{is} of shape {:?} for {dims:?} weights ({maker})", data.dims);
                let hint = "IntxUnpackedToInt8Tensor, Int8Tensor, Float8Tensor and Int4Tensor (the packing \"plain\") are";
                Err(data.locate(Error::unsupported(format!("{what} is not supported")).hint(hint)))
            }
        }
    }
}

/// Which of torchao's tensors this probably is.
fn class_of(data: &Tensor) -> &'static str {
    match (data.dtype, data.dims.len()) {
        (Dtype::Other(Integer::I32), 4) => "Int4TilePackedTo4dTensor",
        (Dtype::Other(Integer::I32), 2) => "Int4PlainInt32Tensor",
        (Dtype::Other(Integer::U8), _) => "NVFP4Tensor or MXTensor",
        _ => "an unknown tensor",
    }
}

fn nibbles(stem: &Stem<'_>, data: &Tensor, [n, k]: [usize; 2]) -> Result<Linear> {
    let bytes = integers(data, &[Integer::I8], &[n, k / 2])?;
    let (scales, points) = (stem.tensor("._weight_scale")?, stem.tensor("._weight_zero_point")?);
    let groups = scales.dims.first().and_then(|&groups| usize::try_from(groups).ok()).unwrap_or(0);
    let group = k.checked_div(groups).filter(|group| group * groups == k).ok_or_else(|| {
        scales.refuse(format!("the shape {:?} does not fit {n} by {k} elements", scales.dims))
    })?;
    let (scales, points) = (Floats::of(scales, &[groups, n])?, Floats::of(points, &[groups, n])?);
    let is_symmetric = (0..groups * n).all(|at| points.get(at) == 0.0);
    let shape = Shape { rows: n, cols: k, group, format: whole(4, is_symmetric, scales.are_halves()) };
    let pre = match stem.get("._weight_act_pre_scale") {
        Some(tensor) => {
            let factors = Floats::flat(tensor, k)?;
            vec![Transform::Scale((0..k).map(|input| factors.get(input)).collect())]
        }
        None => Vec::new(),
    };
    let codes = Nibbles { bytes, scales, points, rows: n, cols: k };
    Ok(Linear { pre, ..Linear::plain(matrix(stem.name(), shape, codes)?) })
}

/// The middle of codes that count from 0.
const MIDDLE: u8 = 8;

/// Where codes, scales and zero points of an `Int4Tensor` stand.
#[derive(Debug)]
struct Nibbles {
    bytes: Bytes,
    scales: Floats,
    points: Floats,
    rows: usize,
    cols: usize,
}

impl Nibbles {
    fn around_zero(&self, row: usize, group: usize) -> (f32, f32) {
        let at = group * self.rows + row;
        around_zero(self.scales.get(at), self.points.get(at))
    }
}

impl Grouped for Nibbles {
    fn codes(&self, row: usize, codes: &mut [u8]) {
        let from = &self.bytes[row * self.cols / 2..][..self.cols / 2];
        for (codes, byte) in codes.as_chunks_mut().0.iter_mut().zip(from) {
            *codes = [(byte & 15) ^ MIDDLE, byte >> 4 ^ MIDDLE];
        }
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        self.around_zero(row, group).0
    }

    fn zero(&self, row: usize, group: usize) -> f32 {
        self.around_zero(row, group).1 + f32::from(MIDDLE)
    }

    fn release(&self) {
        self.bytes.release();
    }
}
