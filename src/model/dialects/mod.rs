//! A model in the words of another dialect: what must stand beside its weights, and how they will be read there.
//!
//! The blueprint is what both dialects have in common. A writer turns it into settings, the architecture reads these at once,
//! and what comes out must be the blueprint again (`judge.rs`); so a dialect that has no word for a mechanism refuses it by
//! name. Where the dialect stays the same, so does what stands beside the weights.

mod gguf;
mod hugging_face;
mod judge;
mod rope;

use serde_json::json;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Dialect, HuggingFace, Metadata, Value};
use crate::text;

use super::arch::{in_hugging_face, is_in_gguf};
use super::source::vector;
use super::{Blueprint, Naming, Slot};
use gguf::Vectors;
use judge::{Biases, judge};

/// What must stand beside the weights of a model in another dialect, and how it will be read there.
#[derive(Debug)]
pub struct Target {
    /// As the new file will be read: its layout (names, joined matrices, offset of gains) and the pairing of its ropes say
    /// how weights are held there.
    pub blueprint: Blueprint,
    /// Settings that are tensors there: slot and values, in f32.
    pub vectors: Vec<(Slot, Vec<f32>)>,
    /// The rest.
    pub beside: Beside,
    /// What the dialect says otherwise than the one before, a clause each; it makes no difference to logits.
    pub notes: Vec<String>,
}

/// Everything but tensors.
#[derive(Debug)]
pub enum Beside {
    /// The metadata of a GGUF.
    Gguf(Metadata),
    /// Files of a folder: name and content.
    HuggingFace(Vec<(&'static str, Vec<u8>)>),
}

/// The token that fills up batches elsewhere.
const PADDING: &str = "tokenizer.ggml.padding_token_id";
/// Keys about the parts of a file that is cut, which the new one is not.
const SPLIT_KEYS: &str = "split.";
/// Keys about the form of the weights.
const FORM_KEYS: &[&str] = &["quantization_config", "quantization"];

/// `checkpoint`, which `blueprint` was read from, as a GGUF.
///
/// # Errors
/// [`crate::Kind::Unsupported`] naming what GGUF has no words for; those of the tokenizer.
pub fn to_gguf(checkpoint: &Checkpoint, blueprint: &Blueprint) -> Result<Target> {
    if let Dialect::Gguf(metadata) = &checkpoint.dialect {
        return keep_gguf(checkpoint, metadata, blueprint);
    }
    let biases = Biases::of(checkpoint, blueprint);
    let names = [blueprint.arch, "llama"].into_iter().filter(|name| is_in_gguf(name));
    let (blueprint, mut metadata, vectors) = first(names, |name| {
        let (metadata, vectors) = gguf::describe(blueprint, name)?;
        let dialect = Dialect::Gguf(metadata.clone());
        let read = judge(checkpoint, blueprint, &biases, dialect, Naming::Gguf, &vectors)?;
        Ok((read, metadata, vectors))
    })?;
    let words = text::to_gguf(&checkpoint.dialect, blueprint.vocab)
        .map_err(|error| error.in_file(&checkpoint.path))?;
    let mut notes = words.notes;
    words.entries.into_iter().try_for_each(|(key, value)| metadata.insert(key, value))?;
    if let Dialect::HuggingFace(folder) = &checkpoint.dialect {
        notes.extend(sampling(folder));
        let padding = folder.config.as_ref().and_then(|config| config.get("pad_token_id")?.as_u64());
        if let Some(id) = padding.filter(|&id| id < blueprint.vocab.into()) {
            metadata.insert(PADDING.to_owned(), Value::Unsigned(id))?;
        }
    }
    Ok(Target { blueprint, vectors, beside: Beside::Gguf(metadata), notes })
}

/// `checkpoint`, which `blueprint` was read from, as a Hugging Face folder.
///
/// # Errors
/// [`crate::Kind::Unsupported`] naming what the dialect has no words for; those of the tokenizer.
pub fn to_hugging_face(checkpoint: &Checkpoint, blueprint: &Blueprint) -> Result<Target> {
    if let Dialect::HuggingFace(folder) = &checkpoint.dialect {
        return Ok(keep_folder(folder, blueprint));
    }
    let words =
        text::to_hugging_face(&checkpoint.dialect).map_err(|error| error.in_file(&checkpoint.path))?;
    let biases = Biases::of(checkpoint, blueprint);
    // In GGUF, Mistral goes by the name of Llama.
    let other = (blueprint.arch == "llama").then_some("mistral");
    let (blueprint, config) = first([blueprint.arch].into_iter().chain(other), |name| {
        let (class, stems) = in_hugging_face(name)
            .ok_or_else(|| Error::internal(format!("there is no architecture {name}")))?;
        let config = hugging_face::describe(blueprint, name, class, &biases)?;
        let folder = HuggingFace { config: Some(config.clone()), ..HuggingFace::default() };
        let dialect = Dialect::HuggingFace(Box::new(folder));
        let read =
            judge(checkpoint, blueprint, &biases, dialect, Naming::HuggingFace(stems), &Vectors::new())?;
        Ok((read, config))
    })?;
    let padding = match &checkpoint.dialect {
        Dialect::Gguf(metadata) => metadata.u32(PADDING)?,
        Dialect::HuggingFace(_) | Dialect::Meta(_) => None,
    };
    // Where nothing is said, some readers have a token of their own.
    let ids = [("bos_token_id", words.bos), ("eos_token_id", words.eos), ("pad_token_id", padding)];
    let config = ids.into_iter().fold(config, |config, (key, id)| config.with(key, json!(id)));
    let mut files = vec![("config.json", config.to_json())];
    files.extend(words.files);
    Ok(Target { blueprint, vectors: Vec::new(), beside: Beside::HuggingFace(files), notes: words.notes })
}

/// What the first of `names` gives that does not fail; the error is that of the first of all.
fn first<T>(
    names: impl IntoIterator<Item = &'static str>,
    mut of: impl FnMut(&'static str) -> Result<T>,
) -> Result<T> {
    let mut refusal = None;
    for name in names {
        match of(name) {
            Ok(value) => return Ok(value),
            Err(error) => _ = refusal.get_or_insert(error),
        }
    }
    Err(refusal.unwrap_or_else(|| Error::internal("no architecture was tried")))
}

/// What GGUF leaves out of `generation_config.json`.
fn sampling(folder: &HuggingFace) -> Option<String> {
    const KEYS: &[&str] = &["temperature", "top_k", "top_p", "min_p", "repetition_penalty"];
    let config = folder.generation_config.as_ref()?;
    let said: Vec<&str> = KEYS.iter().copied().filter(|key| config.get(key).is_some()).collect();
    (!said.is_empty()).then(|| format!("{} of generation_config.json are left out", said.join(", ")))
}

fn keep_gguf(checkpoint: &Checkpoint, metadata: &Metadata, blueprint: &Blueprint) -> Result<Target> {
    let mut kept = Metadata::default();
    for (key, value) in metadata.iter().filter(|(key, _)| !key.starts_with(SPLIT_KEYS)) {
        kept.insert(key.to_owned(), value.clone())?;
    }
    let slots = [Slot::RopeFactors, Slot::ShortRopeFactors, Slot::LongRopeFactors];
    let mut vectors = Vec::new();
    for slot in slots {
        if let Some(tensor) = checkpoint.tensors.get(&Naming::Gguf.weight(slot)) {
            let len = tensor.dims.first().and_then(|&len| u32::try_from(len).ok());
            let len = len.ok_or_else(|| tensor.refuse("it is no list of divisors"))?;
            vectors.push((slot, vector(tensor, len)?));
        }
    }
    Ok(Target { blueprint: blueprint.clone(), vectors, beside: Beside::Gguf(kept), notes: Vec::new() })
}

fn keep_folder(folder: &HuggingFace, blueprint: &Blueprint) -> Target {
    let config = |config: &Option<Config>| config.as_ref().map(Config::to_json);
    let plain = folder.config.as_ref().map(|config| config.without(FORM_KEYS));
    // Where the settings have the template too, it is there already.
    let in_settings = folder.tokenizer_config.as_ref().and_then(Config::chat_template);
    let template = folder.chat_template.clone().filter(|template| in_settings.as_ref() != Some(template));
    let files = [
        ("config.json", config(&plain)),
        ("generation_config.json", config(&folder.generation_config)),
        ("tokenizer.json", folder.tokenizer_json.as_ref().map(|bytes| bytes.to_vec())),
        ("tokenizer.model", folder.tokenizer_model.as_ref().map(|bytes| bytes.to_vec())),
        ("tokenizer_config.json", config(&folder.tokenizer_config)),
        ("chat_template.jinja", template.map(String::into_bytes)),
    ];
    let files = files.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))).collect();
    let beside = Beside::HuggingFace(files);
    Target { blueprint: blueprint.clone(), vectors: Vec::new(), beside, notes: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str) -> (Checkpoint, Blueprint, Biases) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/archs/");
        let checkpoint = Checkpoint::open(format!("{folder}{name}")).unwrap();
        let blueprint = Blueprint::read(&checkpoint).unwrap();
        let biases = Biases::of(&checkpoint, &blueprint);
        (checkpoint, blueprint, biases)
    }

    /// Settings of GGUF that may be left out, because their defaults are theirs; the judge sees all others.
    #[test]
    fn a_setting_that_gguf_lacks_is_seen() {
        let cases: &[(&str, &[&str])] = &[
            ("phi3", &["attention.key_length", "attention.value_length", "vocab_size"]),
            ("gemma2", &["attention.value_length", "rope.dimension_count", "rope.freq_base", "vocab_size"]),
            (
                "gemma3",
                &[
                    "attention.sliding_window_pattern",
                    "attention.value_length",
                    "rope.dimension_count",
                    "rope.freq_base_swa",
                    "vocab_size",
                ],
            ),
            (
                "gpt2",
                &["attention.head_count_kv", "attention.key_length", "attention.value_length", "vocab_size"],
            ),
        ];
        for (name, unseen) in cases {
            let (checkpoint, blueprint, biases) = open(name);
            let (metadata, vectors) = gguf::describe(&blueprint, name).unwrap();
            let accepts = |left_out: &str, vectors: &Vectors| {
                let mut kept = Metadata::default();
                for (key, value) in metadata.iter().filter(|(key, _)| *key != left_out) {
                    kept.insert(key.to_owned(), value.clone()).unwrap();
                }
                judge(&checkpoint, &blueprint, &biases, Dialect::Gguf(kept), Naming::Gguf, vectors).is_ok()
            };
            assert!(accepts("", &vectors), "{name}");
            let missed = metadata.iter().map(|(key, _)| key).filter(|key| accepts(key, &vectors));
            let missed: Vec<&str> =
                missed.map(|key| key.trim_start_matches(name).trim_start_matches('.')).collect();
            assert_eq!(missed, *unseen, "{name}");
            for at in 0..vectors.len() {
                let mut fewer = vectors.clone();
                fewer.remove(at);
                assert!(!accepts("", &fewer), "{name} without {:?}", vectors[at].0);
            }
        }
    }

    /// The same of `config.json`, beside keys that are for other readers.
    #[test]
    fn a_setting_that_a_folder_lacks_is_seen() {
        const OTHERS: &[&str] = &[
            "model_type",
            "_name_or_path",
            "hidden_act",
            "attention_bias",
            "mlp_bias",
            "use_sliding_window",
            "max_window_layers",
        ];
        let cases: &[(&str, &[&str])] = &[
            ("phi3", &["head_dim", "original_max_position_embeddings", "tie_word_embeddings"]),
            (
                "gemma2",
                &["hidden_activation", "layer_types", "rope_theta", "rope_scaling", "tie_word_embeddings"],
            ),
            ("qwen2", &["head_dim", "sliding_window", "rope_theta", "rope_scaling"]),
        ];
        for (name, unseen) in cases {
            let (checkpoint, blueprint, biases) = open(&format!("{name}.gguf"));
            let (class, stems) = in_hugging_face(name).unwrap();
            let config = hugging_face::describe(&blueprint, name, class, &biases).unwrap();
            let accepts = |left_out: &str| {
                let folder =
                    HuggingFace { config: Some(config.without(&[left_out])), ..HuggingFace::default() };
                let dialect = Dialect::HuggingFace(Box::new(folder));
                let naming = Naming::HuggingFace(stems);
                judge(&checkpoint, &blueprint, &biases, dialect, naming, &Vectors::new()).is_ok()
            };
            assert!(accepts(""), "{name}");
            let missed = config.iter().map(|(key, _)| key).filter(|key| accepts(key));
            let mut missed: Vec<&str> = missed.filter(|key| !OTHERS.contains(key)).collect();
            let mut unseen = unseen.to_vec();
            missed.sort_unstable();
            unseen.sort_unstable();
            assert_eq!(missed, unseen, "{name}");
        }
    }
}
