//! Whether what has been written and read back is the tokenizer that it was.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use tokenizers::AddedToken;

use crate::error::{Error, Result};
use crate::text::tokenizer::{Parts, ends};
use crate::text::vocabulary::SPACE;

/// Refuses a tokenizer that is another when it has been read back from `dialect`.
pub(super) fn judge(dialect: &str, given: &Parts, read: &Parts) -> Result<()> {
    match difference(given, read)? {
        None => Ok(()),
        Some(what) => Err(Error::unsupported(format!("{dialect} has no words for {what} of this tokenizer"))),
    }
}

/// What GGUF leaves out of a tokenizer that it can say otherwise.
pub(super) fn noted(parts: &Parts) -> Vec<String> {
    let is_more = |token: &AddedToken| token.lstrip || token.rstrip || token.single_word;
    let added: Vec<&str> = parts
        .added
        .iter()
        .filter(|(_, token)| is_more(token))
        .map(|(_, token)| token.content.as_str())
        .collect();
    let composed =
        composes(parts).then(|| "characters are not composed (NFC) before they are cut".to_owned());
    let stripped = (!added.is_empty())
        .then(|| format!("spaces beside {} are kept, and parts of words are found", added.join(" ")));
    composed.into_iter().chain(stripped).collect()
}

/// The first thing that `read` has otherwise.
fn difference(given: &Parts, read: &Parts) -> Result<Option<String>> {
    let covers = given.covers_all_bytes();
    let all_ends = |parts: &Parts| ends(&parts.vocabulary, &parts.ends, parts.eos);
    let add_bos = |parts: &Parts| parts.add_bos && parts.bos.is_some();
    let token = given.vocabulary.ids().find(|&id| {
        let role = given.vocabulary.role(id);
        role.is_some()
            && (role, given.vocabulary.bytes(id)) != (read.vocabulary.role(id), read.vocabulary.bytes(id))
    });
    if let Some(id) = token {
        let bytes = given.vocabulary.bytes(id).unwrap_or_default();
        return Ok(Some(format!("token {id}, {:?},", String::from_utf8_lossy(bytes))));
    }
    let same = [
        ("the unigrams", given.unigram.is_none() && read.unigram.is_none()),
        ("the pieces", same_pieces(given, read)),
        ("the order of the merges", given.merges == read.merges),
        ("the added tokens", same_added(given, read)),
        ("the normalizer", normalizer(given)? == normalizer(read)?),
        ("the cut into words", splitter(given)? == splitter(read)?),
        ("the spaces at the start", given.vocabulary.leading_space == read.vocabulary.leading_space),
        ("the fall back to bytes", given.rules.byte_fallback == read.rules.byte_fallback),
        ("words that are not merged", given.rules.whole_words == read.rules.whole_words),
        ("unknown characters", covers || given.rules.unknown == read.rules.unknown),
        (
            "several unknown characters",
            covers || given.rules.unknown.is_none() || given.rules.fuse_unknown == read.rules.fuse_unknown,
        ),
        ("the beginning", add_bos(given) == add_bos(read) && (given.bos.is_none() || given.bos == read.bos)),
        ("the end", given.eos == read.eos),
        ("the ends", all_ends(given) == all_ends(read)),
    ];
    Ok(same.into_iter().find(|(_, same)| !same).map(|(what, _)| what.to_owned()))
}

/// Added tokens are found before pieces are, and fillers are never.
fn same_pieces(given: &Parts, read: &Parts) -> bool {
    let added: BTreeSet<u32> = given.added.iter().map(|(id, _)| *id).collect();
    let within = |parts: &Parts, other: &Parts| {
        let pieces = parts.vocabulary.pieces().filter(|(_, id)| !added.contains(id));
        let mut pieces = pieces.filter(|(_, id)| given.vocabulary.role(*id).is_some());
        pieces.all(|(text, id)| other.vocabulary.piece(&text) == Some(id))
    };
    within(given, read) && within(read, given)
}

fn same_added(given: &Parts, read: &Parts) -> bool {
    let set = |parts: &Parts| {
        let tokens = parts.added.iter().map(|(id, token)| (*id, token.content.clone(), token.special));
        tokens.collect::<BTreeSet<_>>()
    };
    set(given) == set(read)
}

/// The steps of the normalizer, but for the composition of characters, which is noted.
pub(super) fn normalizer(parts: &Parts) -> Result<Vec<Value>> {
    let mut steps = Vec::new();
    flatten(&value(&parts.normalizer)?, "normalizers", &mut steps);
    steps.retain(|step| step["type"] != "NFC");
    Ok(steps)
}

fn composes(parts: &Parts) -> bool {
    value(&parts.normalizer).is_ok_and(|normalizer| {
        let mut steps = Vec::new();
        flatten(&normalizer, "normalizers", &mut steps);
        steps.iter().any(|step| step["type"] == "NFC")
    })
}

/// The steps of the splitter, without what makes no difference to tokens.
pub(super) fn splitter(parts: &Parts) -> Result<Vec<Value>> {
    let mut steps = steps(&parts.splitter)?;
    let no_space = normalizer(parts)?.iter().any(|step| {
        step["pattern"]["String"] == " " && step["content"].as_str() == Some(SPACE.encode_utf8(&mut [0; 4]))
    });
    steps.retain(|step| !(no_space && step["type"] == "Split" && step["pattern"]["String"] == " "));
    Ok(steps)
}

/// The steps of a splitter.
pub(in crate::text) fn steps(splitter: &impl Serialize) -> Result<Vec<Value>> {
    let mut steps = Vec::new();
    flatten(&value(splitter)?, "pretokenizers", &mut steps);
    // Offsets are nobody's business here.
    steps.iter_mut().filter_map(Value::as_object_mut).for_each(|step| _ = step.remove("trim_offsets"));
    Ok(steps)
}

fn flatten(value: &Value, list: &str, steps: &mut Vec<Value>) {
    match value.get(list).and_then(Value::as_array) {
        Some(inner) => inner.iter().for_each(|step| flatten(step, list, steps)),
        None if value.is_null() => {}
        None => steps.push(value.clone()),
    }
}

fn value(part: &impl Serialize) -> Result<Value> {
    serde_json::to_value(part)
        .map_err(|error| Error::internal("a part of the tokenizer is no JSON").caused_by(error))
}
