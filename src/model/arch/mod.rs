//! The architectures: each reads its settings, in every dialect, into a blueprint.
//!
//! To add one: one file here with its [`Arch`], one line in the list below.

mod meta;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Dialect, HuggingFace, Metadata};

use super::Blueprint;

/// What a file of this room says about its architecture.
struct Arch {
    /// `general.architecture` in GGUF, and the name in the blueprint.
    name: &'static str,
    /// The class in `architectures` of Hugging Face's `config.json`.
    class: &'static str,
    /// Reads GGUF metadata. Shapes of tensors may be looked up.
    from_gguf: fn(&Checkpoint, &Metadata) -> Result<Blueprint>,
    /// Reads `config.json`. Names of tensors may be looked up.
    from_hugging_face: fn(&Checkpoint, &Config) -> Result<Blueprint>,
}

macro_rules! archs {
    ($($module:ident,)*) => {
        $(mod $module;)*

        const ARCHS: &[Arch] = &[$($module::ARCH,)*];
    };
}

archs! {
    llama,
}

/// The blueprint as the architecture reads it, its numbers not yet checked.
pub(super) fn read(checkpoint: &Checkpoint) -> Result<Blueprint> {
    match &checkpoint.dialect {
        Dialect::Gguf(metadata) => read_gguf(checkpoint, metadata),
        Dialect::HuggingFace(folder) => read_hugging_face(checkpoint, folder),
        Dialect::Meta(folder) => meta::read(checkpoint, folder),
    }
}

fn read_gguf(checkpoint: &Checkpoint, metadata: &Metadata) -> Result<Blueprint> {
    let key = "general.architecture";
    let name = metadata.text(key)?.ok_or_else(|| missing(key))?;
    let arch = find(name, |arch| arch.name).map_err(|error| error.at(key))?;
    if checkpoint.tensors.is_empty() {
        return Err(Error::unsupported("the file holds a vocabulary and no weights")
            .hint("it can tokenize; to generate, name a model with weights"));
    }
    (arch.from_gguf)(checkpoint, metadata)
}

fn read_hugging_face(checkpoint: &Checkpoint, folder: &HuggingFace) -> Result<Blueprint> {
    let Some(config) = &folder.config else {
        return Err(Error::bad_file("there is no config.json beside the weights")
            .hint("download the whole folder of the model"));
    };
    let key = "architectures";
    let classes = config.array(key)?.unwrap_or_default();
    let class = classes.first().and_then(|class| class.as_str()).ok_or_else(|| missing(key))?;
    let read = || {
        let arch = find(class, |arch| arch.class).map_err(|error| error.at(key))?;
        (arch.from_hugging_face)(checkpoint, config)
    };
    read().map_err(|error| error.in_file(checkpoint.path.with_file_name("config.json")))
}

fn find(name: &str, name_of: fn(&Arch) -> &'static str) -> Result<&'static Arch> {
    ARCHS.iter().find(|arch| name_of(arch) == name).ok_or_else(|| {
        let known: Vec<_> = ARCHS.iter().map(name_of).collect();
        Error::unsupported(format!("the architecture {name:?} is not supported"))
            .hint(format!("supported are {}", known.join(", ")))
    })
}

/// The error for a setting that must be there.
fn missing(key: &str) -> Error {
    Error::bad_file("a setting is missing").at(key)
}
