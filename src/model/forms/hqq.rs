//! HQQ (Badri and Shaji 2023, "Half-Quadratic Quantization"), as hqq 0.2.8 and transformers write it. The elements of a
//! matrix are a grouped matrix: with `axis` 1 each row of it is a group of g neighbours, `(N·K/g, g)`; with `axis` 0 each
//! column is one of g elements that lie N·K/g apart, `(g, N·K/g)`. `W_q` cuts its rows into 8/b parts of equal length, which
//! lie over each other in the bits of u8, the first on top (3 bits: ten parts in i32; 5 and 6 bits: whole bytes). `scale` and
//! `zero` hold a float for each group; w = (q − z)·s. Settings stand beside each matrix as tensors of their own.

use crate::base::Bytes;
use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Dtype, Tensor};
use crate::model::Linear;
use crate::model::source::Stem;

use super::grouped::{BLOCK, Floats, Grouped, Integer, Shape, matrix, whole};
use super::{Form, Kind};

pub(super) const KIND: Kind = Kind { method: "hqq", read };

/// Tensors that tell how to compute, or say again what others do.
const REDUNDANT: [&str; 13] = [
    ".shape",
    ".packing",
    ".view_as_float",
    ".unpack_view_dtype",
    ".channel_wise",
    ".optimize",
    ".round_zero",
    ".compute_dtype",
    ".offload_meta",
    ".encoded_state_dict",
    ".stores_quant_config",
    ".quant_scale",
    ".quant_zero",
];

#[derive(Debug)]
struct Hqq {
    bits: Option<u32>,
    axis: Option<u32>,
}

fn read(_checkpoint: &Checkpoint, settings: &Config) -> Result<Box<dyn Form>> {
    let config = settings.object("quant_config")?.unwrap_or_default();
    let weights = config.object("weight_quant_params")?.unwrap_or_default();
    Ok(Box::new(Hqq { bits: weights.u32("nbits")?, axis: weights.u32("axis")? }))
}

impl Form for Hqq {
    fn linear(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>> {
        let Some(tensor) = stem.get(".W_q") else { return Ok(None) };
        let (n, k) = (rows as usize, cols as usize);
        let setting = |ending: &str, default: Option<u32>| match stem.get(ending) {
            Some(tensor) => scalar(tensor).map(Some),
            None => Ok(default),
        };
        let bits = setting(".nbits", self.bits)?.unwrap_or(4);
        let axis = setting(".axis", self.axis)?.unwrap_or(1);
        // What is read is not refused as unknown.
        for ending in REDUNDANT {
            _ = stem.get(ending);
        }
        let Some(parts) = parts(bits) else {
            let error = Error::unsupported(format!("{bits} bits are not supported"));
            return Err(tensor.locate(error.hint("1, 2, 3, 4, 5, 6 or 8 are")));
        };
        let elements = n.checked_mul(k).filter(|&elements| elements <= usize::MAX / 8).unwrap_or(0);
        let scale = stem.tensor(".scale")?;
        let groups = usize::try_from(scale.dims.iter().product::<u64>()).unwrap_or(0);
        let group = elements.checked_div(groups).unwrap_or(0);
        if group == 0 || group * groups != elements {
            return Err(scale.refuse(format!("{groups} groups do not divide {n} by {k} elements")));
        }
        if let Some(named) = stem.get(".group_size")
            && scalar(named)? as usize != group
        {
            return Err(named.refuse(format!("{groups} scales make groups of {group}")));
        }
        // Whole blocks of a row have one scale, or each element has its own.
        let (deep, wide) = match axis {
            1 => (groups, group),
            0 => (group, groups),
            other => {
                let place = stem.get(".axis").unwrap_or(tensor);
                return Err(place.refuse(format!("the axis is {other}, where 0 or 1 belongs")));
            }
        };
        let run = if axis == 1 && k.is_multiple_of(group) && group.is_multiple_of(BLOCK) { group } else { 1 };
        let step = deep.div_ceil(parts.len);
        let word = parts.word_bytes;
        if !is_storage(tensor, word) || tensor.bytes.len() != step * wide * word {
            let what =
                format!("{} bytes do not hold {deep} by {wide} codes of {bits} bits", tensor.bytes.len());
            return Err(tensor.refuse(what));
        }
        let codes = Codes {
            bytes: tensor.bytes.clone(),
            parts,
            bits,
            step,
            wide,
            cols: k,
            run,
            group: (axis == 1).then_some(group),
            scales: Floats::flat(scale, groups)?,
            zeros: Floats::flat(stem.tensor(".zero")?, groups)?,
        };
        let shape = Shape { rows: n, cols: k, group: run, format: whole(bits, false, false) };
        Ok(Some(Linear::plain(matrix(stem.name(), shape, codes)?)))
    }
}

/// How codes share a word.
#[derive(Clone, Copy, Debug)]
struct Parts {
    len: usize,
    word_bytes: usize,
}

fn parts(bits: u32) -> Option<Parts> {
    let (len, word_bytes) = match bits {
        1 => (8, 1),
        2 => (4, 1),
        3 => (10, 4),
        4 => (2, 1),
        5 | 6 | 8 => (1, 1),
        _ => return None,
    };
    Some(Parts { len, word_bytes })
}

/// Whether the elements are whole words, or floats that lend their bytes.
fn is_storage(tensor: &Tensor, word_bytes: usize) -> bool {
    match tensor.dtype {
        Dtype::Other(Integer::U8) => word_bytes == 1,
        Dtype::Other(Integer::I32) => word_bytes == 4,
        Dtype::Other(_) => false,
        Dtype::Format(format) => format.block_len() == 1,
    }
}

/// A tensor of one small number.
fn scalar(tensor: &Tensor) -> Result<u32> {
    let is_whole = matches!(tensor.dtype, Dtype::Other(Integer::U8 | Integer::I32 | Integer::I64));
    let mut bytes = [0; 8];
    if let Some(to) = bytes.get_mut(..tensor.bytes.len()).filter(|_| is_whole) {
        to.copy_from_slice(&tensor.bytes);
        if let Ok(value) = u32::try_from(u64::from_le_bytes(bytes)) {
            return Ok(value);
        }
    }
    Err(tensor.refuse("one number belongs here"))
}

/// Codes of a grouped matrix that lie over each other.
#[derive(Debug)]
struct Codes {
    bytes: Bytes,
    parts: Parts,
    bits: u32,
    /// Rows of the grouped matrix in a part.
    step: usize,
    /// Its columns.
    wide: usize,
    cols: usize,
    /// Elements of a row that share a scale.
    run: usize,
    /// Elements of a group, or `None` where a group is a column.
    group: Option<usize>,
    scales: Floats,
    zeros: Floats,
}

impl Codes {
    /// The group of an element.
    fn group_of(&self, row: usize, run: usize) -> usize {
        let element = row * self.cols + run * self.run;
        match self.group {
            Some(group) => element / group,
            None => element % self.wide,
        }
    }
}

impl Grouped for Codes {
    fn codes(&self, row: usize, codes: &mut [u8]) {
        for (element, code) in (row * self.cols..).zip(codes) {
            let (deep, col) = (element / self.wide, element % self.wide);
            let (part, deep) = (deep / self.step, deep % self.step);
            let at = (deep * self.wide + col) * self.parts.word_bytes;
            let mut word = [0; 4];
            word[..self.parts.word_bytes].copy_from_slice(&self.bytes[at..][..self.parts.word_bytes]);
            let shift = self.bits * (self.parts.len - 1 - part) as u32;
            *code = (u32::from_le_bytes(word) >> shift & ((1 << self.bits) - 1)) as u8;
        }
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        self.scales.get(self.group_of(row, group))
    }

    fn zero(&self, row: usize, group: usize) -> f32 {
        self.zeros.get(self.group_of(row, group))
    }

    fn release(&self) {
        self.bytes.release();
    }
}
