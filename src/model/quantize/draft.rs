//! The new model before it is written: its tensors, where each belongs, and what stands beside them.

use std::ops::Range;
use std::path::Path;

use crate::base::checksum;
use crate::error::{Error, Result};
use crate::format::{Checkpoint, Dialect, Dtype, Head, Metadata, NewSection, NewTensor, Tensor, Value};
use crate::model::dialects::{self, Beside};
use crate::model::{Blueprint, Naming, Slot, Weights};

use super::coding::{Coding, Method};
use super::item::{Item, Role, SourceRows};
use super::{Importance, Recipe, cross, settings};

/// The new model before it is written.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) items: Vec<Item>,
    /// Which tensors of the file each item is written to.
    pub(super) groups: Vec<Range<usize>>,
    pub(super) head: Head,
    pub(super) method: Method,
    /// What stands beside the weights.
    pub(super) files: Vec<(&'static str, Vec<u8>)>,
    /// What the other dialect says otherwise.
    pub(super) notes: Vec<String>,
}

impl Draft {
    pub(super) fn of(
        checkpoint: &Checkpoint,
        recipe: &Recipe,
        importance: &Importance,
        out: &Path,
    ) -> Result<Self> {
        let is_gguf = out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        // How this one was made, so that only the same is taken up again.
        let own = [
            ("pocketlm.source", format!("{:016x}", source(checkpoint))),
            ("pocketlm.recipe", recipe.to_string()),
            ("pocketlm.calibration", importance.to_string()),
        ];
        let (mut items, beside, notes) = match &checkpoint.dialect {
            // What the engine does not know of such a file stays in it.
            Dialect::Gguf(metadata) if is_gguf => {
                let items = checkpoint.tensors.values().map(stored).collect::<Result<Vec<_>>>()?;
                (items, Beside::Gguf(metadata.clone()), Vec::new())
            }
            _ => {
                let blueprint = Blueprint::read(checkpoint)?;
                let weights = Weights::gather(checkpoint, &blueprint)?;
                let to = if is_gguf { dialects::to_gguf } else { dialects::to_hugging_face };
                let target = to(checkpoint, &blueprint)?;
                (cross::items(&weights, &blueprint, &target)?, target.beside, target.notes)
            }
        };
        recipe.apply(&mut items)?;
        let method = method(&items, is_gguf)?;
        let sections = |item: &Item| sections(item, method);
        match beside {
            Beside::Gguf(metadata) => {
                let tensor = |item: &Item| {
                    let (name, dims) = (item.name.clone(), item.dims.clone());
                    NewTensor { name, dims, format: item.coding.format() }
                };
                let tensors: Vec<NewTensor> = items.iter().map(tensor).collect();
                let head = Head::gguf(&described(&metadata, own)?, &tensors)?;
                let groups = (0..items.len()).map(|index| index..index + 1).collect();
                Ok(Self { items, groups, head, method, files: Vec::new(), notes })
            }
            Beside::HuggingFace(files) => {
                // Readers want data aligned to its type: items whose neighbours might not be come last.
                items.sort_by_cached_key(|item| {
                    sections(item).iter().any(|section| !bits(section).is_multiple_of(64))
                });
                let (mut all, mut groups) = (Vec::new(), Vec::new());
                for item in &items {
                    let first = all.len();
                    all.extend(sections(item));
                    groups.push(first..all.len());
                }
                let about: Vec<_> = [("format", "pt".to_owned())].into_iter().chain(own).collect();
                let head = Head::safetensors(&about, &all)?;
                let files = settings::with_method(files, method, &items)?;
                Ok(Self { items, groups, head, method, files, notes })
            }
        }
    }
}

/// A tensor of a GGUF that becomes one of another.
fn stored(tensor: &Tensor) -> Result<Item> {
    let (name, dims) = (tensor.name.clone(), tensor.dims.clone());
    let coding = Coding::Blocks(tensor.format()?);
    Ok(Item { name, dims, role: role(tensor), rows: SourceRows::stored(tensor)?, coding, rank: None })
}

/// Whether a tensor of a GGUF is a matrix of products, or has a row for each token.
fn role(tensor: &Tensor) -> Role {
    let name = tensor.name.as_str();
    let is_weight = matches!(tensor.dtype, Dtype::Format(_)) && name.ends_with(".weight");
    let is_matrix = tensor.dims.len() == 2 && tensor.dims[0] > 1;
    let is_table = ["norm", "position_embd", "token_types", "rope_"].iter().any(|part| name.contains(part));
    let is_vocabulary = [Slot::Embedding, Slot::Head].iter().any(|&slot| Naming::Gguf.weight(slot) == name);
    match is_weight && is_matrix && !is_table {
        true if is_vocabulary => Role::Vocabulary,
        true => Role::Matrix,
        false => Role::Table,
    }
}

/// The method of a file with these tensors.
fn method(items: &[Item], is_gguf: bool) -> Result<Method> {
    let foreign = |item: &&Item| {
        item.coding.format().gguf_id().is_none()
            || item.rank.is_some()
            || Coding::PACKED.contains(&item.coding)
    };
    if is_gguf {
        return match items.iter().find(foreign) {
            None => Ok(Method::Gguf),
            Some(item) if item.rank.is_some() => {
                Err(Error::invalid("GGUF has no place for corrections of low rank")
                    .hint("name a folder to write, without .gguf"))
            }
            Some(item) => Err(Error::invalid(format!("GGUF has no {}", item.coding))
                .at(format!("tensor {}", item.name))
                .hint("name a folder to write, without .gguf")),
        };
    }
    let mut methods: Vec<Method> = items.iter().map(|item| item.coding.method()).collect();
    methods.sort_unstable();
    methods.dedup();
    methods.retain(|method| *method != Method::Plain);
    let is_corrected = items.iter().any(|item| item.rank.is_some());
    match methods.as_slice() {
        [] => Ok(Method::Plain),
        _ if methods.contains(&Method::BitsAndBytes) && (methods.len() > 1 || is_corrected) => {
            Err(Error::invalid("nf4 goes together with floats alone").hint("int4 and blocks go together"))
        }
        [method] if !is_corrected => Ok(*method),
        _ => Ok(Method::Qlr),
    }
}

/// The tensors of an item in safetensors.
fn sections(item: &Item, method: Method) -> Vec<NewSection> {
    let [rows, cols] = item.rows.shape();
    let (name, coding) = (item.name.as_str(), item.coding);
    if coding.is_float() {
        let section = coding.sections(method, name, rows, cols);
        return section
            .into_iter()
            .map(|section| NewSection { dims: item.dims.clone(), ..section })
            .collect();
    }
    if method != Method::Qlr {
        return coding.sections(method, name, rows, cols);
    }
    let stem = name.strip_suffix(".weight").unwrap_or(name);
    let mut sections = coding.sections(method, &format!("{stem}.base"), rows, cols);
    for (part, len) in [("l", rows), ("r", cols)] {
        let Some(rank) = item.rank else { continue };
        sections.extend(Coding::of_factor(len).sections(method, &format!("{stem}.lr.{part}"), rank, len));
    }
    sections
}

fn bits(section: &NewSection) -> u64 {
    section.dims.iter().fold(section.dtype.bitsize() as u64, |bits, dim| bits.wrapping_mul(*dim))
}

/// The metadata of the new file: that of the model, and how it was made.
fn described(metadata: &Metadata, own: [(&'static str, String); 3]) -> Result<Metadata> {
    let version = ("general.quantization_version", Value::Unsigned(2));
    let own: Vec<_> = own.into_iter().map(|(key, text)| (key, Value::Text(text))).chain([version]).collect();
    // The new file is whole, whatever the old one was.
    let is_own = |key: &str| {
        key == "general.file_type" || key.starts_with("split.") || own.iter().any(|(own, _)| *own == key)
    };
    let mut described = Metadata::default();
    for (key, value) in metadata.iter().filter(|(key, _)| !is_own(key)) {
        described.insert(key.to_owned(), value.clone())?;
    }
    own.into_iter().try_for_each(|(key, value)| described.insert(key.to_owned(), value))?;
    Ok(described)
}

/// A number that stands for the weights: of each tensor the beginning, as another training would hardly leave it.
fn source(checkpoint: &Checkpoint) -> u64 {
    const BEGINNING: usize = 4096;
    let beginnings =
        checkpoint.tensors.values().map(|tensor| &tensor.bytes[..tensor.bytes.len().min(BEGINNING)]);
    let sums: Vec<u8> = beginnings.flat_map(|bytes| checksum(bytes).to_le_bytes()).collect();
    checksum(&sums)
}
