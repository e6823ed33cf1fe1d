//! What is in a model file: the common form of all containers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::Bytes;
use crate::error::{Error, Result};
use crate::quant::Format;

use super::{Config, Files, Metadata};

/// A model on disk: named tensors whose bytes stay there, and what the file says about them.
#[derive(Debug)]
pub struct Checkpoint {
    /// The file that was opened: the weights, or the index of their shards.
    pub path: PathBuf,
    /// In whose words names and metadata are.
    pub dialect: Dialect,
    /// The tensors by name. A file that holds only a vocabulary has none.
    pub tensors: BTreeMap<String, Tensor>,
}

/// In whose words a checkpoint speaks, with its metadata.
#[derive(Debug)]
pub enum Dialect {
    /// GGUF: everything in one file.
    Gguf(Metadata),
    /// A Hugging Face folder.
    HuggingFace(Box<HuggingFace>),
    /// A folder as Meta publishes Llama.
    Meta(Box<Meta>),
}

/// The files beside the weights in a Hugging Face folder, each where there.
#[derive(Debug, Default)]
pub struct HuggingFace {
    /// `config.json`.
    pub config: Option<Config>,
    /// `generation_config.json`.
    pub generation_config: Option<Config>,
    /// `hf_quant_config.json`.
    pub hf_quant_config: Option<Config>,
    /// `tokenizer.json`, as it is.
    pub tokenizer_json: Option<Bytes>,
    /// `tokenizer.model`, as it is.
    pub tokenizer_model: Option<Bytes>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Config>,
    /// `chat_template.jinja`, else the (default) template of `tokenizer_config.json`.
    pub chat_template: Option<String>,
}

/// The files beside the weights in a folder of Meta's, each where there.
#[derive(Debug, Default)]
pub struct Meta {
    /// `params.json`.
    pub params: Option<Config>,
    /// `tokenizer.model`, as it is.
    pub tokenizer_model: Option<Bytes>,
}

/// A tensor on disk.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name in the file.
    pub name: String,
    /// Row-major: the outermost dimension first, the contiguous one last.
    pub dims: Vec<u64>,
    /// What its elements are.
    pub dtype: Dtype,
    /// Exactly its bytes.
    pub bytes: Bytes,
    /// The file that holds it.
    pub file: Arc<Path>,
    /// Where in `file` the bytes begin.
    pub offset: u64,
}

/// What the elements of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// Weights in a known format.
    Format(Format),
    /// A type of safetensors that is no weight format by itself.
    Other(safetensors::Dtype),
}

impl From<safetensors::Dtype> for Dtype {
    fn from(dtype: safetensors::Dtype) -> Self {
        Format::from_safetensors_id(&dtype.to_string()).map_or(Self::Other(dtype), Self::Format)
    }
}

impl Checkpoint {
    /// Opens the model at `path`: a GGUF, safetensors or torch file, the index of a sharded one, or a folder
    /// that holds one of these. Maps the files and reads their headers.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`], [`crate::Kind::Io`], [`crate::Kind::BadFile`] and
    /// [`crate::Kind::Unsupported`], with the file and the byte.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(&Files::default(), path.as_ref())
    }

    /// As [`Self::open`]; `files` opens and remembers what is read.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(files: &Files, path: &Path) -> Result<Self> {
        super::open(files, path)
    }

    /// Reads a model from the bytes of its one file; `name` stands for the path in errors.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(name: &str, bytes: Bytes) -> Result<Self> {
        Self::from_bytes_with(&Files::default(), name, bytes)
    }

    /// As [`Self::from_bytes`]; `files` remembers what is read.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes_with(files: &Files, name: &str, bytes: Bytes) -> Result<Self> {
        files.add(Path::new(name), &bytes);
        super::read(files, Path::new(name), bytes)
    }

    /// The tensor `name`.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] where it is missing.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| {
            Error::bad_file("a tensor is missing").at(format!("tensor {name}")).in_file(&self.path)
        })
    }
}

impl Tensor {
    /// The weight format of the elements.
    ///
    /// # Errors
    /// [`crate::Kind::Unsupported`] where they are something else.
    pub fn format(&self) -> Result<Format> {
        match self.dtype {
            Dtype::Format(format) => Ok(format),
            Dtype::Other(dtype) => Err(self.locate(
                Error::unsupported(format!("the weight format {dtype} is not supported"))
                    .hint(format!("supported are {}", format_names())),
            )),
        }
    }

    /// A [`crate::Kind::BadFile`] about this tensor.
    pub fn refuse(&self, what: impl Into<String>) -> Error {
        self.locate(Error::bad_file(what))
    }

    /// Adds to an error where this tensor is.
    pub fn locate(&self, error: Error) -> Error {
        error.at(format!("tensor {}", self.name)).at_offset(self.offset).in_file(&self.file)
    }
}

/// The names of all weight formats that files have, for errors.
pub(super) fn format_names() -> String {
    Format::all_in_gguf().map(Format::name).collect::<Vec<_>>().join(", ")
}
