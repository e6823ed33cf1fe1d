//! safetensors: a JSON header with names, types, shapes and byte ranges, then the data. A model is one file,
//! or several with an index, beside the JSON files of a Hugging Face folder.
//! Layout: the README of huggingface/safetensors.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::base::Bytes;
use crate::error::{Error, Result};

use super::{Checkpoint, Container, Files, Tensor, folder};

pub(super) const CONTAINER: Container = Container {
    name: "safetensors",
    extension: "safetensors",
    entries: &["model.safetensors.index.json", "model.safetensors"],
    sniff: |path, bytes| {
        is_index(path) || path.extension() == Some("safetensors".as_ref()) || starts_like(bytes)
    },
    open,
};

/// Bytes of the header; the limit of the reference reader.
const MAX_HEADER: u64 = 100_000_000;

fn is_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".safetensors.index.json"))
}

/// A header length that fits, then the brace of the JSON.
fn starts_like(bytes: &[u8]) -> bool {
    header_length(bytes).is_some_and(|length| length <= MAX_HEADER) && bytes.get(8) == Some(&b'{')
}

fn header_length(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().copied().map(u64::from_le_bytes)
}

fn open(files: &Files, path: &Path, bytes: Bytes) -> Result<Checkpoint> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let tensors =
        if is_index(path) { folder::sharded(files, folder, &bytes, single)? } else { single(path, &bytes)? };
    Ok(Checkpoint { path: path.to_owned(), dialect: folder::dialect(files, folder, &tensors)?, tensors })
}

/// The tensors of one file.
fn single(path: &Path, bytes: &Bytes) -> Result<BTreeMap<String, Tensor>> {
    let truncated = |what: String, at| {
        Error::bad_file(what).at_offset(at).hint("the file is truncated or damaged: download it again")
    };
    let Some(length) = header_length(bytes) else {
        return Err(truncated(format!("{} bytes cannot hold a header", bytes.len()), 0));
    };
    if length > MAX_HEADER {
        return Err(Error::bad_file(format!("a header of {length} bytes; at most {MAX_HEADER} are allowed"))
            .at_offset(0));
    }
    let start = 8 + length as usize;
    let Some(header) = bytes.get(8..start) else {
        let remain = bytes.len() - 8;
        return Err(truncated(
            format!("a header of {length} bytes does not fit in the {remain} that remain"),
            0,
        ));
    };
    let header = std::str::from_utf8(header).map_err(|error| {
        Error::bad_file("the header is not UTF-8").at_offset(8 + error.valid_up_to() as u64)
    })?;
    let Header(mut infos) = serde_json::from_str(header)
        .map_err(|error| Error::bad_file("the header is not sound").at_offset(8).caused_by(error))?;
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let data = bytes.len() - start;
    let file: Arc<Path> = path.into();
    let mut tensors = BTreeMap::new();
    let mut expected = 0;
    for (name, info) in infos {
        let refuse = |what: String| Error::bad_file(what).at(format!("tensor {name}"));
        let (begin, end) = info.data_offsets;
        if begin != expected {
            let what = if begin < expected { "overlaps" } else { "leaves a hole after" };
            return Err(refuse(format!(
                "the data at {begin} {what} the tensor before, which ends at {expected}"
            )));
        }
        let size = byte_size(&info).ok_or_else(|| {
            refuse(format!("the shape {:?} in {} does not give a size in bytes", info.shape, info.dtype))
        })?;
        if end.checked_sub(begin) != Some(size) {
            return Err(refuse(format!(
                "the bytes {begin} to {end} are not the {size} that {:?} in {} take",
                info.shape, info.dtype
            )));
        }
        let Some(tensor_bytes) = start.checked_add(end).and_then(|end| bytes.slice(start + begin..end))
        else {
            return Err(truncated(
                format!("the data should end at {end}, but ends at {data}"),
                bytes.len() as u64,
            )
            .at(format!("tensor {name}")));
        };
        expected = end;
        let tensor = Tensor {
            name: name.clone(),
            dims: info.shape.iter().map(|&dim| dim as u64).collect(),
            dtype: info.dtype.into(),
            bytes: tensor_bytes,
            file: file.clone(),
            offset: (start + begin) as u64,
        };
        tensors.insert(name, tensor);
    }
    if expected != data {
        return Err(Error::bad_file(format!("{} bytes at the end belong to no tensor", data - expected))
            .at_offset((start + expected) as u64));
    }
    Ok(tensors)
}

fn byte_size(info: &TensorInfo) -> Option<usize> {
    let elements = info.shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))?;
    let bits = elements.checked_mul(info.dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Names and descriptions in the order of the file, each name once.
struct Header(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut infos = Vec::new();
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(serde::de::Error::custom(format_args!("the name {name:?} is there twice")));
            }
            if name == "__metadata__" {
                map.next_value::<BTreeMap<String, String>>()?;
            } else {
                infos.push((name, map.next_value()?));
            }
        }
        Ok(Header(infos))
    }
}
