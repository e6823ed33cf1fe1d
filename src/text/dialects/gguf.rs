//! The keys `tokenizer.ggml.*`: byte-level BPE with its merges, or SentencePiece's model, whose scores are the order of
//! the merges.

use std::collections::HashMap;

use super::judge;
use crate::error::{Error, Result};
use crate::format::{Array, Value};
use crate::text::pieces::Type;
use crate::text::splitter::Splitter;
use crate::text::tokenizer::Parts;
use crate::text::vocabulary::{Role, Spelling};

/// The keys for a model whose embedding has `rows` rows: as many tokens are written, because readers count on it.
pub(super) fn describe(parts: &Parts, rows: usize) -> Result<Vec<(String, Value)>> {
    let count = parts.vocabulary.len();
    if count > rows {
        return Err(Error::bad_file(format!(
            "the tokenizer has {count} tokens and the embedding {rows} rows"
        )));
    }
    if parts.unigram.is_some() {
        return Err(Error::unsupported("a unigram tokenizer cannot be written in GGUF"));
    }
    let texts = parts.texts()?;
    let filler = |id: usize| format!("[PAD{id}]");
    let all = (0..rows).map(|id| texts.get(id).cloned().flatten().unwrap_or_else(|| filler(id))).collect();
    let spelling = parts.spelling()?;
    let types = types(parts, &texts, rows, spelling)?;
    let mut keys = match spelling {
        Spelling::ByteLevel => byte_level(parts)?,
        Spelling::Space => sentence_piece(parts, &texts, rows)?,
    };
    keys.push(("tokens", Value::Array(Array::Text(all))));
    keys.push(("token_type", Value::Array(Array::Signed(types))));
    let extra: Vec<u32> = {
        let known = parts.known_ends();
        parts.ends.iter().copied().filter(|id| !known.contains(id)).collect()
    };
    let ids = [
        ("bos_token_id", parts.bos),
        ("eos_token_id", parts.eos),
        ("eot_token_id", extra.first().copied()),
        ("eom_token_id", extra.get(1).copied()),
        ("unknown_token_id", parts.unknown.as_ref().and_then(|unknown| id_of(&texts, unknown))),
    ];
    keys.extend(ids.into_iter().filter_map(|(key, id)| Some((key, Value::Unsigned(id?.into())))));
    keys.push(("add_bos_token", Value::Bool(parts.add_bos && parts.bos.is_some())));
    Ok(keys.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect())
}

type Keys = Vec<(&'static str, Value)>;

fn id_of(texts: &[Option<String>], text: &str) -> Option<u32> {
    let place = texts.iter().position(|other| other.as_deref() == Some(text))?;
    u32::try_from(place).ok()
}

fn byte_level(parts: &Parts) -> Result<Keys> {
    if !judge::normalizer(parts)?.is_empty() {
        let what = "a byte-level tokenizer that rewrites text before it cuts cannot be written in GGUF";
        return Err(Error::unsupported(what).at("normalizer"));
    }
    let steps = judge::splitter(parts)?;
    let name = Splitter::name_of(&steps, parts.whole_words)?;
    let merges = parts.merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
    Ok(vec![
        ("model", Value::Text("gpt2".to_owned())),
        ("pre", Value::Text(name.to_owned())),
        ("merges", Value::Array(Array::Text(merges))),
    ])
}

fn sentence_piece(parts: &Parts, texts: &[Option<String>], rows: usize) -> Result<Keys> {
    let mut scores = scores(parts, texts);
    scores.resize(rows, 0.0);
    Ok(vec![
        ("model", Value::Text("llama".to_owned())),
        ("pre", Value::Text("default".to_owned())),
        ("scores", Value::Array(Array::Float(scores))),
        ("add_space_prefix", Value::Bool(parts.vocabulary.leading_space)),
    ])
}

/// A piece is merged the sooner the higher its score. What the merges of two pieces are mixed up with has the same.
fn scores(parts: &Parts, texts: &[Option<String>]) -> Vec<f64> {
    let wholes: Vec<String> = parts.merges.iter().map(|(left, right)| format!("{left}{right}")).collect();
    let last: HashMap<&str, usize> = wholes.iter().map(String::as_str).zip(0..).collect();
    let mut ranks: HashMap<&str, u32> = HashMap::new();
    let (mut rank, mut end) = (0, 0);
    for (at, whole) in wholes.iter().enumerate() {
        rank += u32::from(at > end);
        end = end.max(last.get(whole.as_str()).copied().unwrap_or(at));
        ranks.entry(whole).or_insert(rank);
    }
    let of = |(id, text): (u32, &Option<String>)| match (parts.vocabulary.role(id), text) {
        (Some(Role::Text | Role::Added), Some(text)) => {
            -f64::from(ranks.get(text.as_str()).copied().unwrap_or(rank + 1))
        }
        _ => 0.0,
    };
    (0..).zip(texts).map(of).collect()
}

fn types(parts: &Parts, texts: &[Option<String>], rows: usize, spelling: Spelling) -> Result<Vec<i64>> {
    let merged: std::collections::HashSet<String> =
        parts.merges.iter().map(|(left, right)| format!("{left}{right}")).collect();
    // Byte-level models have an unknown token for form's sake, if they have one.
    let names_unknown = spelling == Spelling::Space || !parts.covers_all_bytes()?;
    let of = |id: usize| {
        let text = texts.get(id).and_then(Option::as_deref);
        let role = u32::try_from(id).ok().and_then(|id| parts.vocabulary.role(id));
        match (role, text) {
            (Some(Role::Special), text)
                if names_unknown && text.is_some() && text == parts.unknown.as_deref() =>
            {
                Type::Unknown
            }
            (Some(Role::Special), _) => Type::Control,
            (Some(Role::Added), _) => Type::UserDefined,
            (Some(Role::Byte), _) => Type::Byte,
            // Scores would make a merge of a piece that none makes.
            (Some(Role::Text), Some(text))
                if spelling == Spelling::Space && text.chars().nth(1).is_some() && !merged.contains(text) =>
            {
                Type::Unused
            }
            (Some(Role::Text), _) => Type::Normal,
            (None, _) => Type::Unused,
        }
    };
    Ok((0..rows).map(|id| of(id).number()).collect())
}
