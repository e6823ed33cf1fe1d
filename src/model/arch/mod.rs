//! The architectures: each reads its settings, in every dialect, into a blueprint.
//!
//! To add one: one file here with its [`Arch`], one line in the list below.

mod gguf;
mod hugging_face;
mod meta;
pub(super) mod rope;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Dialect, HuggingFace, Metadata};

use super::{Attention, Block, Blueprint, Ffn, Layout, Naming, Norm, Rope, Stems};
use gguf::Gguf;
use hugging_face::Folder;

/// What a file of this room says about its architecture.
struct Arch {
    /// `general.architecture` in GGUF, and the name in the blueprint.
    name: &'static str,
    /// The class in `architectures` of Hugging Face's `config.json`.
    class: &'static str,
    /// What its tensors are called there.
    stems: &'static Stems,
    /// Reads GGUF metadata, where GGUF knows the architecture by its name. Shapes of tensors may be looked up.
    from_gguf: Option<fn(&Gguf<'_>) -> Result<Blueprint>>,
    /// Reads `config.json`. Names of tensors may be looked up.
    from_hugging_face: fn(&Folder<'_>) -> Result<Blueprint>,
}

macro_rules! archs {
    ($($module:ident,)*) => {
        $(mod $module;)*

        const ARCHS: &[Arch] = &[$($module::ARCH,)*];
    };
}

archs! {
    gemma2,
    gemma3,
    gpt2,
    llama,
    llama4,
    mistral,
    mobilellm,
    mobilellm_pro,
    phi3,
    qwen2,
    qwen3,
    smollm3,
}

/// The architecture `name` in Hugging Face's dialect: its class, and what its tensors are called.
pub(super) fn in_hugging_face(name: &str) -> Option<(&'static str, &'static Stems)> {
    ARCHS.iter().find(|arch| arch.name == name).map(|arch| (arch.class, arch.stems))
}

/// Whether GGUF knows the architecture `name`.
pub(super) fn is_in_gguf(name: &str) -> bool {
    ARCHS.iter().any(|arch| arch.name == name && arch.from_gguf.is_some())
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
    let gguf_name = |arch: &Arch| arch.from_gguf.map(|_| arch.name);
    let arch = find(name, gguf_name).map_err(|error| error.at(key))?;
    if checkpoint.tensors.is_empty() {
        return Err(Error::unsupported("the file holds a vocabulary and no weights")
            .hint("it can tokenize; to generate, name a model with weights"));
    }
    match arch.from_gguf {
        Some(from_gguf) => from_gguf(&Gguf { checkpoint, metadata, arch: arch.name }),
        None => Err(Error::internal(format!("{name} is not of GGUF"))),
    }
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
        let arch = find(class, |arch| Some(arch.class)).map_err(|error| error.at(key))?;
        (arch.from_hugging_face)(&Folder { checkpoint, config, arch: arch.name })
    };
    read().map_err(|error| error.in_file(checkpoint.path.with_file_name("config.json")))
}

fn find(name: &str, name_of: fn(&Arch) -> Option<&'static str>) -> Result<&'static Arch> {
    ARCHS.iter().find(|arch| name_of(arch) == Some(name)).ok_or_else(|| {
        let known: Vec<_> = ARCHS.iter().filter_map(name_of).collect();
        Error::unsupported(format!("the architecture {name:?} is not supported"))
            .hint(format!("supported are {}", known.join(", ")))
    })
}

/// The settings that every architecture has.
struct Shape {
    arch: &'static str,
    name: String,
    width: u32,
    vocab: u32,
    context: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    ffn_width: u32,
    layers: u32,
    norm_eps: f64,
    tied: bool,
    naming: Naming,
}

impl Shape {
    /// Llama's blueprint in this shape: what others depart from. All layers rotate by the first of `ropes`.
    fn llama(self, ropes: Vec<Rope>) -> Result<Blueprint> {
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: (1.0 / f64::from(self.head_dim).sqrt()) as f32,
            rope: Some(0),
            window: None,
            cap: None,
            head_norm: None,
            tempered: false,
        };
        let block =
            Block { layer: 0, attention, ffn: Ffn::SwiGlu, ffn_width: self.ffn_width, post_norms: false };
        Ok(Blueprint {
            arch: self.arch,
            name: self.name,
            width: self.width,
            vocab: self.vocab,
            context: self.context,
            embedding_scale: 1.0,
            positions: false,
            norm: Norm::RootMeanSquare,
            norm_eps: self.norm_eps as f32,
            logit_cap: None,
            tied: self.tied,
            ropes,
            temperature: None,
            blocks: block.repeat(self.layers)?,
            layout: Layout::of(self.naming),
        })
    }
}

/// The width of a head where no setting names it.
fn divide(width: u32, heads: u32) -> Result<u32> {
    match width.checked_rem(heads) {
        Some(0) => Ok(width / heads),
        _ => Err(Error::bad_file(format!("a width of {width} does not divide into {heads} heads"))),
    }
}

/// The error for a setting that must be there.
fn missing(key: &str) -> Error {
    Error::bad_file("a setting is missing").at(key)
}
