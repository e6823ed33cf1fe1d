//! bitsandbytes (Dettmers et al. 2022 and 2023, arXiv 2208.07339 and 2305.14314), as its version 0.50 and transformers write
//! it.
//!
//! 4 bits, NF4 or FP4: `weight` holds the nibbles of the matrix from one end to the other, the high one first, in u8 or in
//! a float type that only lends its bytes; `weight.absmax` a scale s for each run of `blocksize` elements;
//! `weight.quant_map` the table T, w = T[q]·s; `weight.quant_state.bitsandbytes__nf4` (or `__fp4`) the settings in JSON.
//! With double quantization `weight.absmax` is u8, and s = `nested_quant_map[absmax]·nested_absmax + nested_offset`.
//!
//! 8 bits, LLM.int8: `weight` i8 `(N, K)` and `SCB` `(N)`, w = q·SCB/127. Activations stay floats here.

use crate::base::Bytes;
use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Dtype, Tensor};
use crate::model::Linear;
use crate::model::source::Stem;
use crate::quant::{FP4_TABLE, Format, NF4_TABLE};

use super::grouped::{BLOCK, Floats, Grouped, Integer, Shape, integers, matrix};
use super::{Form, Kind};

pub(super) const KIND: Kind = Kind { method: "bitsandbytes", read };

/// Values of a scale in 8 bits.
const NESTED: usize = 256;

#[derive(Debug)]
struct BitsAndBytes;

fn read(_checkpoint: &Checkpoint, settings: &Config) -> Result<Box<dyn Form>> {
    // What stands here tells how to compute; how the weights are stored is said beside each of them.
    for key in ["load_in_4bit", "load_in_8bit"] {
        settings.bool(key)?;
    }
    Ok(Box::new(BitsAndBytes))
}

impl Form for BitsAndBytes {
    fn linear(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>> {
        let (n, k) = (rows as usize, cols as usize);
        if let Some(scales) = stem.get(".SCB") {
            return eight_bits(stem, scales, n, k).map(Some);
        }
        let kinds = [("nf4", Format::NF4, &NF4_TABLE), ("fp4", Format::FP4, &FP4_TABLE)];
        for (name, format, table) in kinds {
            if let Some(state) = stem.get(&format!(".weight.quant_state.bitsandbytes__{name}")) {
                let state = State::read(state, name, n, k)?;
                check_table(stem.tensor(".weight.quant_map")?, table)?;
                return four_bits(stem, &state, format, n, k).map(Some);
            }
        }
        match stem.get(".weight.absmax") {
            Some(scales) => Err(scales.refuse("no weight.quant_state of nf4 or fp4 stands beside it")),
            None => Ok(None),
        }
    }
}

/// What stands beside a matrix of 4 bits.
struct State {
    /// Elements of a run.
    block: usize,
    /// Scales of a run, and what is added to them.
    nested: Option<(usize, f32)>,
}

impl State {
    fn read(tensor: &Tensor, name: &str, n: usize, k: usize) -> Result<Self> {
        let bytes = integers(tensor, &[Integer::U8], &[tensor.bytes.len()])?;
        let config = Config::parse(&bytes).map_err(|error| tensor.locate(error))?;
        let read = || {
            let refuse = |what: String| Err(Error::bad_file(what));
            if let Some(kind) = config.text("quant_type")?.filter(|&kind| kind != name) {
                return refuse(format!("the quant_type is {kind:?}"));
            }
            let shape = config.array("shape")?.unwrap_or(&[]);
            if !shape.iter().map(serde_json::Value::as_u64).eq([Some(n as u64), Some(k as u64)]) {
                return refuse(format!("the shape is {shape:?}, where [{n}, {k}] belongs"));
            }
            let block = config.u32("blocksize")?.unwrap_or(0) as usize;
            if !block.is_power_of_two() || !(32..=4096).contains(&block) {
                return refuse(format!(
                    "the blocksize is {block}, where a power of two from 32 to 4096 belongs"
                ));
            }
            let nested = match config.u32("nested_blocksize")? {
                None => None,
                Some(0) => return refuse("the nested_blocksize is 0".to_owned()),
                Some(scales) => {
                    let offset = config.float("nested_offset")?.unwrap_or(0.0) as f32;
                    if !offset.is_finite() {
                        return refuse(format!("the nested_offset is {offset}"));
                    }
                    Some((scales as usize, offset))
                }
            };
            Ok(Self { block, nested })
        };
        read().map_err(|error: Error| tensor.locate(error))
    }
}

/// Refuses a table that is not ours.
fn check_table(tensor: &Tensor, table: &[f32; 16]) -> Result<()> {
    let values = Floats::flat(tensor, table.len())?;
    match table.iter().enumerate().find(|&(code, &value)| values.get(code) != value) {
        Some((code, value)) => {
            let what = format!("code {code} stands for {}, where {value} belongs", values.get(code));
            Err(tensor.locate(Error::unsupported(what)))
        }
        None => Ok(()),
    }
}

fn four_bits(stem: &Stem<'_>, state: &State, format: Format, n: usize, k: usize) -> Result<Linear> {
    let tensor = stem.tensor(".weight")?;
    let is_storage = match tensor.dtype {
        Dtype::Format(format) => format.block_len() == 1,
        Dtype::Other(dtype) => matches!(dtype, Integer::U8 | Integer::I8),
    };
    let elements = n.checked_mul(k).filter(|elements| elements.is_multiple_of(2));
    if !is_storage || elements.is_none_or(|elements| tensor.bytes.len() != elements / 2) {
        let what = format!("{} bytes, where {n} by {k} nibbles belong", tensor.bytes.len());
        return Err(tensor.refuse(what));
    }
    let scales = stem.tensor(".weight.absmax")?;
    let count = (n * k).div_ceil(state.block);
    let scales = match state.nested {
        None => Scales::Plain(Floats::flat(scales, count)?),
        Some((run, offset)) => Scales::Nested {
            codes: integers(scales, &[Integer::U8], &[count])?,
            map: Floats::flat(stem.tensor(".weight.nested_quant_map")?, NESTED)?,
            factors: Floats::flat(stem.tensor(".weight.nested_absmax")?, count.div_ceil(run))?,
            run,
            offset,
        },
    };
    if let Some(index) = (0..count).find(|&index| !scales.get(index).is_finite()) {
        return Err(tensor.refuse(format!("scale {index} is {}", scales.get(index))));
    }
    // Runs have whole blocks of 32, but may begin anywhere in a row; else each element looks for its own scale.
    let group = if k.is_multiple_of(BLOCK) { BLOCK } else { 1 };
    let nibbles = Nibbles { bytes: tensor.bytes.clone(), cols: k, group, block: state.block, scales };
    let shape = Shape { rows: n, cols: k, group, format };
    Ok(Linear::plain(matrix(stem.name(), shape, nibbles)?))
}

/// Nibbles of a whole matrix, the high one first.
#[derive(Debug)]
struct Nibbles {
    bytes: Bytes,
    cols: usize,
    group: usize,
    block: usize,
    scales: Scales,
}

#[derive(Debug)]
enum Scales {
    Plain(Floats),
    Nested { codes: Bytes, map: Floats, factors: Floats, run: usize, offset: f32 },
}

impl Scales {
    fn get(&self, index: usize) -> f32 {
        match self {
            Self::Plain(scales) => scales.get(index),
            Self::Nested { codes, map, factors, run, offset } => {
                map.get(usize::from(codes[index])) * factors.get(index / run) + offset
            }
        }
    }
}

impl Grouped for Nibbles {
    fn codes(&self, row: usize, codes: &mut [u8]) {
        for (element, code) in (row * self.cols..).zip(codes) {
            let byte = self.bytes[element / 2];
            *code = if element.is_multiple_of(2) { byte >> 4 } else { byte & 15 };
        }
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        self.scales.get((row * self.cols + group * self.group) / self.block)
    }

    fn zero(&self, _row: usize, _group: usize) -> f32 {
        0.0
    }

    fn release(&self) {
        self.bytes.release();
    }
}

fn eight_bits(stem: &Stem<'_>, scales: &Tensor, n: usize, k: usize) -> Result<Linear> {
    let weights = integers(stem.tensor(".weight")?, &[Integer::I8], &[n, k])?;
    if let Some(layout) =
        stem.get(".weight_format").filter(|layout| layout.bytes.iter().any(|&byte| byte != 0))
    {
        let what = format!("the order of elements {:?} is not supported", &*layout.bytes);
        return Err(layout.locate(Error::unsupported(what).hint("0, rows, is")));
    }
    let codes = SignedRows { weights, scales: Floats::flat(scales, n)?, cols: k };
    let shape = Shape { rows: n, cols: k, group: k, format: Format::I8 };
    Ok(Linear::plain(matrix(stem.name(), shape, codes)?))
}

/// Signed bytes, and the largest magnitude of each row.
#[derive(Debug)]
struct SignedRows {
    weights: Bytes,
    scales: Floats,
    cols: usize,
}

impl Grouped for SignedRows {
    fn codes(&self, row: usize, codes: &mut [u8]) {
        let bytes = &self.weights[row * self.cols..][..self.cols];
        codes.iter_mut().zip(bytes).for_each(|(code, byte)| *code = byte ^ 128);
    }

    fn scale(&self, row: usize, _group: usize) -> f32 {
        self.scales.get(row) / 127.0
    }

    fn zero(&self, _row: usize, _group: usize) -> f32 {
        128.0
    }

    fn release(&self) {
        self.weights.release();
    }
}
