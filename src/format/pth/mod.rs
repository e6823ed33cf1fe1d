//! torch checkpoints: a zip archive of stored entries, in which `data.pkl` is a pickle that says how tensors are cut
//! out of raw storages, `data/0`, `data/1`, … Tensors are slices of the mapped file.
//! Layout: `torch/serialization.py` of pytorch, since version 1.6.

mod pickle;
mod value;
mod zip;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::base::{Bytes, product};
use crate::error::{Error, Result};

use self::value::{Built, Value, View};
use super::{Checkpoint, Container, Files, Tensor, folder};

pub(super) const CONTAINER: Container = Container {
    name: "torch",
    extension: "pth",
    entries: &["pytorch_model.bin.index.json", "pytorch_model.bin", "consolidated.00.pth"],
    sniff: |path, bytes| is_index(path) || bytes.starts_with(b"PK\x03\x04"),
    open,
};

/// Keys under which training scripts keep the state_dict.
const NESTED: &[&str] = &["model", "state_dict"];

fn is_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".bin.index.json"))
}

fn open(files: &Files, path: &Path, bytes: Bytes) -> Result<Checkpoint> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let tensors =
        if is_index(path) { folder::sharded(files, folder, &bytes, single)? } else { single(path, &bytes)? };
    refuse_parts(path)?;
    Ok(Checkpoint { path: path.to_owned(), dialect: folder::dialect(files, folder, &tensors)?, tensors })
}

/// Meta cuts the matrices of its large models into a file for each GPU.
fn refuse_parts(path: &Path) -> Result<()> {
    let second = path.with_file_name("consolidated.01.pth");
    if path.file_name() == Some("consolidated.00.pth".as_ref()) && second.exists() {
        return Err(Error::unsupported("the matrices of the model are cut over several files")
            .in_file(second)
            .hint("take the model as safetensors or GGUF"));
    }
    Ok(())
}

/// The tensors of one file.
fn single(path: &Path, bytes: &Bytes) -> Result<BTreeMap<String, Tensor>> {
    let entries = zip::entries(bytes)?;
    let archive = Archive::new(path, bytes, &entries)?;
    let (built, top) =
        pickle::run(archive.pickle, archive.pickle_at).map_err(|error| error.at("data.pkl"))?;
    let mut tensors = BTreeMap::new();
    let mut copied = 0;
    for &(key, value) in state_dict(&built, top)? {
        let (Value::Text(name), Some(view)) = (key, built.view(value)) else {
            log::debug!("{}: {key:?} is no tensor and left out", path.display());
            continue;
        };
        let tensor =
            archive.tensor(name, view, &mut copied).map_err(|error| error.at(format!("tensor {name}")))?;
        if tensors.insert(name.to_owned(), tensor).is_some() {
            return Err(Error::bad_file("the name is there twice").at(format!("tensor {name}")));
        }
    }
    Ok(tensors)
}

/// The dictionary that holds the tensors: the outermost, or one that it names.
fn state_dict<'b, 'a>(built: &'b Built<'a>, top: Value<'a>) -> Result<&'b [(Value<'a>, Value<'a>)]> {
    let refuse = |what: &str| Error::unsupported(what.to_owned()).hint("save the state_dict alone");
    let items = built.map(top).ok_or_else(|| refuse("the pickle holds no dictionary"))?;
    if items.iter().any(|&(_, value)| built.view(value).is_some()) {
        return Ok(items);
    }
    let named = |wanted: &&str| items.iter().find(|(key, _)| *key == Value::Text(wanted));
    let nested = NESTED.iter().find_map(named).and_then(|&(_, value)| built.map(value));
    nested.ok_or_else(|| refuse("the pickle holds no dictionary of tensors"))
}

/// What tensors are cut from.
struct Archive<'a> {
    file: Arc<Path>,
    bytes: &'a Bytes,
    entries: &'a BTreeMap<String, Range<usize>>,
    /// What the names of all entries begin with.
    root: &'a str,
    pickle: &'a [u8],
    pickle_at: u64,
}

impl<'a> Archive<'a> {
    fn new(path: &Path, bytes: &'a Bytes, entries: &'a BTreeMap<String, Range<usize>>) -> Result<Self> {
        let mut pickles = entries.iter().filter_map(|(name, range)| {
            let root = name.strip_suffix("/data.pkl").filter(|root| !root.contains('/'))?;
            Some((root, range))
        });
        let (Some((root, range)), None) = (pickles.next(), pickles.next()) else {
            return Err(Error::unsupported("the zip file is no torch checkpoint: it lacks its one data.pkl"));
        };
        let order = entries.get(&format!("{root}/byteorder")).map(|range| &bytes[range.clone()]);
        if order.is_some_and(|order| order != b"little") {
            return Err(Error::unsupported("a checkpoint from a big-endian machine")
                .hint("load it in torch and save it again"));
        }
        let (pickle, pickle_at) = (&bytes[range.clone()], range.start as u64);
        Ok(Self { file: path.into(), bytes, entries, root, pickle, pickle_at })
    }

    /// The tensor that `view` describes. What had to be copied is counted in `copied`: all copies together take no
    /// more memory than the file has bytes.
    fn tensor(&self, name: &str, view: &View<'_>, copied: &mut usize) -> Result<Tensor> {
        let element = view.dtype.bitsize() / 8;
        let storage = self.storage(view)?;
        let size = product(&view.dims)?.checked_mul(element).ok_or_else(|| {
            Error::bad_file(format!("the shape {:?} takes more bytes than can be addressed", view.dims))
        })?;
        let start = usize::try_from(view.offset).ok().and_then(|offset| offset.checked_mul(element));
        let range = start.and_then(|start| Some(start..start.checked_add(size)?));
        let cut = || {
            range
                .clone()
                .and_then(|range| self.bytes.slice(storage.start + range.start..storage.start + range.end))
        };
        let inside = range.as_ref().is_some_and(|range| range.end <= storage.len());
        if !inside {
            return Err(Error::bad_file(format!(
                "{:?} from element {} on pass the end of the storage of {} bytes",
                view.dims,
                view.offset,
                storage.len()
            ))
            .at_offset(storage.start as u64));
        }
        let bytes = cut().ok_or_else(|| Error::internal("a checked range lies outside the file"))?;
        let bytes = match order(view) {
            Some(Order::Rows) => bytes,
            Some(Order::Columns { rows, columns }) => {
                *copied += size;
                if *copied > self.bytes.len() {
                    return Err(Error::unsupported("more transposed tensors than the file has bytes"));
                }
                transposed(&bytes, rows, columns, element).into()
            }
            None => {
                return Err(Error::unsupported(format!(
                    "the elements of {:?} stand at strides {:?}",
                    view.dims, view.strides
                ))
                .hint("row after row or column after column works: save the tensor contiguous"));
            }
        };
        let offset = (storage.start + range.map_or(0, |range| range.start)) as u64;
        Ok(Tensor {
            name: name.to_owned(),
            dims: view.dims.clone(),
            dtype: view.dtype.into(),
            bytes,
            file: self.file.clone(),
            offset,
        })
    }

    /// Where the storage of `view` lies in the file.
    fn storage(&self, view: &View<'_>) -> Result<Range<usize>> {
        let key = view.storage.key;
        let entry = self.entries.get(&format!("{}/data/{key}", self.root));
        let entry = entry.ok_or_else(|| Error::bad_file(format!("the file has no storage {key:?}")))?;
        match view.storage.bytes() {
            Some(bytes) if bytes == entry.len() as u64 => Ok(entry.clone()),
            claimed => {
                let claimed =
                    claimed.map_or("more than can be addressed".to_owned(), |bytes| bytes.to_string());
                Err(Error::bad_file(format!(
                    "storage {key} has {} bytes, the pickle says {claimed}",
                    entry.len()
                ))
                .at_offset(entry.start as u64))
            }
        }
    }
}

/// How the elements of a tensor stand in its storage.
enum Order {
    /// Row after row, as everywhere else.
    Rows,
    /// A matrix, column after column: a transposed view.
    Columns { rows: usize, columns: usize },
}

/// The order, or `None` where elements overlap, leave holes or stand otherwise.
fn order(view: &View<'_>) -> Option<Order> {
    if view.dims.contains(&0) {
        return Some(Order::Rows);
    }
    let mut expected = 1;
    let by_rows = view.dims.iter().zip(&view.strides).rev().all(|(&dim, &stride)| {
        let fits = dim == 1 || stride == expected;
        expected *= dim;
        fits
    });
    if by_rows {
        return Some(Order::Rows);
    }
    match (&view.dims[..], &view.strides[..]) {
        (&[rows, columns], &[1, stride]) if stride == rows => {
            Some(Order::Columns { rows: rows as usize, columns: columns as usize })
        }
        _ => None,
    }
}

/// The matrix row after row, from one column after column.
fn transposed(bytes: &[u8], rows: usize, columns: usize, element: usize) -> Vec<u8> {
    let at = |row: usize, column: usize| &bytes[(column * rows + row) * element..][..element];
    (0..rows).flat_map(|row| (0..columns).flat_map(move |column| at(row, column))).copied().collect()
}
