//! Meta's quantized Llama 3.2 ("INT4_EO8"): for N outputs and K inputs, `weight` int8 `(N, K)`, one code a byte, and
//! `scales` `(N, K/g)`; w = q·s. Linears of the layers hold 4-bit codes, −8 to 7, in groups of 32; embedding and head hold
//! 8-bit codes with one scale a row. g is K over the columns of the scales, whatever `params.json` says.
//!
//! SpinQuant (Liu et al. 2024, arXiv 2405.16406) rotates the input of `w2` by a Hadamard transform of its whole width,
//! which is 2ᵐ here; its other rotations are in the weights. QLoRA has low-rank paths, `adaptor.A` and `adaptor.B`, beside
//! the linears of the layers.
//! Layout: `examples/models/llama/source_transformation/pre_quantization.py` of pytorch/executorch.
//!
//! The original runtime rounds the input of every matrix to 8 bits token by token: that is an option of the engine, for any
//! model.

use safetensors::Dtype::I8;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Dtype, Tensor};
use crate::model::source::Stem;
use crate::model::{Hadamard, Linear, Side, Transform};
use crate::quant::Matrix;

use super::grouped::{Floats, Grouped, Shape, matrix, whole};
use super::{Form, Kind};

pub(super) const KIND: Kind = Kind { method: "meta", read };

/// The factor of the low-rank paths where the settings say none.
const USUAL_SCALE: f64 = 2.0;

#[derive(Debug)]
struct Meta {
    /// Whether the input of `w2` is rotated.
    rotated: bool,
    rank: Option<u32>,
    scale: f32,
}

/// Reads `params.json`.
fn read(_checkpoint: &Checkpoint, params: &Config) -> Result<Box<dyn Form>> {
    let quantization = params.object("quantization_args")?.unwrap_or_default();
    let lora = params.object("lora_args")?.unwrap_or_default();
    Ok(Box::new(Meta {
        rotated: quantization.bool("spinquant")?.unwrap_or(false),
        rank: lora.u32("rank")?,
        scale: lora.float("scale")?.unwrap_or(USUAL_SCALE) as f32,
    }))
}

impl Form for Meta {
    fn linear(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>> {
        let Some(scales) = stem.get(".scales") else { return Ok(None) };
        let weights = stem.tensor(".weight")?;
        if weights.dtype != Dtype::Other(I8) || weights.dims != [rows, cols].map(u64::from) {
            let what =
                format!("{:?} of {:?}, where int8 of [{rows}, {cols}] belongs", weights.dtype, weights.dims);
            return Err(weights.refuse(what));
        }
        if let Some(zeros) = stem.get(".zeros").filter(|zeros| zeros.bytes.iter().any(|&byte| byte != 0)) {
            return Err(zeros.locate(Error::unsupported("zero points other than 0 are not supported")));
        }
        let groups = groups(scales, rows, cols)?;
        let bits = if groups == 1 { 8 } else { 4 };
        if bits == 4 {
            check_codes(weights)?;
        }
        let codes = Codes {
            middle: 1 << (bits - 1),
            weights: weights.clone(),
            scales: Floats::flat(scales, rows as usize * groups)?,
            cols: cols as usize,
            groups,
        };
        let format = whole(bits, true, codes.scales.are_halves());
        let (n, k) = (rows as usize, cols as usize);
        let shape = Shape { rows: n, cols: k, group: k / groups, format };
        let base = matrix(stem.name(), shape, codes)?;
        let pre = self.rotation(stem, cols)?.into_iter().collect();
        let side = self.side(stem)?.into_iter().collect();
        Ok(Some(Linear { pre, side, ..Linear::plain(base) }))
    }
}

impl Meta {
    /// What becomes of the input of `w2`.
    fn rotation(&self, stem: &Stem<'_>, cols: u32) -> Result<Option<Transform>> {
        if !(self.rotated && stem.name().ends_with(".feed_forward.w2")) {
            return Ok(None);
        }
        if !cols.is_power_of_two() {
            let what = format!("a rotation of {cols} elements is not supported");
            return Err(Error::unsupported(what)
                .at(format!("linear {}", stem.name()))
                .hint("powers of two work, as in the 1B and 3B models"));
        }
        Ok(Some(Transform::Hadamard(Hadamard::power_of_two(cols))))
    }

    /// The low-rank path, which both of its matrices make.
    fn side(&self, stem: &Stem<'_>) -> Result<Option<Side>> {
        let (down, up) = (stem.get(".adaptor.A.weight"), stem.get(".adaptor.B.weight"));
        let (down, up) = match (down, up) {
            (None, None) => return Ok(None),
            (Some(down), Some(up)) => (plain(down)?, plain(up)?),
            (Some(alone), None) | (None, Some(alone)) => {
                return Err(alone.refuse("the other matrix of the low-rank path is missing"));
            }
        };
        match self.rank {
            Some(rank) if rank as usize != down.rows() => {
                let what = format!("lora_args say rank {rank}, the tensors {}", down.rows());
                Err(Error::bad_file(what).at(format!("linear {}", stem.name())))
            }
            _ => Ok(Some(Side { down, up, scale: self.scale })),
        }
    }
}

/// Columns of the scales, which may be a vector where there is one for each row.
fn groups(scales: &Tensor, rows: u32, cols: u32) -> Result<usize> {
    let groups = match scales.dims[..] {
        [n] if n == u64::from(rows) => Some(1),
        [n, groups] if n == u64::from(rows) => u32::try_from(groups).ok(),
        _ => None,
    };
    let groups = groups.filter(|&groups| groups > 0 && cols.is_multiple_of(groups));
    groups.map(|groups| groups as usize).ok_or_else(|| {
        scales.refuse(format!("scales of {:?} do not fit a matrix of {rows} by {cols}", scales.dims))
    })
}

/// Refuses codes that 4 bits do not hold.
fn check_codes(weights: &Tensor) -> Result<()> {
    let wide = |bytes: &[u8]| bytes.iter().fold(0, |wide, byte| wide | (byte.wrapping_add(8) & 0xf0)) != 0;
    let is_wide = weights.bytes.chunks(1 << 16).any(wide);
    weights.bytes.release();
    match is_wide {
        true => Err(weights.refuse("a code is outside −8 to 7")),
        false => Ok(()),
    }
}

/// A matrix of floats.
fn plain(tensor: &Tensor) -> Result<Matrix> {
    let [rows, cols] = tensor.dims[..] else {
        return Err(tensor.refuse(format!("the shape {:?} is no matrix", tensor.dims)));
    };
    Matrix::new(&tensor.name, tensor.format()?, rows as usize, cols as usize, tensor.bytes.clone())
        .map_err(|error| error.at_offset(tensor.offset).in_file(&tensor.file))
}

/// Where codes and scales stand.
#[derive(Debug)]
struct Codes {
    /// What makes codes positive.
    middle: u8,
    weights: Tensor,
    scales: Floats,
    cols: usize,
    groups: usize,
}

impl Grouped for Codes {
    fn codes(&self, row: usize, codes: &mut [u8]) {
        let bytes = &self.weights.bytes[row * self.cols..][..self.cols];
        codes.iter_mut().zip(bytes).for_each(|(code, byte)| *code = byte.wrapping_add(self.middle));
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        self.scales.get(row * self.groups + group)
    }

    fn zero(&self, _row: usize, _group: usize) -> f32 {
        self.middle.into()
    }

    fn release(&self) {
        self.weights.bytes.release();
    }
}
