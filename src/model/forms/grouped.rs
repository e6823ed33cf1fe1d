//! Matrices of whole codes in groups along K, `w = (q − z)·s`, in whatever order a file has them, to the formats of
//! [`crate::quant`]. Nothing is rounded: scales and zero points stay f32, or f16 where the file has that and needs no more.

use std::fmt;
use std::sync::Arc;

use half::f16;

use crate::error::{Error, Result};
use crate::format::Tensor;
use crate::quant::{Format, Matrix, Rows};

/// Elements of a block of all formats that a matrix can become.
const BLOCK: usize = 32;

/// Codes, scales and zero points, wherever they stand. All indices are inside what the constructor has checked.
pub(super) trait Grouped: fmt::Debug + Send + Sync {
    /// The codes of row `row`, one for each element.
    fn codes(&self, row: usize, codes: &mut [u8]);
    /// s of group `group` of row `row`.
    fn scale(&self, row: usize, group: usize) -> f32;
    /// z of group `group` of row `row`.
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
    /// Bits of a code, 1 to 8.
    pub(super) bits: u32,
    /// Elements of a group; K for one group a row.
    pub(super) group: usize,
    /// Whether every zero point is the middle, 2^(bits − 1).
    pub(super) is_symmetric: bool,
    /// Whether f16 holds every scale.
    pub(super) has_half_scales: bool,
}

impl Shape {
    /// The least format that holds codes, scales and zero points.
    fn format(self) -> Format {
        match (self.bits, self.is_symmetric, self.has_half_scales) {
            (4, true, true) => Format::Q4_0,
            (4, true, false) => Format::I4,
            (8, true, true) => Format::Q8_0,
            (8, true, false) => Format::I8,
            (0..=2, ..) => Format::Z2,
            (3..=4, ..) => Format::Z4,
            _ => Format::Z8,
        }
    }
}

/// The matrix of these codes.
///
/// # Errors
/// [`crate::Kind::Unsupported`] where groups are not whole blocks of 32.
pub(super) fn matrix(name: &str, shape: Shape, grouped: impl Grouped + 'static) -> Result<Matrix> {
    let Shape { rows, cols, group, .. } = shape;
    if !cols.is_multiple_of(BLOCK) || !(group.is_multiple_of(BLOCK) || group == cols) || group == 0 {
        let what = format!("groups of {group} in {cols} columns are not supported");
        return Err(Error::unsupported(what)
            .at(format!("linear {name}"))
            .hint("groups must be multiples of 32"));
    }
    let format = shape.format();
    Matrix::made(name, format, rows, cols, Arc::new(Blocks { shape, format, grouped }))
}

#[derive(Debug)]
struct Blocks<G> {
    shape: Shape,
    format: Format,
    grouped: G,
}

impl<G: Grouped> Rows for Blocks<G> {
    fn write(&self, row: usize, bytes: &mut [u8]) {
        let mut codes = vec![0; self.shape.cols];
        self.grouped.codes(row, &mut codes);
        let blocks =
            codes.as_chunks::<BLOCK>().0.iter().zip(bytes.chunks_exact_mut(self.format.block_bytes()));
        for (block, (codes, bytes)) in blocks.enumerate() {
            let group = block * BLOCK / self.shape.group;
            let scale = self.grouped.scale(row, group);
            let body = match self.format {
                Format::Q4_0 | Format::Q8_0 => put(bytes, f16::from_f32(scale).to_le_bytes()),
                Format::I4 | Format::I8 => put(bytes, scale.to_le_bytes()),
                format => {
                    let middle = if format == Format::Z8 { 128.0 } else { 0.0 };
                    let zero = self.grouped.zero(row, group) - middle;
                    put(put(bytes, scale.to_le_bytes()), zero.to_le_bytes())
                }
            };
            match self.format {
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
    tensor: Tensor,
    format: Format,
}

impl Floats {
    /// A tensor of this many finite elements in F32, F16 or BF16.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] naming the tensor and the element.
    pub(super) fn of(tensor: &Tensor, len: usize) -> Result<Self> {
        let format = tensor.format()?;
        if format.block_len() != 1 || tensor.bytes.len() != len * format.block_bytes() {
            return Err(tensor.refuse(format!("the shape is {:?}, where {len} floats belong", tensor.dims)));
        }
        let floats = Self { tensor: tensor.clone(), format };
        match (0..len).find(|&index| !floats.get(index).is_finite()) {
            Some(index) => Err(tensor.refuse(format!("element {index} is {}", floats.get(index)))),
            None => Ok(floats),
        }
    }

    /// Element `index`.
    pub(super) fn get(&self, index: usize) -> f32 {
        let size = self.format.block_bytes();
        let mut value = [0.0];
        self.format.decode(&self.tensor.bytes[index * size..][..size], &mut value);
        value[0]
    }

    /// Whether f16 holds them.
    pub(super) fn are_halves(&self) -> bool {
        self.format == Format::F16
    }
}

/// The words of a tensor of 32-bit integers of this shape.
///
/// # Errors
/// [`crate::Kind::BadFile`] naming the tensor.
pub(super) fn words(tensor: &Tensor, dims: [usize; 2]) -> Result<Words> {
    use safetensors::Dtype::{I32, U32};
    let is_word = matches!(tensor.dtype, crate::format::Dtype::Other(I32 | U32));
    if !is_word || !tensor.dims.iter().copied().eq(dims.map(|dim| dim as u64)) {
        let what = format!(
            "{:?} of shape {:?}, where 32-bit integers of shape {dims:?} belong",
            tensor.dtype, tensor.dims
        );
        return Err(tensor.refuse(what));
    }
    Ok(Words { tensor: tensor.clone(), cols: dims[1] })
}

/// Words of a checked shape.
#[derive(Clone, Debug)]
pub(super) struct Words {
    tensor: Tensor,
    cols: usize,
}

impl Words {
    /// The word in this row and column.
    pub(super) fn get(&self, row: usize, col: usize) -> u32 {
        let bytes = &self.tensor.bytes[4 * (row * self.cols + col)..];
        u32::from_le_bytes(*bytes.first_chunk().expect("the shape was checked"))
    }

    /// As [`crate::base::Bytes::release`].
    pub(super) fn release(&self) {
        self.tensor.bytes.release();
    }
}
