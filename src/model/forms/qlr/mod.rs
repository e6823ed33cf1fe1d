//! `qlr`, this project's neutral layout of compressed linears in safetensors: y = post(Q · pre(x) + scale · L (R · pre(x))) +
//! bias with Q, L and R each in a codec, and transforms of the input and the output. What CALDERA makes (Saha et al. 2024,
//! arXiv 2405.18886) stands in it, and so can whatever else is made of these parts. `docs/qlr.md` specifies it.

mod lattice;
mod settings;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Dtype, Tensor};
use crate::kernel::hadamard::paley;
use crate::model::source::{Stem, check_shape, vector};
use crate::model::{Hadamard, Linear, Side, Transform};
use crate::quant::{Format, Matrix};

use self::settings::{Codec, Coding, LowRank, Settings, Step, Zero};
use super::grouped::{Floats, Grouped, Shape, Words, matrix, whole, words};
use super::{Form, Kind};

pub(super) const KIND: Kind = Kind { method: "qlr", read };

/// Rows of the table of a Hadamard transform.
const MOST_ROWS_OF_A_TABLE: u32 = 512;

#[derive(Debug)]
struct Qlr(Settings);

fn read(_checkpoint: &Checkpoint, settings: &Config) -> Result<Box<dyn Form>> {
    Ok(Box::new(Qlr(Settings::read(settings)?)))
}

impl Form for Qlr {
    fn linear(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>> {
        let spec = self.0.of(stem.name());
        if stem.get(&format!(".base{}", spec.base.codec.ending())).is_none() {
            return Ok(None);
        }
        let (base, scale) = coded(stem, ".base", rows, cols, spec.base)?;
        let mut side = match &spec.path {
            Some(path) => vec![low_rank(stem, path, rows, cols)?],
            None => Vec::new(),
        };
        let mut post = transforms(stem, "post", &spec.post, rows)?;
        if scale != 1.0 {
            // Behind the sum, so that the base keeps its whole numbers.
            side.iter_mut().for_each(|side| side.scale /= scale);
            scale_first(&mut post, scale, rows as usize);
        }
        let pre = transforms(stem, "pre", &spec.pre, cols)?;
        Ok(Some(Linear { pre, side, post, ..Linear::plain(base) }))
    }
}

fn low_rank(stem: &Stem<'_>, path: &LowRank, rows: u32, cols: u32) -> Result<Side> {
    let (down, down_scale) = coded(stem, ".lr.r", path.rank, cols, path.r)?;
    let (up, up_scale) = coded(stem, ".lr.l", path.rank, rows, path.l)?;
    Ok(Side { down, up: transposed(&up)?, scale: path.scale * down_scale * up_scale })
}

/// A matrix, and what is to be multiplied by after it.
fn coded(stem: &Stem<'_>, part: &str, rows: u32, cols: u32, coding: Coding) -> Result<(Matrix, f32)> {
    let tensor = |ending: &str| stem.tensor(&format!("{part}{ending}"));
    let numbers = tensor(coding.codec.ending())?;
    let (n, k) = (rows as usize, cols as usize);
    match coding.codec {
        Codec::Floats => {
            check_shape(numbers, &[rows, cols])?;
            Ok((stored(numbers, numbers.format()?, n, k)?, 1.0))
        }
        Codec::Blocks(format) => {
            let row_bytes = format.row_bytes(k).and_then(|bytes| u32::try_from(bytes).ok());
            let Some(row_bytes) = row_bytes.filter(|_| is_bytes(numbers)) else {
                return Err(numbers.refuse(format!("these are not the bytes of {cols} columns in {format}")));
            };
            check_shape(numbers, &[rows, row_bytes])?;
            Ok((stored(numbers, format, n, k)?, 1.0))
        }
        Codec::Lattice => {
            let scale = tensor(".scales")?;
            let value = vector(scale, 1)?[0];
            if value == 0.0 {
                return Err(scale.refuse("0 cannot be the scale of a lattice"));
            }
            Ok((lattice::matrix(numbers, tensor(".table")?, n, k)?, value))
        }
        Codec::Whole(bits) => {
            let group = coding.group.unwrap_or(cols).min(cols) as usize;
            if group == 0 || !k.is_multiple_of(group) || !k.is_multiple_of(32) {
                return Err(
                    numbers.refuse(format!("groups of {group} and whole words do not fit {k} columns"))
                );
            }
            let groups = cols / group as u32;
            let floats = |tensor: &Tensor| {
                if tensor.dims != [1] {
                    check_shape(tensor, &[rows, groups])?;
                }
                Floats::flat(tensor, tensor.dims.iter().product::<u64>() as usize)
            };
            let zeros = match coding.zero {
                Zero::Middle => Zeros::Middle,
                Zero::Min => {
                    let mins = tensor(".mins")?;
                    check_shape(mins, &[rows, groups])?;
                    Zeros::Mins(floats(mins)?)
                }
                Zero::Point => points(tensor(".zeros")?, rows, groups)?,
            };
            let codes = Codes {
                bits,
                groups: groups as usize,
                numbers: words(numbers, [n, k * bits as usize / 32])?,
                is_one_scale: tensor(".scales")?.dims == [1],
                scales: floats(tensor(".scales")?)?,
                zeros,
            };
            let pairs = || (0..n).flat_map(|row| (0..groups as usize).map(move |group| (row, group)));
            if let Some((row, group)) = pairs().find(|&(row, group)| !codes.zero(row, group).is_finite()) {
                return Err(numbers.refuse(format!("row {row} has no zero point in group {group}")));
            }
            let is_symmetric = matches!(codes.zeros, Zeros::Middle);
            let format = whole(bits, is_symmetric, codes.scales.are_halves());
            let shape = Shape { rows: n, cols: k, group, format };
            Ok((matrix(&numbers.name, shape, codes)?, 1.0))
        }
    }
}

fn stored(tensor: &Tensor, format: Format, rows: usize, cols: usize) -> Result<Matrix> {
    Matrix::new(&tensor.name, format, rows, cols, tensor.bytes.clone())
        .map_err(|error| error.at_offset(tensor.offset).in_file(&tensor.file))
}

fn is_bytes(tensor: &Tensor) -> bool {
    tensor.dtype == Dtype::Other(safetensors::Dtype::U8)
}

fn points(tensor: &Tensor, rows: u32, groups: u32) -> Result<Zeros> {
    check_shape(tensor, &[rows, groups])?;
    match is_bytes(tensor) {
        true => Ok(Zeros::Bytes(tensor.clone())),
        false => Ok(Zeros::Floats(Floats::flat(tensor, rows as usize * groups as usize)?)),
    }
}

/// L, of which the file has the transpose. It is small: nothing is lost by a copy.
fn transposed(matrix: &Matrix) -> Result<Matrix> {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let mut values = vec![0.0; rows * cols];
    let mut row = vec![0.0; cols];
    for r in 0..rows {
        matrix.decode_row(r, &mut row);
        row.iter().zip(values.iter_mut().skip(r).step_by(rows)).for_each(|(value, to)| *to = *value);
    }
    let format = match matrix.format() {
        format if format.block_len() == 1 => format,
        Format::E8P if rows.is_multiple_of(Format::E8P.block_len()) => Format::E8P,
        _ => Format::F32,
    };
    Matrix::new(matrix.name(), format, cols, rows, format.encode(&values).into())
}

/// The transforms of one side, which has `width` elements.
fn transforms(stem: &Stem<'_>, side: &str, steps: &[Step], width: u32) -> Result<Vec<Transform>> {
    let tensor = |name: &str| stem.tensor(&format!(".{side}.{name}"));
    let transform = |step: &Step| match step {
        Step::Mul(name) => Ok(Transform::Scale(vector(tensor(name)?, width)?.into())),
        Step::Perm(name) => {
            let order = tensor(name)?;
            check_shape(order, &[width])?;
            let flat = Tensor { dims: vec![1, u64::from(width)], ..order.clone() };
            let order = words(&flat, [1, width as usize])?;
            Ok(Transform::Gather((0..width as usize).map(|at| order.get(0, at)).collect()))
        }
        Step::Had(size) => {
            let table = stem.get(&format!(".{side}.had_table"));
            Ok(Transform::Hadamard(hadamard(size.unwrap_or(width), table)?))
        }
    };
    steps.iter().map(transform).collect()
}

/// The transform of blocks of `block` elements over the table of the file, or the least of Paley's that fits.
fn hadamard(block: u32, table: Option<&Tensor>) -> Result<Hadamard> {
    if let Some(tensor) = table {
        let order = tensor.dims.first().copied().unwrap_or(0).min(u64::from(MOST_ROWS_OF_A_TABLE)) as u32;
        check_shape(tensor, &[order, order])?;
        let flat = Tensor { dims: vec![u64::from(order * order)], ..tensor.clone() };
        let table = vector(&flat, order * order)?;
        return match table.iter().all(|sign| sign.abs() == 1.0) {
            true => Ok(Hadamard { block, order, table: table.into() }),
            false => Err(tensor.refuse("a Hadamard matrix is of 1 and -1")),
        };
    }
    if block.is_power_of_two() {
        return Ok(Hadamard::power_of_two(block));
    }
    let odd = block >> block.trailing_zeros();
    let orders = (2..=block.trailing_zeros()).map(|twos| odd << twos);
    let order = orders.filter(|&order| order <= MOST_ROWS_OF_A_TABLE).find(|order| is_prime(order - 1));
    let Some(order) = order else {
        return Err(Error::unsupported(format!("no Hadamard transform of {block} elements is known"))
            .hint("the file can bring its table as had_table"));
    };
    Ok(Hadamard { block, order, table: paley(order as usize).into() })
}

fn is_prime(n: u32) -> bool {
    n > 1 && (2..n).take_while(|divisor| divisor * divisor <= n).all(|divisor| !n.is_multiple_of(divisor))
}

/// Multiplies the input of `post` by `scale`: in the first factors of its own, which the transforms before let through.
fn scale_first(post: &mut Vec<Transform>, scale: f32, width: usize) {
    let gains = post.iter_mut().find_map(|transform| match transform {
        Transform::Scale(gains) => Some(gains),
        Transform::Gather(_) | Transform::Hadamard(_) => None,
    });
    match gains {
        Some(gains) => *gains = gains.iter().map(|gain| gain * scale).collect(),
        None => post.insert(0, Transform::Scale(Arc::from(vec![scale; width]))),
    }
}

/// Whole numbers with scales and zero points.
#[derive(Debug)]
struct Codes {
    bits: u32,
    groups: usize,
    numbers: Words,
    scales: Floats,
    is_one_scale: bool,
    zeros: Zeros,
}

#[derive(Debug)]
enum Zeros {
    Middle,
    Mins(Floats),
    Bytes(Tensor),
    Floats(Floats),
}

impl Codes {
    fn own_scale(&self, row: usize, group: usize) -> f32 {
        self.scales.get(if self.is_one_scale { 0 } else { row * self.groups + group })
    }

    /// Whether all elements of a group are its minimum: it becomes their zero point then, with a scale of 1.
    fn is_flat(&self, row: usize, group: usize) -> bool {
        matches!(self.zeros, Zeros::Mins(_)) && self.own_scale(row, group) == 0.0
    }
}

impl Grouped for Codes {
    fn codes(&self, row: usize, codes: &mut [u8]) {
        let fields = (32 / self.bits) as usize;
        for (word, codes) in codes.chunks_exact_mut(fields).enumerate() {
            let word = self.numbers.get(row, word);
            for (at, code) in (0..).zip(codes) {
                *code = (word >> (at * self.bits)) as u8 & (u8::MAX >> (8 - self.bits));
            }
        }
        let group = codes.len() / self.groups;
        let flat = codes.chunks_exact_mut(group).enumerate().filter(|(group, _)| self.is_flat(row, *group));
        flat.for_each(|(_, codes)| codes.fill(0));
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        if self.is_flat(row, group) { 1.0 } else { self.own_scale(row, group) }
    }

    fn zero(&self, row: usize, group: usize) -> f32 {
        let at = row * self.groups + group;
        match &self.zeros {
            Zeros::Middle => (1 << (self.bits - 1)) as f32,
            Zeros::Mins(mins) => -mins.get(at) / self.scale(row, group),
            Zeros::Bytes(bytes) => f32::from(bytes.bytes[at]),
            Zeros::Floats(zeros) => zeros.get(at),
        }
    }

    fn release(&self) {
        self.numbers.release();
    }
}
