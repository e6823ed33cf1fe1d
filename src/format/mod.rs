//! Floor 2: containers. Bytes on disk become a checkpoint: names, shapes, and bytes still on disk. No opinion.
//!
//! To add a container: one file here with its `Container`, one line in the list below.

mod checkpoint;
mod config;
mod files;
mod folder;
mod manifest;
mod metadata;
mod split;
mod writer;

use std::path::{Path, PathBuf};

use crate::base::Bytes;
use crate::error::{Error, Kind, Result};

pub use checkpoint::{Checkpoint, Dialect, Dtype, HuggingFace, Meta, Tensor};
pub use config::Config;
pub use files::Files;
pub use manifest::{Chunk, Manifest};
pub use metadata::{Array, Metadata, Value};
pub use writer::{Head, NewSection, NewTensor, Place, write_gguf};

/// What a file of this room says about its container.
struct Container {
    /// The name for users.
    name: &'static str,
    /// The extension of its files, without the dot.
    extension: &'static str,
    /// Files that make a folder a model of this container, the best first.
    entries: &'static [&'static str],
    /// Whether a file of this name and content is one. The container may still refuse it.
    sniff: fn(&Path, &[u8]) -> bool,
    /// Reads names and shapes, and maps the rest.
    open: fn(&Files, &Path, Bytes) -> Result<Checkpoint>,
}

macro_rules! containers {
    ($($module:ident,)*) => {
        $(mod $module;)*

        const CONTAINERS: &[Container] = &[$($module::CONTAINER,)*];
    };
}

containers! {
    gguf,
    safetensors,
    pth,
}

/// Files that people take for a model: how they start, what they are, what would work.
const FOREIGN: &[(&[u8], &str, &str)] = &[
    (
        b"\x80\x02",
        "a bare Python pickle, perhaps a torch checkpoint from before torch 1.6",
        "load it in torch and save it again, or convert it to safetensors or GGUF",
    ),
    (b"tjgg", "a GGML file from before GGUF", "get the model as GGUF"),
    (b"lmgg", "a GGML file from before GGUF", "get the model as GGUF"),
    (b"fmgg", "a GGML file from before GGUF", "get the model as GGUF"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer and not the model itself",
        "run `git lfs pull` in its folder",
    ),
    (b"<", "a web page or XML", "download the model file itself, not the page about it"),
];

/// Opens the model at `path`: a file, or a folder that holds one.
fn open(files: &Files, path: &Path) -> Result<Checkpoint> {
    let entry = if path.is_dir() {
        entry_of(path)?
    } else if path.file_name().is_some_and(|name| name == "config.json") {
        entry_of(path.parent().filter(|folder| *folder != "").unwrap_or(Path::new(".")))?
    } else {
        path.to_owned()
    };
    read(files, &entry, files.map(&entry)?)
}

/// Reads a model from the bytes of its entry.
fn read(files: &Files, entry: &Path, bytes: Bytes) -> Result<Checkpoint> {
    let container = CONTAINERS.iter().find(|container| (container.sniff)(entry, &bytes));
    let Some(container) = container else { return Err(foreign(&bytes).in_file(entry)) };
    (container.open)(files, entry, bytes).map_err(|error| error.in_file(entry))
}

/// The file to open in a folder: a well-known name, or the only file with a known extension.
fn entry_of(folder: &Path) -> Result<PathBuf> {
    let named = CONTAINERS.iter().flat_map(|container| container.entries).map(|entry| folder.join(entry));
    if let Some(entry) = named.into_iter().find(|entry| entry.is_file()) {
        return Ok(entry);
    }
    let mut candidates = Vec::new();
    for file in folder.read_dir().map_err(|error| Error::from(error).in_file(folder))? {
        let file = file.map_err(|error| Error::from(error).in_file(folder))?.path();
        let known = |extension| CONTAINERS.iter().any(|container| extension == container.extension);
        if file.extension().is_some_and(known) && !split::is_later_part(&file) {
            candidates.push(file);
        }
    }
    candidates.sort();
    match candidates.as_slice() {
        [entry] => Ok(entry.clone()),
        [] => Err(Error::new(Kind::NotFound, "no model in the folder")
            .in_file(folder)
            .hint(format!("it needs {}", supported()))),
        [first, second, ..] => Err(Error::unsupported(format!("{} models in the folder", candidates.len()))
            .in_file(folder)
            .hint(format!("name the file, such as {} or {}", first.display(), second.display()))),
    }
}

fn foreign(bytes: &[u8]) -> Error {
    let known = FOREIGN.iter().find(|(magic, ..)| bytes.starts_with(magic));
    match known {
        Some((_, what, hint)) => Error::unsupported(format!("this is {what}")).hint(*hint),
        None => Error::bad_file(format!("the file is not {}", supported()))
            .at_offset(0)
            .hint("download the file again, or convert the model"),
    }
}

fn supported() -> String {
    let names: Vec<String> = CONTAINERS
        .iter()
        .map(|container| format!("{} (*.{})", container.name, container.extension))
        .collect();
    names.join(" or ")
}
