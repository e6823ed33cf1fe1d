//! How the weights of a matrix are stored: as blocks of a format, or in the tensors that other libraries have for codes.
//!
//! Each coding is a block format whose rows are encoded first, and a way to lay them out: so codes and scales of `int4` are
//! those of Q4_0, and of `int8` those of Q8_0, to the bit.

use std::fmt;

use safetensors::Dtype;

use crate::format::NewSection;
use crate::quant::{Format, NF4_TABLE, encode_nf4_runs};

/// How a matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Blocks.
    Blocks(Format),
    /// Numbers of 4 bits around zero, an f16 scale for each 32: compressed-tensors' `pack-quantized`.
    Int4,
    /// The same of 8 bits.
    Int8,
    /// The quantiles of a normal distribution, an f32 scale for each 64: bitsandbytes.
    Nf4,
}

/// The way of a file to lay codes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Method {
    /// Blocks under the tensor's own name.
    Gguf,
    /// Floats under the tensor's own name.
    Plain,
    /// `quant_method` of this name, as below.
    CompressedTensors,
    BitsAndBytes,
    /// docs/qlr.md.
    Qlr,
}

/// Elements with one scale.
const GROUP: usize = 32;
const NF4_GROUP: usize = 64;

impl Coding {
    /// What has no format in GGUF.
    pub const PACKED: [Self; 3] = [Self::Int4, Self::Int8, Self::Nf4];

    /// Every coding.
    pub fn all() -> impl Iterator<Item = Self> {
        Format::all_in_gguf().map(Self::Blocks).chain(Self::PACKED)
    }

    /// The coding of this name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|coding| coding.name().eq_ignore_ascii_case(name))
    }

    /// The name for users.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocks(format) => format.name(),
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Nf4 => "nf4",
        }
    }

    /// The format of the blocks that rows are encoded to.
    pub(super) fn format(self) -> Format {
        match self {
            Self::Blocks(format) => format,
            Self::Int4 => Format::Q4_0,
            Self::Int8 => Format::Q8_0,
            Self::Nf4 => Format::NF4,
        }
    }

    /// This coding, or where rows of `cols` elements are no whole groups of it, one in which they are.
    pub(super) fn for_columns(self, cols: u64) -> Self {
        match self {
            Self::Blocks(format) => Self::Blocks(format.for_columns(cols)),
            Self::Nf4 if cols.is_multiple_of(NF4_GROUP as u64) => self,
            Self::Int4 | Self::Int8 if cols.is_multiple_of(GROUP as u64) => self,
            _ => Self::Blocks(Format::F16),
        }
    }

    /// Whether elements are floats, one by one.
    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::Blocks(format) if format.block_len() == 1)
    }

    /// Whether elements are floats of 16 bits.
    pub(super) fn is_16_bit(self) -> bool {
        self.is_float() && self.format().block_bytes() == 2
    }

    /// How rows of `cols` elements of a factor of low rank are stored.
    pub(super) fn of_factor(cols: usize) -> Self {
        if cols.is_multiple_of(GROUP) { Self::Int8 } else { Self::Blocks(Format::F16) }
    }

    /// The method of a folder in which this coding is at home.
    pub(super) fn method(self) -> Method {
        match self {
            _ if self.is_float() => Method::Plain,
            Self::Blocks(_) => Method::Qlr,
            Self::Int4 | Self::Int8 => Method::CompressedTensors,
            Self::Nf4 => Method::BitsAndBytes,
        }
    }

    /// Encodes a row to blocks; `importance` is as long as the row, or empty.
    pub(super) fn encode(self, values: &[f32], importance: &[f32], bytes: &mut [u8]) {
        let format = self.format();
        let encoded = match self {
            Self::Nf4 => return encode_nf4_runs(values, importance, NF4_GROUP, bytes),
            _ if importance.is_empty() => format.encode(values),
            _ => format.encode_weighted(values, importance),
        };
        bytes.copy_from_slice(&encoded);
    }

    /// The tensors of a matrix called `name`; those with [`Self::constants`] come first.
    pub(super) fn sections(self, method: Method, name: &str, rows: usize, cols: usize) -> Vec<NewSection> {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        let section = |ending: &str, dtype, dims: &[usize]| NewSection {
            name: format!("{stem}{ending}"),
            dtype,
            dims: dims.iter().map(|&dim| dim as u64).collect(),
        };
        let words = |bits: usize| cols * bits / 32;
        let float = |dtype| vec![NewSection { name: name.to_owned(), ..section("", dtype, &[rows, cols]) }];
        match (self, method) {
            (Self::Int4 | Self::Int8, Method::Qlr) => vec![
                section(".codes", Dtype::U32, &[rows, words(self.bits())]),
                section(".scales", Dtype::F16, &[rows, cols / GROUP]),
            ],
            (Self::Int4 | Self::Int8, _) => vec![
                section(".weight_shape", Dtype::I64, &[2]),
                section(".weight_packed", Dtype::I32, &[rows, words(self.bits())]),
                section(".weight_scale", Dtype::F16, &[rows, cols / GROUP]),
            ],
            (Self::Nf4, _) => vec![
                section(".weight.quant_map", Dtype::F32, &[NF4_TABLE.len()]),
                section(".weight.quant_state.bitsandbytes__nf4", Dtype::U8, &[nf4_state(rows, cols).len()]),
                section(".weight.absmax", Dtype::F32, &[rows * cols / NF4_GROUP]),
                section(".weight", Dtype::U8, &[rows * cols / 2, 1]),
            ],
            (Self::Blocks(Format::F64), _) => float(Dtype::F64),
            (Self::Blocks(Format::F32), _) => float(Dtype::F32),
            (Self::Blocks(Format::F16), _) => float(Dtype::F16),
            (Self::Blocks(Format::BF16), _) => float(Dtype::BF16),
            (Self::Blocks(format), _) => {
                let row_bytes = cols / format.block_len() * format.block_bytes();
                vec![section(".blocks", Dtype::U8, &[rows, row_bytes])]
            }
        }
    }

    /// What stands in the sections whole, whatever the weights: those come first.
    pub(super) fn constants(self, method: Method, rows: usize, cols: usize) -> Vec<Vec<u8>> {
        match (self, method) {
            (Self::Int4 | Self::Int8, Method::Qlr) => Vec::new(),
            (Self::Int4 | Self::Int8, _) => {
                vec![[rows as u64, cols as u64].iter().flat_map(|dim| dim.to_le_bytes()).collect()]
            }
            (Self::Nf4, _) => {
                vec![NF4_TABLE.iter().flat_map(|v| v.to_le_bytes()).collect(), nf4_state(rows, cols)]
            }
            _ => Vec::new(),
        }
    }

    /// What whole blocks add to the other sections.
    pub(super) fn split(self, blocks: &[u8]) -> Vec<Vec<u8>> {
        let format = self.format();
        let blocks_of = || blocks.chunks_exact(format.block_bytes());
        match self {
            Self::Blocks(_) => vec![blocks.to_vec()],
            Self::Int4 => vec![
                blocks_of().flat_map(|block| in_order(&block[2..])).collect(),
                blocks_of().flat_map(|block| [block[0], block[1]]).collect(),
            ],
            Self::Int8 => vec![
                blocks_of().flat_map(|block| block[2..].iter().map(|code| code ^ 0x80)).collect(),
                blocks_of().flat_map(|block| [block[0], block[1]]).collect(),
            ],
            Self::Nf4 => {
                let high_first = |byte: u8| byte.rotate_left(4);
                let firsts = blocks_of().step_by(NF4_GROUP / format.block_len());
                vec![
                    firsts.flat_map(|block| [block[0], block[1], block[2], block[3]]).collect(),
                    blocks_of().flat_map(|block| in_order(&block[4..]).map(high_first)).collect(),
                ]
            }
        }
    }

    /// Bits of a whole number.
    pub(super) fn bits(self) -> usize {
        if self == Self::Int8 { 8 } else { 4 }
    }
}

impl From<Format> for Coding {
    fn from(format: Format) -> Self {
        Self::Blocks(format)
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The nibbles of a block, element j in the low half of byte j and j + 16 in its high half, as neighbours.
fn in_order(nibbles: &[u8]) -> impl Iterator<Item = u8> {
    let element = |j: usize| if j < 16 { nibbles[j] & 15 } else { nibbles[j - 16] >> 4 };
    (0..16).map(move |pair| element(2 * pair) | element(2 * pair + 1) << 4)
}

/// What bitsandbytes says of a matrix of 4 bits; spaces keep the tensors behind it aligned.
fn nf4_state(rows: usize, cols: usize) -> Vec<u8> {
    let state = serde_json::json!({
        "quant_type": "nf4", "blocksize": NF4_GROUP, "dtype": "float16", "shape": [rows, cols],
    });
    let mut state = state.to_string().into_bytes();
    state.resize(state.len().next_multiple_of(8), b' ');
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Seed;

    #[test]
    fn codes_stand_as_their_libraries_have_them() {
        let values = Seed::new(3).vector(128, 1.0);
        let encoded = |coding: Coding| {
            let format = coding.format();
            let mut bytes = vec![0; format.row_bytes(128).unwrap()];
            coding.encode(&values, &[], &mut bytes);
            let mut back = vec![0.0; 128];
            format.decode(&bytes, &mut back);
            (coding.split(&bytes), back)
        };
        let half =
            |bytes: &[u8], at: usize| half::f16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]).to_f32();
        let (int4, back) = encoded(Coding::Int4);
        let (int8, fine) = encoded(Coding::Int8);
        let (nf4, normal) = encoded(Coding::Nf4);
        for k in 0..128 {
            let code = f32::from(int4[0][k / 2] >> (4 * (k % 2)) & 15) - 8.0;
            assert_eq!(code * half(&int4[1], k / 32), back[k], "int4 {k}");
            assert_eq!((f32::from(int8[0][k]) - 128.0) * half(&int8[1], k / 32), fine[k], "int8 {k}");
            let scale = f32::from_le_bytes(nf4[0][k / 64 * 4..][..4].try_into().unwrap());
            let code = nf4[1][k / 2] >> (4 - 4 * (k % 2)) & 15;
            assert_eq!(NF4_TABLE[usize::from(code)] * scale, normal[k], "nf4 {k}");
            for (value, most) in [(back[k], 0.14), (fine[k], 0.01), (normal[k], 0.2)] {
                assert!((value - values[k]).abs() < most, "{value} {}", values[k]);
            }
        }
    }

    #[test]
    fn every_section_is_as_long_as_what_is_written() {
        for coding in Coding::all() {
            for method in [Method::Qlr, coding.method()] {
                let (rows, cols) = (3, 256);
                let blocks = vec![0; rows * coding.format().row_bytes(cols).unwrap()];
                let written = coding.constants(method, rows, cols).into_iter().chain(coding.split(&blocks));
                let sizes: Vec<u64> = written.map(|bytes| bytes.len() as u64).collect();
                let bits = |section: &NewSection| {
                    section.dtype.bitsize() as u64 * section.dims.iter().product::<u64>()
                };
                let sections = coding.sections(method, "a.weight", rows, cols);
                let expected: Vec<u64> = sections.iter().map(|section| bits(section) / 8).collect();
                assert_eq!(sizes, expected, "{coding} {method:?}");
            }
        }
    }
}
