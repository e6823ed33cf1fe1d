//! GGUF, versions 2 and 3, little-endian. Layout: ggml's `docs/gguf.md`.
//!
//! Header (magic, version, counts), metadata, tensor descriptions, padding, data. Every count is checked
//! against the bytes that remain before anything is allocated, and the data must lie as writers lay it: each
//! tensor where the one before it ends, rounded up to the alignment. A file whose offsets say otherwise
//! would be read wrongly without a sign. A model may be split over files ([`split`]).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::base::Bytes;
use crate::error::{Error, Result};
use crate::quant::Format;

use super::checkpoint::format_names;
use super::{Array, Checkpoint, Container, Dialect, Dtype, Files, Metadata, Tensor, Value, split};

pub(super) const CONTAINER: Container = Container {
    name: "GGUF",
    extension: "gguf",
    entries: &[],
    sniff: |_, bytes| bytes.starts_with(MAGIC),
    open,
};

const MAGIC: &[u8; 4] = b"GGUF";
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
const MAX_DIMS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;
/// Bytes of a key or a tensor name; the specification's limit for keys.
const MAX_NAME: u64 = 65_535;
/// Elements of a metadata array. The largest vocabulary known has some 2^18.
const MAX_ARRAY: u64 = 1 << 23;
/// An empty key, a value type and a value of one byte.
const MIN_ENTRY_BYTES: u64 = 8 + 4 + 1;
/// An empty name, no dimensions, a type and an offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;

/// ggml's types by their number, so that an unsupported one can be named. `-` where a number was never used.
const TYPE_NAMES: &[&str] = &[
    "F32",
    "F16",
    "Q4_0",
    "Q4_1",
    "Q4_2 (removed)",
    "Q4_3 (removed)",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q8_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "Q8_K",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ3_XXS",
    "IQ1_S",
    "IQ4_NL",
    "IQ3_S",
    "IQ2_S",
    "IQ4_XS",
    "I8",
    "I16",
    "I32",
    "I64",
    "F64",
    "IQ1_M",
    "BF16",
    "Q4_0_4_4 (removed)",
    "Q4_0_4_8 (removed)",
    "Q4_0_8_8 (removed)",
    "TQ1_0",
    "TQ2_0",
    "IQ4_NL_4_4 (removed)",
    "IQ4_NL_4_8 (removed)",
    "IQ4_NL_8_8 (removed)",
    "MXFP4",
    "NVFP4",
    "Q1_0",
    "Q2_0",
];

fn open(files: &Files, path: &Path, bytes: Bytes) -> Result<Checkpoint> {
    let (metadata, mut tensors) = read(path, &bytes)?;
    split::gather(files, path, &metadata, &mut tensors, read)?;
    Ok(Checkpoint { path: path.to_owned(), dialect: Dialect::Gguf(metadata), tensors })
}

/// Reads one file, which may be a part of a model.
fn read(path: &Path, bytes: &Bytes) -> Result<(Metadata, BTreeMap<String, Tensor>)> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.array()? != *MAGIC {
        return Err(Error::bad_file("the file is not GGUF").at_offset(0));
    }
    check_version(reader.u32()?)?;
    let tensor_count = reader.count(MIN_TENSOR_BYTES, "tensors")?;
    let entry_count = reader.count(MIN_ENTRY_BYTES, "metadata entries")?;
    let mut metadata = Metadata::default();
    for _ in 0..entry_count {
        let start = reader.at;
        let key = reader.name("key")?;
        let value = reader.value().map_err(|error| error.at(key.as_str()))?;
        metadata.insert(key, value).map_err(|error| error.at_offset(start as u64))?;
    }
    let alignment = alignment(&metadata)?;
    let mut descriptions = Vec::new();
    for _ in 0..tensor_count {
        descriptions.push(reader.description()?);
    }
    let tensors = place(path, bytes, reader.at as u64, alignment, descriptions)?;
    Ok((metadata, tensors))
}

fn check_version(version: u32) -> Result<()> {
    if VERSIONS.contains(&version) {
        return Ok(());
    }
    let what = if VERSIONS.contains(&version.swap_bytes()) {
        format!("big-endian GGUF (version {}) is not supported", version.swap_bytes())
    } else {
        format!("GGUF version {version} is not supported")
    };
    Err(Error::unsupported(what).at_offset(4).hint("convert the model to little-endian GGUF version 3"))
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    let key = "general.alignment";
    let alignment = metadata.u32(key)?.map_or(DEFAULT_ALIGNMENT, u64::from);
    if !alignment.is_power_of_two() {
        return Err(Error::bad_file(format!("the alignment {alignment} is not a power of two")).at(key));
    }
    Ok(alignment)
}

/// A tensor as the file describes it, nothing checked against the data.
struct Description {
    name: String,
    dims: Vec<u64>,
    format: Format,
    offset: u64,
    /// Where the description itself stands.
    at: u64,
}

/// Finds each tensor's bytes. `end` is where the descriptions end.
fn place(
    path: &Path,
    bytes: &Bytes,
    end: u64,
    alignment: u64,
    descriptions: Vec<Description>,
) -> Result<BTreeMap<String, Tensor>> {
    let file: Arc<Path> = path.into();
    let mut tensors = BTreeMap::new();
    let data = end.checked_next_multiple_of(alignment);
    let mut expected = 0u64;
    for Description { name, dims, format, offset, at } in descriptions {
        let refuse = |what: String| Error::bad_file(what).at(format!("tensor {name}")).at_offset(at);
        let size = byte_size(format, &dims).map_err(&refuse)?;
        if offset != expected {
            let aligned = offset.is_multiple_of(alignment);
            let why = if aligned { "" } else { ", and is not a multiple of the alignment" };
            return Err(refuse(format!(
                "the data offset {offset} is not {expected}, where the tensor before ends{why}"
            )));
        }
        let end_of = |start: u64| Some((start, start.checked_add(size)?));
        let range = data.and_then(|data| data.checked_add(offset)).and_then(end_of);
        let inside = |(start, end)| bytes.slice(usize::try_from(start).ok()?..usize::try_from(end).ok()?);
        let Some((start, tensor_bytes)) = range.and_then(|range| Some((range.0, inside(range)?))) else {
            return Err(refuse(format!(
                "{size} bytes at data offset {offset} reach past the end of the file, which has {} bytes",
                bytes.len()
            ))
            .hint("the file is truncated or damaged: download it again"));
        };
        expected = offset
            .checked_add(size)
            .and_then(|end| end.checked_next_multiple_of(alignment))
            .ok_or_else(|| refuse(format!("{size} bytes cannot be rounded up to the alignment")))?;
        if tensors.contains_key(&name) {
            return Err(refuse("the tensor name is there twice".to_owned()));
        }
        let tensor = Tensor {
            name: name.clone(),
            dims,
            dtype: Dtype::Format(format),
            bytes: tensor_bytes,
            file: file.clone(),
            offset: start,
        };
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// The bytes of a tensor with row-major `dims`.
fn byte_size(format: Format, dims: &[u64]) -> Result<u64, String> {
    let Some((&cols, outer)) = dims.split_last() else {
        return Err("the tensor has no dimensions".to_owned());
    };
    if dims.contains(&0) {
        return Err(format!("a dimension of {dims:?} is 0"));
    }
    if !cols.is_multiple_of(format.block_len() as u64) {
        return Err(format!(
            "{cols} columns are not a whole number of {format} blocks of {}",
            format.block_len()
        ));
    }
    usize::try_from(cols)
        .ok()
        .and_then(|cols| format.row_bytes(cols))
        .and_then(|row| outer.iter().try_fold(row as u64, |size, &dim| size.checked_mul(dim)))
        .ok_or_else(|| format!("the dimensions {dims:?} in {format} multiply to more than can be addressed"))
}

/// Reads from the front; whatever it is asked, it stays inside the bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        if count > self.remaining() {
            return Err(Error::bad_file(format!(
                "the file ends where {count} bytes should follow; {} are left",
                self.remaining()
            ))
            .at_offset(self.at as u64)
            .hint("the file is truncated or damaged: download it again"));
        }
        let start = self.at;
        self.at += count as usize;
        Ok(&self.bytes[start..self.at])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of things of at least `min_bytes` each, which must fit in what remains.
    fn count(&mut self, min_bytes: u64, of: &str) -> Result<u64> {
        let at = self.at as u64;
        let count = self.u64()?;
        if count > self.remaining() / min_bytes {
            return Err(Error::bad_file(format!(
                "{count} {of} do not fit in the {} bytes that remain",
                self.remaining()
            ))
            .at_offset(at));
        }
        Ok(count)
    }

    fn string(&mut self) -> Result<String> {
        let length = self.count(1, "bytes of text")?;
        let at = self.at;
        let text = std::str::from_utf8(self.take(length)?).map_err(|error| {
            Error::bad_file("a text is not UTF-8").at_offset((at + error.valid_up_to()) as u64)
        })?;
        Ok(text.to_owned())
    }

    /// A key or the name of a tensor.
    fn name(&mut self, what: &str) -> Result<String> {
        let at = self.at as u64;
        let name = self.string()?;
        if name.is_empty() || name.len() as u64 > MAX_NAME {
            return Err(Error::bad_file(format!(
                "a {what} of {} bytes, where 1 to {MAX_NAME} are allowed",
                name.len()
            ))
            .at_offset(at));
        }
        Ok(name)
    }

    fn value(&mut self) -> Result<Value> {
        let at = self.at as u64;
        Ok(match self.u32()? {
            0 => Value::Unsigned(u64::from(u8::from_le_bytes(self.array()?))),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Unsigned(u64::from(u32::from_le_bytes(self.array()?))),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Bool(self.bool()?),
            8 => Value::Text(self.string()?),
            9 => Value::Array(self.values()?),
            10 => Value::Unsigned(u64::from_le_bytes(self.array()?)),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            kind => return Err(unknown_value_type(kind, at)),
        })
    }

    fn values(&mut self) -> Result<Array> {
        let at = self.at as u64;
        Ok(match self.u32()? {
            0 => Array::Unsigned(self.numbers(|bytes| u64::from(u8::from_le_bytes(bytes)))?),
            1 => Array::Signed(self.numbers(|bytes| i64::from(i8::from_le_bytes(bytes)))?),
            2 => Array::Unsigned(self.numbers(|bytes| u64::from(u16::from_le_bytes(bytes)))?),
            3 => Array::Signed(self.numbers(|bytes| i64::from(i16::from_le_bytes(bytes)))?),
            4 => Array::Unsigned(self.numbers(|bytes| u64::from(u32::from_le_bytes(bytes)))?),
            5 => Array::Signed(self.numbers(|bytes| i64::from(i32::from_le_bytes(bytes)))?),
            6 => Array::Float(self.numbers(|bytes| f64::from(f32::from_le_bytes(bytes)))?),
            7 => {
                let count = self.array_length(1)?;
                Array::Bool((0..count).map(|_| self.bool()).collect::<Result<_>>()?)
            }
            8 => {
                let count = self.array_length(8)?;
                let mut texts = (0..count).map(|_| self.string()).collect::<Result<Vec<_>>>()?;
                // They stay while a vocabulary is made of them.
                texts.shrink_to_fit();
                Array::Text(texts)
            }
            9 => return Err(Error::unsupported("arrays of arrays are not supported").at_offset(at)),
            10 => Array::Unsigned(self.numbers(u64::from_le_bytes)?),
            11 => Array::Signed(self.numbers(i64::from_le_bytes)?),
            12 => Array::Float(self.numbers(f64::from_le_bytes)?),
            kind => return Err(unknown_value_type(kind, at)),
        })
    }

    fn array_length(&mut self, min_bytes: u64) -> Result<u64> {
        let at = self.at as u64;
        let length = self.count(min_bytes, "array elements")?;
        if length > MAX_ARRAY {
            return Err(Error::bad_file(format!(
                "an array of {length} elements; at most {MAX_ARRAY} are allowed"
            ))
            .at_offset(at));
        }
        Ok(length)
    }

    fn numbers<const N: usize, T>(&mut self, read: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
        let length = self.array_length(N as u64)?;
        let (numbers, _) = self.take(length * N as u64)?.as_chunks::<N>();
        Ok(numbers.iter().map(|&bytes| read(bytes)).collect())
    }

    fn bool(&mut self) -> Result<bool> {
        let at = self.at as u64;
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [byte] => Err(Error::bad_file(format!("{byte} is not a boolean")).at_offset(at)),
        }
    }

    fn description(&mut self) -> Result<Description> {
        let at = self.at as u64;
        let name = self.name("tensor name")?;
        let place = format!("tensor {name}");
        let rank = self.u32()?;
        if !(1..=MAX_DIMS).contains(&rank) {
            return Err(Error::bad_file(format!("{rank} dimensions, where 1 to {MAX_DIMS} are allowed"))
                .at(place)
                .at_offset(at));
        }
        // GGUF has the contiguous dimension first.
        let mut dims = (0..rank).map(|_| self.u64()).collect::<Result<Vec<u64>>>()?;
        dims.reverse();
        let id = self.u32()?;
        let format = Format::from_gguf_id(id).ok_or_else(|| {
            let name = usize::try_from(id).ok().and_then(|id| TYPE_NAMES.get(id));
            let what = match name {
                Some(name) => format!("the weight format {name} is not supported"),
                None => format!("the weight format number {id} is unknown"),
            };
            Error::unsupported(what).at(place).at_offset(at).hint(format!("supported are {}", format_names()))
        })?;
        Ok(Description { name, dims, format, offset: self.u64()?, at })
    }
}

fn unknown_value_type(kind: u32, at: u64) -> Error {
    Error::bad_file(format!("the value type {kind} is not one of 0 to 12")).at_offset(at)
}
