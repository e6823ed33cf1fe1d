//! Matrices of whole codes in groups along K, `w = (q − z)·s`, in whatever order a file has them, to the formats of
//! [`crate::quant`]. Nothing is rounded: scales and zero points stay f32, or f16 where the file has that and needs no more.

use std::fmt;
use std::sync::Arc;

use half::f16;
pub(super) use safetensors::Dtype as Integer;

use crate::base::Bytes;
use crate::error::Result;
use crate::format::{Dtype, Tensor};
use crate::quant::{FP4_TABLE, Format, Matrix, NF4_TABLE, Rows};

/// Elements of a block of all formats that a matrix can become.
pub(super) const BLOCK: usize = 32;

/// Codes, scales and zero points, wherever they stand. All indices are inside what the constructor has checked.
pub(super) trait Grouped: fmt::Debug + Send + Sync {
    /// The codes of row `row`, one for each element.
    fn codes(&self, row: usize, codes: &mut [u8]);
    /// s of group `group` of row `row`.
    fn scale(&self, row: usize, group: usize) -> f32;
    /// z of group `group` of row `row`; the middle where every z is.
    fn zero(&self, row: usize, group: usize) -> f32;
    /// As [`crate::base::Bytes::release`].
    fn release(&self);
}

/// What is known of a matrix in groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Outputs.
    pub(super) rows: usize,
    /// Inputs, K.
    pub(super) cols: usize,
    /// Elements of a group; K for one group a row.
    pub(super) group: usize,
    /// What holds the codes, of those below and the tables.
    pub(super) format: Format,
}

/// The least format that holds codes of `bits` bits, 1 to 8: without zero points where all of them are the middle,
/// 2^(bits − 1), and with scales in f16 where that holds every scale.
pub(super) fn whole(bits: u32, is_symmetric: bool, has_half_scales: bool) -> Format {
    match (bits, is_symmetric, has_half_scales) {
        (4, true, true) => Format::Q4_0,
        (4, true, false) => Format::I4,
        (8, true, true) => Format::Q8_0,
        (8, true, false) => Format::I8,
        (0..=2, ..) => Format::Z2,
        (3..=4, ..) => Format::Z4,
        _ => Format::Z8,
    }
}

/// The matrix of these codes. Groups that are not whole blocks of 32 become F32: what they take is the price of files
/// that few write.
pub(super) fn matrix(name: &str, shape: Shape, grouped: impl Grouped + 'static) -> Result<Matrix> {
    let Shape { rows, cols, group, format } = shape;
    let has_blocks = cols.is_multiple_of(BLOCK) && group.is_multiple_of(BLOCK);
    let made = if has_blocks { format } else { Format::F32 };
    Matrix::made(name, made, rows, cols, Arc::new(Blocks { shape, made, grouped }))
}

/// Elements of a group where the settings name this many; `None` is one group a row.
///
/// # Errors
/// [`crate::Kind::BadFile`] where they are none, or do not divide the row.
pub(super) fn group_of(tensor: &Tensor, setting: Option<u32>, cols: usize) -> Result<usize> {
    let group = setting.map_or(cols, |group| cols.min(group as usize));
    match group > 0 && cols.is_multiple_of(group) {
        true => Ok(group),
        false => Err(tensor.refuse(format!("groups of {group} do not divide rows of {cols}"))),
    }
}

#[derive(Debug)]
struct Blocks<G> {
    shape: Shape,
    made: Format,
    grouped: G,
}

impl<G: Grouped> Rows for Blocks<G> {
    fn write(&self, row: usize, bytes: &mut [u8]) {
        let mut codes = vec![0; self.shape.cols];
        self.grouped.codes(row, &mut codes);
        if self.made == Format::F32 {
            let (groups, _) = bytes.as_chunks_mut::<4>();
            let groups = groups.chunks_mut(self.shape.group).zip(codes.chunks(self.shape.group));
            for (group, (bytes, codes)) in groups.enumerate() {
                let (scale, zero) = (self.grouped.scale(row, group), self.grouped.zero(row, group));
                for (bytes, &code) in bytes.iter_mut().zip(codes) {
                    *bytes = (scale * self.value(code, zero)).to_le_bytes();
                }
            }
            return;
        }
        let blocks = codes.as_chunks::<BLOCK>().0.iter().zip(bytes.chunks_exact_mut(self.made.block_bytes()));
        for (block, (codes, bytes)) in blocks.enumerate() {
            let group = block * BLOCK / self.shape.group;
            let scale = self.grouped.scale(row, group);
            let body = match self.made {
                Format::Q4_0 | Format::Q8_0 => put(bytes, f16::from_f32(scale).to_le_bytes()),
                Format::I4 | Format::I8 | Format::NF4 | Format::FP4 => put(bytes, scale.to_le_bytes()),
                format => {
                    let middle = if format == Format::Z8 { 128.0 } else { 0.0 };
                    let zero = self.grouped.zero(row, group) - middle;
                    put(put(bytes, scale.to_le_bytes()), zero.to_le_bytes())
                }
            };
            match self.made {
                Format::Z2 => pack_pairs(codes, body),
                Format::Q8_0 | Format::I8 | Format::Z8 => {
                    body.iter_mut().zip(codes).for_each(|(byte, code)| *byte = code ^ 128);
                }
                _ => pack_nibbles(codes, body),
            }
        }
    }

    fn release(&self) {
        self.grouped.release();
    }
}

impl<G> Blocks<G> {
    /// What a code stands for, at a scale of 1.
    fn value(&self, code: u8, zero: f32) -> f32 {
        match self.shape.format {
            Format::NF4 => NF4_TABLE[usize::from(code & 15)],
            Format::FP4 => FP4_TABLE[usize::from(code & 15)],
            _ => f32::from(code) - zero,
        }
    }
}

/// Writes `head`, and gives what is behind it.
fn put<const N: usize>(bytes: &mut [u8], head: [u8; N]) -> &mut [u8] {
    let (to, rest) = bytes.split_at_mut(N);
    to.copy_from_slice(&head);
    rest
}

/// As in the format `i4`.
fn pack_nibbles(codes: &[u8; BLOCK], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(16);
    bytes.iter_mut().zip(low.iter().zip(high)).for_each(|(byte, (low, high))| *byte = low | high << 4);
}

/// As in the format `z2`.
fn pack_pairs(codes: &[u8; BLOCK], bytes: &mut [u8]) {
    bytes.fill(0);
    for (e, code) in codes.iter().enumerate() {
        bytes[4 * (e / 16) + e % 4] |= code << (2 * (e % 16 / 4));
    }
}

/// Floats of a tensor, read one at a time.
#[derive(Clone, Debug)]
pub(super) struct Floats {
    bytes: Bytes,
    format: Format,
}

impl Floats {
    /// A tensor of this shape, whose elements are finite, in F32, F16 or BF16.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] naming the tensor and the element.
    pub(super) fn of(tensor: &Tensor, dims: &[usize]) -> Result<Self> {
        if !tensor.dims.iter().copied().eq(dims.iter().map(|&dim| dim as u64)) {
            return Err(tensor.refuse(format!("the shape is {:?}, where {dims:?} belongs", tensor.dims)));
        }
        Self::flat(tensor, dims.iter().product())
    }

    /// A tensor of this many elements, whatever their shape.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub(super) fn flat(tensor: &Tensor, len: usize) -> Result<Self> {
        let format = tensor.format()?;
        if format.block_len() != 1 || tensor.bytes.len() != len * format.block_bytes() {
            let is = format!("{format} of shape {:?}", tensor.dims);
            return Err(tensor.refuse(format!("{is}, where {len} floats belong")));
        }
        let floats = Self { bytes: tensor.bytes.clone(), format };
        match (0..len).find(|&index| !floats.get(index).is_finite()) {
            Some(index) => Err(tensor.refuse(format!("element {index} is {}", floats.get(index)))),
            None => Ok(floats),
        }
    }

    /// Element `index`.
    pub(super) fn get(&self, index: usize) -> f32 {
        let size = self.format.block_bytes();
        let mut value = [0.0];
        self.format.decode(&self.bytes[index * size..][..size], &mut value);
        value[0]
    }

    /// Whether f16 holds them.
    pub(super) fn are_halves(&self) -> bool {
        self.format == Format::F16
    }
}

/// Scales of rows, of groups in rows, of blocks, or of the whole matrix.
#[derive(Clone, Debug)]
pub(super) struct Scales {
    floats: Floats,
    /// As the tensor has them.
    pub(super) dims: Vec<usize>,
    /// Rows that share theirs.
    rows: usize,
    /// Groups of a row.
    groups: usize,
    /// Elements of a group.
    pub(super) group: usize,
}

impl Scales {
    /// The scales of `n` by `k` elements: one, `(n)`, `(n, groups)`, or one for each `block` of rows and columns.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] naming the tensor.
    pub(super) fn of(tensor: &Tensor, n: usize, k: usize, block: Option<[usize; 2]>) -> Result<Self> {
        let dims: Vec<usize> =
            tensor.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX)).collect();
        let refuse = || tensor.refuse(format!("the shape {dims:?} does not fit {n} by {k} elements"));
        let (rows, groups, group) = match (dims.as_slice(), block) {
            ([] | [1] | [1, 1], _) => (n, 1, k),
            (&[rows, groups], Some([high, wide])) => {
                let fits = rows == n.div_ceil(high) && groups == k.div_ceil(wide);
                fits.then_some((high, groups, wide)).ok_or_else(refuse)?
            }
            (&[rows], None) if rows == n => (1, 1, k),
            (&[rows, groups], None) if rows == n && groups > 0 && k.is_multiple_of(groups) => {
                (1, groups, k / groups)
            }
            _ => return Err(refuse()),
        };
        let len = dims.iter().product();
        Ok(Self { floats: Floats::flat(tensor, len)?, dims, rows, groups, group })
    }

    /// Which of the scales is that of a group.
    pub(super) fn index(&self, row: usize, group: usize) -> usize {
        row / self.rows * self.groups + group
    }

    /// The scale of a group.
    pub(super) fn get(&self, row: usize, group: usize) -> f32 {
        self.floats.get(self.index(row, group))
    }

    /// Whether f16 holds them.
    pub(super) fn are_halves(&self) -> bool {
        self.floats.are_halves()
    }
}

/// So far from zero, codes add nothing to a value in f32.
const FAR: f32 = 1_099_511_627_776.0;

/// s and z with `(q − z)·s` = `q·scale + least` in f32.
pub(super) fn around_zero(scale: f32, least: f32) -> (f32, f32) {
    let zero = -least / scale;
    if least == 0.0 {
        (scale, 0.0)
    } else if zero.abs() < FAR {
        (scale, zero)
    } else {
        (least / FAR, -FAR)
    }
}

/// The inputs in the order of their groups, which a tensor names for each, or `None` where they stand so.
///
/// # Errors
/// [`crate::Kind::BadFile`] where not each group has `group` inputs.
pub(super) fn order_of_groups(tensor: &Tensor, k: usize, group: usize) -> Result<Option<Vec<u32>>> {
    let bytes = integers(tensor, &[Integer::I32], &[k])?;
    let groups = Words { bytes, cols: k };
    let of = |input: u32| groups.get(0, input as usize);
    let mut order: Vec<u32> = (0..k as u32).collect();
    order.sort_by_key(|&input| of(input));
    if !order.iter().enumerate().all(|(at, &input)| of(input) as usize == at / group) {
        return Err(tensor.refuse(format!("the groups do not hold {group} inputs each")));
    }
    Ok((!order.is_sorted()).then_some(order))
}

/// The words of a tensor of 32-bit integers of this shape.
///
/// # Errors
/// [`crate::Kind::BadFile`] naming the tensor.
pub(super) fn words(tensor: &Tensor, dims: [usize; 2]) -> Result<Words> {
    let bytes = integers(tensor, &[Integer::I32, Integer::U32], &dims)?;
    Ok(Words { bytes, cols: dims[1] })
}

/// The bytes of a tensor of one of these types and this shape.
///
/// # Errors
/// [`crate::Kind::BadFile`] naming the tensor.
pub(super) fn integers(tensor: &Tensor, types: &[Integer], dims: &[usize]) -> Result<Bytes> {
    let fits = matches!(tensor.dtype, Dtype::Other(dtype) if types.contains(&dtype));
    if !fits || !tensor.dims.iter().copied().eq(dims.iter().map(|&dim| dim as u64)) {
        let is = format!("{} of shape {:?}", type_of(tensor), tensor.dims);
        return Err(tensor.refuse(format!("{is}, where {types:?} of shape {dims:?} belongs")));
    }
    Ok(tensor.bytes.clone())
}

/// The name of the type of elements.
pub(super) fn type_of(tensor: &Tensor) -> String {
    match tensor.dtype {
        Dtype::Format(format) => format.to_string(),
        Dtype::Other(dtype) => dtype.to_string(),
    }
}

/// Words of a checked shape.
#[derive(Clone, Debug)]
pub(super) struct Words {
    bytes: Bytes,
    cols: usize,
}

impl Words {
    /// The word in this row and column.
    pub(super) fn get(&self, row: usize, col: usize) -> u32 {
        let bytes = &self.bytes[4 * (row * self.cols + col)..];
        u32::from_le_bytes(*bytes.first_chunk().expect("the shape was checked"))
    }

    /// The words of a row.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = u32> {
        self.all()[row * self.cols..][..self.cols].iter().map(|&bytes| u32::from_le_bytes(bytes))
    }

    /// The words of a column.
    pub(super) fn column(&self, col: usize) -> impl Iterator<Item = u32> {
        // Steps are taken in the slice: a mapped iterator would read what it steps over.
        self.all()[col..].iter().step_by(self.cols).map(|&bytes| u32::from_le_bytes(bytes))
    }

    fn all(&self) -> &[[u8; 4]] {
        self.bytes.as_chunks().0
    }

    /// As [`Bytes::release`].
    pub(super) fn release(&self) {
        self.bytes.release();
    }
}

/// Numbers of `bits` bits, low bits first, that may go on in the next word: as many as `codes` has, each word read once.
pub(super) fn fields(bits: u32, words: impl Iterator<Item = u32>, codes: &mut [u8]) {
    match bits {
        2 => whole_fields::<2>(words, codes),
        4 => whole_fields::<4>(words, codes),
        8 => whole_fields::<8>(words, codes),
        _ => {
            let (mut words, mut run, mut held) = (words, 0, 0);
            for code in codes {
                if held < bits {
                    run |= words.next().map_or(0, u64::from) << held;
                    held += 32;
                }
                *code = (run & ((1 << bits) - 1)) as u8;
                run >>= bits;
                held -= bits;
            }
        }
    }
}

/// The same where none goes on in the next word.
fn whole_fields<const BITS: u32>(words: impl Iterator<Item = u32>, codes: &mut [u8]) {
    for (word, codes) in words.zip(codes.chunks_mut(32 / BITS as usize)) {
        let shifts = (0..32).step_by(BITS as usize);
        codes
            .iter_mut()
            .zip(shifts)
            .for_each(|(code, shift)| *code = (word >> shift & ((1 << BITS) - 1)) as u8);
    }
}

/// Puts the codes of all inputs in the order that `order` names, if any.
pub(super) fn reorder(codes: &mut [u8], order: Option<&[u32]>) {
    let Some(order) = order else { return };
    let stored = codes.to_vec();
    codes.iter_mut().zip(order).for_each(|(code, &input)| *code = stored[input as usize]);
}

/// Number `index` of a run of numbers of `bits` bits, low bits first, that may go on in the next word.
pub(super) fn field(bits: u32, index: usize, word: impl Fn(usize) -> u32) -> u8 {
    let at = index * bits as usize;
    let (first, shift) = (at / 32, at as u32 % 32);
    let mut value = word(first) >> shift;
    if shift + bits > 32 {
        value |= word(first + 1) << (32 - shift);
    }
    (value & ((1 << bits) - 1)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_point_is_as_good_as_a_least_value() {
        let cases = [
            (0.5, -3.0),
            (0.1, 0.7),
            (-0.25, 2.0),
            (0.0, 0.0),
            (0.0, 1.5),
            (0.0, -1.5),
            (1e-30, 4.0),
            (f32::MIN_POSITIVE, f32::MAX),
        ];
        for (scale, least) in cases {
            let (s, z) = around_zero(scale, least);
            for code in [0.0f32, 1.0, 15.0] {
                let (got, due) = ((code - z) * s, code * scale + least);
                let rounding = 2.0 * f32::EPSILON * (due.abs().max(least.abs()));
                assert!((got - due).abs() <= rounding, "{code}·{scale} + {least} is {got}");
            }
        }
    }

    #[test]
    fn numbers_are_read_at_once_as_they_are_one_by_one() {
        let words: Vec<u32> = (1..=24u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
        for bits in 1..=8 {
            let mut codes = vec![0; 24 * 32 / bits as usize];
            fields(bits, words.iter().copied(), &mut codes);
            let due: Vec<u8> = (0..codes.len()).map(|at| field(bits, at, |word| words[word])).collect();
            assert_eq!(codes, due, "{bits} bits");
        }
    }
}
