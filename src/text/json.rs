//! A tokenizer from Hugging Face's `tokenizer.json`. The `tokenizers` crate reads splitter and normalizer itself;
//! model, added tokens and decoder are read here, because the crate trusts the first two and keeps the third
//! from giving single bytes.

use std::collections::HashSet;

use serde_json::{Map, Value};
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use super::merging::{Merge, MergeReader, Rules};
use super::outline::{self, Listed, Outline};
use super::tokenizer::Parts;
use super::vocabulary::{Role, SPACE, Spelling, Vocabulary, named_byte};
use crate::error::{Error, Result};
use crate::format::Config;

const NORMALIZERS: &[&str] =
    &["Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "Replace", "Prepend"];
const SPLITTERS: &[&str] =
    &["Sequence", "ByteLevel", "Split", "Digits", "Metaspace", "Punctuation", "Whitespace"];

pub(super) fn parts(tokenizer_json: &[u8], config: Option<&Config>) -> Result<Parts> {
    let refuse = |error| Error::bad_file("the tokenizer is not a JSON object").caused_by(error);
    let outline = outline::outline(tokenizer_json).map_err(refuse)?;
    let empty = Config::default();
    let config = config.unwrap_or(&empty);
    let model = model(&outline)?;
    let file = &outline.file;
    let vocab = outline.vocab.as_ref().ok_or_else(|| refuse_vocab("the model has no vocabulary"))?;
    let added = added(file)?;
    let (spelling, leading_space) = spelling(file.get("decoder"))?;
    let byte_fallback = flag(model, "byte_fallback");
    let unknown = model.get("unk_token").and_then(Value::as_str);
    let mut vocabulary = vocabulary(vocab, &added, unknown, spelling, byte_fallback)?;
    vocabulary.leading_space = leading_space;
    index(&mut vocabulary, vocab, &added, unknown);
    let id = |name: &str| {
        let added = added.iter().find(|(_, token)| token.content == name).map(|(id, _)| *id);
        added.or_else(|| vocabulary.piece(name))
    };
    let first = first_added(file.get("post_processor")).and_then(id);
    let bos = named_token(config, "bos_token").and_then(id).or(first);
    let eos = named_token(config, "eos_token").and_then(id);
    let rules = Rules {
        unknown: unknown.and_then(|unknown| vocabulary.piece(unknown)),
        byte_fallback,
        fuse_unknown: flag(model, "fuse_unk"),
        whole_words: flag(model, "ignore_merges"),
    };
    Ok(Parts {
        merges: merges(tokenizer_json, &vocabulary, &added)?,
        unigram: None,
        rules,
        normalizer: normalizer(file.get("normalizer"))?,
        splitter: splitter(file.get("pre_tokenizer"))?,
        add_bos: config.bool("add_bos_token")?.unwrap_or(first.is_some()),
        bos,
        eos,
        ends: Vec::new(),
        vocabulary,
        added,
    })
}

fn model(outline: &Outline) -> Result<&Map<String, Value>> {
    let refuse = |what: &str| Error::bad_file(what).at("model");
    let model = outline.model.as_ref().ok_or_else(|| refuse("the tokenizer has no model"))?;
    // Old files do not name the type.
    match model.get("type").and_then(Value::as_str) {
        Some("BPE") => {}
        None if outline.merges.is_some() => {}
        other => {
            let other = other.unwrap_or("without a name");
            return Err(Error::unsupported(format!("a tokenizer model {other}"))
                .at("model")
                .hint("BPE works"));
        }
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty()) {
            return Err(Error::unsupported(format!("a BPE model with {key}")).at("model"));
        }
    }
    match outline.merges {
        Some(true) => Ok(model),
        _ => Err(refuse("the model has no merges").at("model.merges")),
    }
}

fn flag(model: &Map<String, Value>, key: &str) -> bool {
    model.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn refuse_vocab(what: &str) -> Error {
    Error::bad_file(what).at("model.vocab")
}

/// Cutting a text may give what is in the model's vocabulary, but for special tokens, which text must never become; the
/// unknown one stands for a character all the same.
fn index(vocabulary: &mut Vocabulary, vocab: &Listed, added: &[(u32, AddedToken)], unknown: Option<&str>) {
    let special: HashSet<&str> = added
        .iter()
        .filter(|(_, token)| token.special)
        .map(|(_, token)| token.content.as_str())
        .filter(|text| Some(*text) != unknown)
        .collect();
    // Backwards, because of two with the same text the last counts.
    let pieces = vocab.iter().rev().filter(|(text, _)| !special.contains(text));
    vocabulary.index(vocab.len(), pieces.filter_map(|(text, id)| Some((text, id?))));
}

fn merges(tokenizer_json: &[u8], vocabulary: &Vocabulary, added: &[(u32, AddedToken)]) -> Result<Vec<Merge>> {
    let mut reader = MergeReader::new(vocabulary, added, 0);
    outline::merges(tokenizer_json, &mut reader)
        .map_err(|error| Error::bad_file("the merges make no sense").caused_by(error))
        .and_then(|()| reader.finish())
        .map_err(|error| error.at("model.merges"))
}

fn added(file: &Map<String, Value>) -> Result<Vec<(u32, AddedToken)>> {
    let refuse = |i: usize| Error::bad_file(format!("added token {i} makes no sense")).at("added_tokens");
    let Some(tokens) = file.get("added_tokens").and_then(Value::as_array) else { return Ok(Vec::new()) };
    let token = |(i, value): (usize, &Value)| {
        let id = value.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        let token: AddedToken =
            serde_json::from_value(value.clone()).map_err(|error| refuse(i).caused_by(error))?;
        Ok((id.ok_or_else(|| refuse(i))?, token))
    };
    tokens.iter().enumerate().map(token).collect()
}

fn vocabulary(
    vocab: &Listed,
    added: &[(u32, AddedToken)],
    unknown: Option<&str>,
    spelling: Spelling,
    byte_fallback: bool,
) -> Result<Vocabulary> {
    let role = |text: &str| if Some(text) == unknown { Role::Special } else { Role::Text };
    let mut tokens = Vec::with_capacity(vocab.len() + added.len());
    for (text, id) in vocab.iter() {
        let id = id.ok_or_else(|| refuse_vocab(&format!("the token {text:?} has no id")))?;
        tokens.push((id, text, role(text)));
    }
    tokens.extend(added.iter().map(|(id, token)| {
        (*id, token.content.as_str(), if token.special { Role::Special } else { Role::Added })
    }));
    // An added token comes behind the piece of the same id and takes its place.
    tokens.sort_by_key(|&(id, _, role)| (id, role != Role::Text));
    let most = 2 * tokens.len() + 1024;
    let mut vocabulary = Vocabulary::new(spelling);
    for (i, &(id, text, role)) in tokens.iter().enumerate() {
        if tokens.get(i + 1).is_some_and(|next| next.0 == id) {
            continue;
        }
        if id as usize > most {
            return Err(Error::bad_file(format!(
                "a vocabulary of {} tokens gives {text:?} the id {id}",
                tokens.len()
            )));
        }
        while vocabulary.len() < id as usize {
            vocabulary.push_hole()?;
        }
        match (role, named_byte(text)) {
            (Role::Text, Some(byte)) if byte_fallback => vocabulary.push(&[byte], Role::Byte)?,
            (Role::Text, _) => vocabulary.push(&spelling.bytes(text), role)?,
            _ => vocabulary.push(text.as_bytes(), role)?,
        }
    }
    Ok(vocabulary)
}

/// How the decoder spells, and whether it takes a leading space away.
fn spelling(decoder: Option<&Value>) -> Result<(Spelling, bool)> {
    let refuse = |kind: &str| {
        Error::unsupported(format!("a decoder of the type {kind:?}"))
            .at("decoder")
            .hint("ByteLevel, Metaspace, and Replace + ByteFallback + Fuse + Strip work")
    };
    let decoder = decoder.ok_or_else(|| refuse("none"))?;
    match kind(decoder) {
        "ByteLevel" => Ok((Spelling::ByteLevel, false)),
        "Metaspace" => Ok((Spelling::Space, metaspace_leads(decoder))),
        "Sequence" => {
            let steps = decoder.get("decoders").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let mut found = None;
            for step in steps {
                found = match (kind(step), found) {
                    ("ByteLevel", None) => Some((Spelling::ByteLevel, false)),
                    ("Metaspace", None) => Some((Spelling::Space, metaspace_leads(step))),
                    ("Replace", None) if replaces_space(step) => Some((Spelling::Space, false)),
                    ("ByteFallback" | "Fuse", found) => found,
                    ("Strip", Some((Spelling::Space, _))) if strips_one_space(step) => {
                        Some((Spelling::Space, true))
                    }
                    (other, _) => return Err(refuse(other)),
                };
            }
            found.ok_or_else(|| refuse("Sequence"))
        }
        other => Err(refuse(other)),
    }
}

fn kind(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or("none")
}

fn metaspace_leads(step: &Value) -> bool {
    match step.get("prepend_scheme").and_then(Value::as_str) {
        Some(scheme) => scheme != "never",
        None => step.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(true),
    }
}

fn replaces_space(step: &Value) -> bool {
    let mut space = [0; 4];
    let pattern = step.pointer("/pattern/String").and_then(Value::as_str);
    pattern == Some(SPACE.encode_utf8(&mut space)) && step["content"] == " "
}

fn strips_one_space(step: &Value) -> bool {
    step["content"] == " " && step["start"] == 1 && step["stop"] == 0
}

fn normalizer(value: Option<&Value>) -> Result<Option<NormalizerWrapper>> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    allowed(value, "normalizers", NORMALIZERS).map_err(|error| error.at("normalizer"))?;
    serde_json::from_value(value.clone())
        .map(Some)
        .map_err(|error| Error::bad_file("the normalizer makes no sense").caused_by(error))
}

fn splitter(value: Option<&Value>) -> Result<Option<PreTokenizerWrapper>> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    allowed(value, "pretokenizers", SPLITTERS).map_err(|error| error.at("pre_tokenizer"))?;
    serde_json::from_value(value.clone())
        .map(Some)
        .map_err(|error| Error::bad_file("the pre-tokenizer makes no sense").caused_by(error))
}

/// Whether `value`, and what a sequence holds under `list`, is of a known type.
fn allowed(value: &Value, list: &str, types: &[&str]) -> Result<()> {
    let name = kind(value);
    if !types.contains(&name) {
        return Err(
            Error::unsupported(format!("the type {name:?}")).hint(format!("known are {}", types.join(", ")))
        );
    }
    let inner = value.get(list).and_then(Value::as_array);
    inner.into_iter().flatten().try_for_each(|step| allowed(step, list, types))
}

/// The special token that the post-processor puts before a text, if it does.
fn first_added(processor: Option<&Value>) -> Option<&str> {
    let processor = processor?;
    match kind(processor) {
        "TemplateProcessing" => processor.pointer("/single/0/SpecialToken/id").and_then(Value::as_str),
        "Sequence" => {
            processor.get("processors")?.as_array()?.iter().find_map(|inner| first_added(Some(inner)))
        }
        _ => None,
    }
}

/// A token in `tokenizer_config.json`: a text, or an object with its content.
fn named_token<'a>(config: &'a Config, key: &str) -> Option<&'a str> {
    let value = config.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str())
}
