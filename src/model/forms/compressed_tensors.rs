//! compressed-tensors 0.20, of llm-compressor and vLLM; for N outputs and K inputs in groups of g:
//!
//! - `pack-quantized`: `weight_packed` i32 `(N, K·b/32)` packs codes along K, low bits first, 2^(b − 1) above the signed
//!   number; `weight_scale` `(N, K/g)`; `weight_zero_point` i32 `(N·b/32, K/g)` packs likewise along N; with `actorder` an
//!   older writer's `weight_g_idx` names the group of each input;
//! - `int-quantized`: `weight` i8 `(N, K)` and `weight_zero_point` i8;
//! - `float-quantized`: `weight` in 8-bit floats;
//! - `nvfp4-pack-quantized`, `mxfp4-pack-quantized`: `weight_packed` u8 `(N, K/2)` of 4-bit floats, `weight_scale` in 8 bits
//!   per 16 or 32, and for the former the divisor `weight_global_scale`.
//!
//! w = (q − z)·s. A scale may also belong to a row, the tensor, or a block of rows and columns. Activations stay floats.

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Dtype, Tensor};
use crate::model::source::Stem;
use crate::model::{Linear, Transform};
use crate::quant::Format;

use super::grouped::{
    Floats, Grouped, Integer, Scales, Shape, Words, field, fields, matrix, order_of_groups, reorder, type_of,
    whole, words,
};
use super::{Form, Kind, float4, float8, int8};

pub(super) const KIND: Kind = Kind { method: "compressed-tensors", read };

/// Tensors about activations, which stay floats.
const OF_ACTIVATIONS: [&str; 4] =
    [".input_scale", ".input_zero_point", ".input_global_scale", ".output_scale"];

#[derive(Debug)]
struct CompressedTensors {
    schemes: Vec<Scheme>,
}

/// What a group of settings says of weights.
#[derive(Clone, Copy, Debug)]
struct Scheme {
    bits: u32,
    is_float: bool,
    is_symmetric: bool,
    /// Rows and columns of a block with one scale.
    block: Option<[usize; 2]>,
}

fn read(_checkpoint: &Checkpoint, settings: &Config) -> Result<Box<dyn Form>> {
    for key in ["transform_config", "sparsity_config"] {
        let Some(more) = settings.object(key)? else { continue };
        let is_dense = more.text("format").is_ok_and(|format| format == Some("dense"));
        if more.iter().next().is_some() && !is_dense {
            return Err(Error::unsupported("transforms and sparse matrices are not supported").at(key));
        }
    }
    let groups = settings.object("config_groups")?.unwrap_or_default();
    let mut schemes = Vec::new();
    for (name, _) in groups.iter() {
        let group = groups.object(name).map_err(|error| error.at("config_groups"))?.unwrap_or_default();
        if let Some(weights) = group.object("weights").map_err(|error| error.at(name))? {
            schemes.push(Scheme::read(&weights).map_err(|error| error.at(name))?);
        }
    }
    if schemes.is_empty() {
        return Err(Error::bad_file("no group says how weights are stored").at("config_groups"));
    }
    Ok(Box::new(CompressedTensors { schemes }))
}

impl Scheme {
    fn read(weights: &Config) -> Result<Self> {
        let bits = weights.u32("num_bits")?.unwrap_or(8);
        let kind = weights.text("type")?.unwrap_or("int");
        let is_float = kind == "float";
        if !(1..=8).contains(&bits)
            || (is_float && !matches!(bits, 4 | 8))
            || !matches!(kind, "int" | "float")
        {
            let what = format!("{bits} bits of type {kind:?} are not supported");
            return Err(Error::unsupported(what)
                .at("weights")
                .hint("whole numbers of 1 to 8 bits and floats of 4 and 8 are"));
        }
        let block = match weights.array("block_structure")? {
            None => None,
            Some(block) => {
                let sides: Vec<_> = block.iter().map(|side| side.as_u64().unwrap_or(0) as usize).collect();
                let refuse = || Error::bad_file(format!("the block is {block:?}")).at("block_structure");
                Some(
                    <[usize; 2]>::try_from(sides)
                        .ok()
                        .filter(|sides| !sides.contains(&0))
                        .ok_or_else(refuse)?,
                )
            }
        };
        let is_symmetric = weights.bool("symmetric")?.unwrap_or(true);
        Ok(Self { bits, is_float, is_symmetric, block })
    }
}

impl Form for CompressedTensors {
    fn linear(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>> {
        let (n, k) = (rows as usize, cols as usize);
        let (tensor, is_packed) = match (stem.get(".weight_packed"), stem.get(".weight")) {
            (Some(packed), _) => (packed, true),
            (None, Some(weight)) => (weight, false),
            (None, None) => return Ok(None),
        };
        let read = match tensor.dtype {
            Dtype::Other(Integer::I32) if is_packed => packed,
            Dtype::Other(Integer::I8) if !is_packed => bytes,
            Dtype::Other(Integer::F8_E4M3) if !is_packed => floats,
            Dtype::Other(Integer::U8) if is_packed => small_floats,
            _ if is_packed => {
                let what = format!("{} cannot hold packed codes", type_of(tensor));
                return Err(tensor.refuse(what));
            }
            _ => return Ok(None),
        };
        // What is read is not refused as unknown.
        for ending in OF_ACTIVATIONS {
            _ = stem.get(ending);
        }
        if let Some(shape) = stem.get(".weight_shape") {
            check_shape(shape, [n, k])?;
        }
        read(self, stem, tensor, n, k).map(Some)
    }
}

impl CompressedTensors {
    /// The scheme of a tensor, of which its scales tell the groups.
    fn scheme(&self, tensor: &Tensor, bits: u32, is_float: bool, is_symmetric: bool) -> Result<Scheme> {
        let same = |scheme: &&Scheme| {
            (scheme.bits, scheme.is_float, scheme.is_symmetric) == (bits, is_float, is_symmetric)
        };
        let points = if is_symmetric { "without" } else { "with" };
        let kind = if is_float { "floats" } else { "numbers" };
        self.schemes.iter().find(same).copied().ok_or_else(|| {
            tensor.refuse(format!("no group of the settings has {kind} of {bits} bits {points} zero points"))
        })
    }
}

fn packed(form: &CompressedTensors, stem: &Stem<'_>, tensor: &Tensor, n: usize, k: usize) -> Result<Linear> {
    let width = tensor.dims.last().copied().unwrap_or(0) as usize;
    let bits = width.saturating_mul(32).checked_div(k).unwrap_or(0);
    if !(1..=8).contains(&bits) || (k * bits).div_ceil(32) != width {
        let what = format!("{width} words do not hold rows of {k} codes");
        return Err(tensor.refuse(what));
    }
    let points = stem.get(".weight_zero_point");
    let scheme = form.scheme(tensor, bits as u32, false, points.is_none())?;
    let scales = Scales::of(stem.tensor(".weight_scale")?, n, k, scheme.block)?;
    let zeros = match points {
        Some(points) => Some(words(points, [(n * bits).div_ceil(32), k.div_ceil(scales.group)])?),
        None => None,
    };
    let order = stem.get(".weight_g_idx").map(|groups| order_of_groups(groups, k, scales.group));
    let order = order.transpose()?.flatten();
    let format = whole(bits as u32, zeros.is_none(), scales.are_halves());
    let shape = Shape { rows: n, cols: k, group: scales.group, format };
    let pre = order.clone().map(|order| Transform::Gather(order.into())).into_iter().collect();
    let codes = Packed { bits: bits as u32, weights: words(tensor, [n, width])?, scales, zeros, order };
    Ok(Linear { pre, ..Linear::plain(matrix(stem.name(), shape, codes)?) })
}

fn bytes(form: &CompressedTensors, stem: &Stem<'_>, tensor: &Tensor, n: usize, k: usize) -> Result<Linear> {
    let points = stem.get(".weight_zero_point");
    let scheme = form.scheme(tensor, 8, false, points.is_none())?;
    let scales = Scales::of(stem.tensor(".weight_scale")?, n, k, scheme.block)?;
    int8::linear(stem.name(), tensor, scales, points, [n, k])
}

fn floats(form: &CompressedTensors, stem: &Stem<'_>, tensor: &Tensor, n: usize, k: usize) -> Result<Linear> {
    let scheme = form.scheme(tensor, 8, true, true)?;
    let scales = Scales::of(stem.tensor(".weight_scale")?, n, k, scheme.block)?;
    float8::linear(stem.name(), tensor, scales, n, k)
}

fn small_floats(
    form: &CompressedTensors,
    stem: &Stem<'_>,
    tensor: &Tensor,
    n: usize,
    k: usize,
) -> Result<Linear> {
    form.scheme(tensor, 4, true, true)?;
    let tensors = [tensor, stem.tensor(".weight_scale")?];
    // Scales of NVFP4 were multiplied by it to fit their type.
    let (format, factor) = match stem.get(".weight_global_scale") {
        Some(global) => (Format::NVFP4, 1.0 / Floats::flat(global, 1)?.get(0)),
        None => (Format::MXFP4, 1.0),
    };
    float4::linear(stem.name(), format, tensors, factor, [n, k])
}

/// Refuses a shape, in a tensor of its own, that is another.
fn check_shape(tensor: &Tensor, due: [usize; 2]) -> Result<()> {
    let is: Option<Vec<u64>> = match tensor.dtype {
        Dtype::Other(Integer::I64) => {
            Some(tensor.bytes.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect())
        }
        Dtype::Other(Integer::I32) => {
            Some(tensor.bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes).into()).collect())
        }
        _ => None,
    };
    match is.as_ref().is_some_and(|is| is.iter().copied().eq(due.map(|dim| dim as u64))) {
        true => Ok(()),
        false => Err(tensor.refuse(format!("the shape is {is:?}, where {due:?} belongs"))),
    }
}

/// Codes in words.
#[derive(Debug)]
struct Packed {
    bits: u32,
    weights: Words,
    scales: Scales,
    zeros: Option<Words>,
    order: Option<Vec<u32>>,
}

impl Grouped for Packed {
    fn codes(&self, row: usize, codes: &mut [u8]) {
        fields(self.bits, self.weights.row(row), codes);
        reorder(codes, self.order.as_deref());
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        self.scales.get(row, group)
    }

    fn zero(&self, row: usize, group: usize) -> f32 {
        match &self.zeros {
            None => (1 << (self.bits - 1)) as f32,
            Some(zeros) => field(self.bits, row, |word| zeros.get(word, group)).into(),
        }
    }

    fn release(&self) {
        self.weights.release();
    }
}
