//! What stands before the data of GGUF version 3 and of safetensors, and writing the former in one pass.
//!
//! Types in GGUF are the ones that its readers insist on: integers of 32 bits where all of them fit, else of 64; floats
//! of 32 bits where that loses nothing.

use std::io::{self, Write};

use safetensors::Dtype;
use serde_json::{Value as Json, json};

use crate::error::{Error, Result};
use crate::quant::Format;

use super::{Array, Metadata, Value};

const ALIGNMENT: u64 = 32;
/// Bytes of a file, so that sums do not wrap.
const MOST: u64 = 1 << 62;
const TOO_LARGE: &str = "the file is larger than can be addressed";

/// A tensor that is to be written.
#[derive(Clone, Debug)]
pub struct NewTensor {
    /// Its name in the file.
    pub name: String,
    /// Row-major: the outermost dimension first, the contiguous one last.
    pub dims: Vec<u64>,
    /// What its elements are.
    pub format: Format,
}

impl NewTensor {
    /// Bytes of its data.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidArgument`] where the rows are not whole blocks or the size cannot be addressed.
    pub fn bytes(&self) -> Result<u64> {
        let bytes = || {
            let (&cols, rows) = self.dims.split_last()?;
            let row = self.format.row_bytes(usize::try_from(cols).ok()?)? as u64;
            rows.iter().try_fold(row, |bytes, &rows| bytes.checked_mul(rows))
        };
        let what = || {
            let len = self.format.block_len();
            format!("the dimensions {:?} are no rows of {} blocks of {len}", self.dims, self.format)
        };
        bytes().ok_or_else(|| Error::invalid(what()).at(format!("tensor {}", self.name)))
    }
}

/// A tensor of safetensors that is to be written.
#[derive(Clone, Debug)]
pub struct NewSection {
    /// Its name in the file.
    pub name: String,
    /// What its elements are.
    pub dtype: Dtype,
    /// Row-major.
    pub dims: Vec<u64>,
}

/// What stands before the data of a file, and where the data of each tensor belongs.
#[derive(Debug)]
pub struct Head {
    /// Everything before the data.
    pub bytes: Vec<u8>,
    /// By tensor.
    pub places: Vec<Place>,
}

/// Where the data of a tensor belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The byte of the file where it begins.
    pub start: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// Zeros behind it.
    pub padding: u64,
}

impl Head {
    /// GGUF: header, metadata, descriptions and padding.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidArgument`] for a tensor that GGUF cannot hold.
    pub fn gguf(metadata: &Metadata, tensors: &[NewTensor]) -> Result<Self> {
        let mut head = Vec::new();
        head.extend(b"GGUF");
        head.extend(3u32.to_le_bytes());
        head.extend((tensors.len() as u64).to_le_bytes());
        head.extend((metadata.iter().count() as u64).to_le_bytes());
        for (key, value) in metadata.iter() {
            text(&mut head, key);
            entry(&mut head, value);
        }
        let (mut offset, mut places) = (0u64, Vec::with_capacity(tensors.len()));
        for tensor in tensors {
            let refuse = |what: &str| Error::invalid(what).at(format!("tensor {}", tensor.name));
            let id = tensor.format.gguf_id().ok_or_else(|| refuse("GGUF has no number for this format"))?;
            text(&mut head, &tensor.name);
            head.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().rev().for_each(|dim| head.extend(dim.to_le_bytes()));
            head.extend(id.to_le_bytes());
            head.extend(offset.to_le_bytes());
            let bytes = tensor.bytes()?;
            let end = offset.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
            let end = end.filter(|end| *end < MOST).ok_or_else(|| refuse(TOO_LARGE))?;
            places.push(Place { start: offset, bytes, padding: end - offset - bytes });
            offset = end;
        }
        head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
        Ok(Self::with(head, places))
    }

    /// safetensors: the length of the header, and it. `metadata` is about the whole file. Tensors stand in the order given.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidArgument`] for a tensor whose size cannot be addressed.
    pub fn safetensors(metadata: &[(&str, String)], tensors: &[NewSection]) -> Result<Self> {
        let texts = metadata.iter().map(|(key, text)| ((*key).to_owned(), text.as_str().into())).collect();
        let mut header = serde_json::Map::from_iter([("__metadata__".to_owned(), Json::Object(texts))]);
        let (mut offset, mut places) = (0u64, Vec::with_capacity(tensors.len()));
        for NewSection { name, dtype, dims } in tensors {
            let bytes = dims.iter().try_fold(dtype.bitsize() as u64, |bits, &dim| bits.checked_mul(dim));
            let bytes = bytes.filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8);
            let end = bytes.and_then(|bytes| offset.checked_add(bytes)).filter(|end| *end < MOST);
            let end = end.ok_or_else(|| Error::invalid(TOO_LARGE).at(format!("tensor {name}")))?;
            let about = json!({"dtype": dtype.to_string(), "shape": dims, "data_offsets": [offset, end]});
            header.insert(name.clone(), about);
            places.push(Place { start: offset, bytes: end - offset, padding: 0 });
            offset = end;
        }
        let mut header = Json::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let length = (header.len() as u64).to_le_bytes();
        Ok(Self::with([&length[..], &header].concat(), places))
    }

    /// Places behind the head.
    fn with(bytes: Vec<u8>, mut places: Vec<Place>) -> Self {
        places.iter_mut().for_each(|place| place.start += bytes.len() as u64);
        Self { bytes, places }
    }
}

/// Writes a file; `data` writes the bytes of a tensor, for each in order.
///
/// # Errors
/// As [`Head::gguf`], [`crate::Kind::Io`], what `data` returns, and [`crate::Kind::Internal`] where it writes another
/// number of bytes than the tensor has.
pub fn write_gguf(
    out: &mut dyn Write,
    metadata: &Metadata,
    tensors: &[NewTensor],
    mut data: impl FnMut(&NewTensor, &mut dyn Write) -> Result<()>,
) -> Result<()> {
    let head = Head::gguf(metadata, tensors)?;
    out.write_all(&head.bytes)?;
    for (tensor, &Place { bytes, padding, .. }) in tensors.iter().zip(&head.places) {
        let mut counted = Counted { out, written: 0 };
        data(tensor, &mut counted)?;
        if counted.written != bytes {
            let what = format!("{} bytes were written of {bytes}", counted.written);
            return Err(Error::internal(what).at(format!("tensor {}", tensor.name)));
        }
        out.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
    }
    Ok(())
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn text(head: &mut Vec<u8>, text: &str) {
    head.extend((text.len() as u64).to_le_bytes());
    head.extend(text.as_bytes());
}

/// The type and the value.
fn entry(head: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Unsigned(value) => unsigned(head, &[*value], None),
        Value::Signed(value) => signed(head, &[*value], None),
        Value::Float(value) => floats(head, &[*value], None),
        Value::Bool(value) => head.extend([7, 0, 0, 0, u8::from(*value)]),
        Value::Text(value) => {
            head.extend(8u32.to_le_bytes());
            text(head, value);
        }
        Value::Array(array) => {
            head.extend(9u32.to_le_bytes());
            elements(head, array);
        }
    }
}

fn elements(head: &mut Vec<u8>, array: &Array) {
    let kind_and_count = |head: &mut Vec<u8>, kind: u32, count: usize| {
        head.extend(kind.to_le_bytes());
        head.extend((count as u64).to_le_bytes());
    };
    match array {
        Array::Unsigned(values) => unsigned(head, values, Some(values.len())),
        Array::Signed(values) => signed(head, values, Some(values.len())),
        Array::Float(values) => floats(head, values, Some(values.len())),
        Array::Bool(values) => {
            kind_and_count(head, 7, values.len());
            head.extend(values.iter().map(|&value| u8::from(value)));
        }
        Array::Text(values) => {
            kind_and_count(head, 8, values.len());
            values.iter().for_each(|value| text(head, value));
        }
    }
}

/// A type, for an array the count, and the values.
fn numbers<const N: usize>(
    head: &mut Vec<u8>,
    kind: u32,
    count: Option<usize>,
    values: impl Iterator<Item = [u8; N]>,
) {
    head.extend(kind.to_le_bytes());
    head.extend(count.into_iter().flat_map(|count| (count as u64).to_le_bytes()));
    head.extend(values.flatten());
}

fn unsigned(head: &mut Vec<u8>, values: &[u64], count: Option<usize>) {
    match values.iter().map(|&value| u32::try_from(value).ok()).collect::<Option<Vec<u32>>>() {
        Some(values) => numbers(head, 4, count, values.iter().map(|value| value.to_le_bytes())),
        None => numbers(head, 10, count, values.iter().map(|value| value.to_le_bytes())),
    }
}

fn signed(head: &mut Vec<u8>, values: &[i64], count: Option<usize>) {
    match values.iter().map(|&value| i32::try_from(value).ok()).collect::<Option<Vec<i32>>>() {
        Some(values) => numbers(head, 5, count, values.iter().map(|value| value.to_le_bytes())),
        None => numbers(head, 11, count, values.iter().map(|value| value.to_le_bytes())),
    }
}

fn floats(head: &mut Vec<u8>, values: &[f64], count: Option<usize>) {
    let is_short = |value: &f64| f64::from(*value as f32).to_bits() == value.to_bits();
    match values.iter().all(is_short) {
        true => numbers(head, 6, count, values.iter().map(|&value| (value as f32).to_le_bytes())),
        false => numbers(head, 12, count, values.iter().map(|value| value.to_le_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Checkpoint, Dialect};

    fn tensor(name: &str, dims: &[u64], format: Format) -> NewTensor {
        NewTensor { name: name.to_owned(), dims: dims.to_vec(), format }
    }

    #[test]
    fn what_is_written_is_read() {
        let values = [
            ("unsigned", Value::Unsigned(7)),
            ("long", Value::Unsigned(1 << 40)),
            ("signed", Value::Signed(-7)),
            ("long signed", Value::Signed(-(1 << 40))),
            ("float", Value::Float(0.5)),
            ("double", Value::Float(0.1)),
            ("bool", Value::Bool(true)),
            ("text", Value::Text("Ġ".to_owned())),
            ("empty", Value::Array(Array::Unsigned(Vec::new()))),
            ("numbers", Value::Array(Array::Unsigned(vec![1, u64::MAX]))),
            ("types", Value::Array(Array::Signed(vec![1, -3]))),
            ("scores", Value::Array(Array::Float(vec![0.25, -1.0]))),
            ("flags", Value::Array(Array::Bool(vec![true, false]))),
            ("tokens", Value::Array(Array::Text(vec![String::new(), "a b".to_owned()]))),
        ];
        let mut metadata = Metadata::default();
        for (key, value) in &values {
            metadata.insert((*key).to_owned(), value.clone()).unwrap();
        }
        let tensors = [tensor("a", &[3, 32], Format::Q4_0), tensor("b", &[5], Format::F32)];
        let mut file = Vec::new();
        write_gguf(&mut file, &metadata, &tensors, |tensor, out| {
            Ok(out.write_all(&vec![tensor.name.as_bytes()[0]; tensor.bytes()? as usize])?)
        })
        .unwrap();
        let read = Checkpoint::from_bytes("test.gguf", file.into()).unwrap();
        let Dialect::Gguf(again) = &read.dialect else { panic!("another dialect") };
        for (key, value) in &values {
            assert_eq!(again.get(key), Some(value), "{key}");
        }
        let b = read.tensor("b").unwrap();
        assert_eq!((b.dims.as_slice(), &*b.bytes), (&[5][..], &[b'b'; 20][..]));
        assert_eq!(
            (read.tensors["a"].dims.as_slice(), &*read.tensors["a"].bytes),
            (&[3, 32][..], &[b'a'; 54][..])
        );
    }

    #[test]
    fn safetensors_are_read_again() {
        let sections = [
            NewSection { name: "a".to_owned(), dtype: Dtype::I32, dims: vec![2, 3] },
            NewSection { name: "b".to_owned(), dtype: Dtype::F16, dims: vec![5] },
        ];
        let head = Head::safetensors(&[("format", "pt".to_owned())], &sections).unwrap();
        let places: Vec<_> = head.places.iter().map(|place| (place.start, place.bytes)).collect();
        let data = head.bytes.len() as u64;
        assert!(data.is_multiple_of(8) && places == [(data, 24), (data + 24, 10)]);
        let file = [&head.bytes[..], &[1; 24], &[2; 10]].concat();
        let read = Checkpoint::from_bytes("test.safetensors", file.into()).unwrap();
        let b = read.tensor("b").unwrap();
        assert_eq!(
            (b.dims.as_slice(), b.format().unwrap(), &*b.bytes),
            (&[5][..], Format::F16, &[2; 10][..])
        );
        assert_eq!(*read.tensors["a"].bytes, [1; 24]);
        let vast = NewSection { name: "c".to_owned(), dtype: Dtype::F16, dims: vec![1 << 40, 1 << 40] };
        assert!(Head::safetensors(&[], &[vast]).unwrap_err().to_string().contains("tensor c"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let write = |tensor: NewTensor, bytes: usize| {
            let data = |_: &NewTensor, out: &mut dyn Write| Ok(out.write_all(&vec![0; bytes])?);
            write_gguf(&mut Vec::new(), &Metadata::default(), &[tensor], data)
        };
        write(tensor("fine", &[2, 32], Format::Q4_0), 36).unwrap();
        for (tensor, bytes) in [
            (tensor("short", &[2, 32], Format::Q4_0), 35),
            (tensor("long", &[2, 32], Format::Q4_0), 37),
            (tensor("ragged", &[2, 33], Format::Q4_0), 36),
            (tensor("vast", &[u64::MAX, 32], Format::Q4_0), 36),
        ] {
            let name = tensor.name.clone();
            assert!(write(tensor, bytes).unwrap_err().to_string().contains(&name));
        }
    }
}
