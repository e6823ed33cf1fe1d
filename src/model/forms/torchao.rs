//! torchao 0.18, as it flattens its tensors for safetensors; for N outputs and K inputs in groups of g:
//!
//! - `IntxUnpackedToInt8Tensor` and `Int8Tensor`: `_weight_qdata` i8 `(N, K)`, `_weight_scale` `(N, K/g)` and
//!   `_weight_zero_point` i8 beside it; w = (q − z)·s;
//! - `Float8Tensor`: `_weight_qdata` in 8-bit floats, `_weight_scale` of rows or the tensor.
//!
//! Which of them a tensor is shows in its type and shape. Activations stay floats.

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Dtype};
use crate::model::Linear;
use crate::model::source::Stem;

use super::grouped::{Integer, Scales, type_of};
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
        let scales = || Scales::of(stem.tensor("._weight_scale")?, n, k, None);
        match data.dtype {
            Dtype::Other(Integer::I8) if is_whole => {
                int8::linear(stem.name(), data, scales()?, stem.get("._weight_zero_point"), [n, k]).map(Some)
            }
            Dtype::Other(Integer::F8_E4M3) if is_whole => {
                float8::linear(stem.name(), data, scales()?, n, k).map(Some)
            }
            _ => {
                let what = format!("{} of shape {:?} for {dims:?} weights", type_of(data), data.dims);
                let error = Error::unsupported(format!("{what} is not supported"));
                Err(data.locate(error.hint("a byte a weight is: IntxUnpackedToInt8, Int8 and Float8")))
            }
        }
    }
}
