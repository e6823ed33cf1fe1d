//! The keys `tokenizer.ggml.*`: byte-level BPE with its merges, or SentencePiece's model, whose scores are the order of
//! the merges.

use std::collections::{HashMap, HashSet};

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
    let spelling = parts.vocabulary.spelling();
    let types = types(parts, &texts, rows, spelling);
    let mut keys = match spelling {
        Spelling::ByteLevel => byte_level(parts, &texts)?,
        Spelling::Space => sentence_piece(parts, rows),
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
        ("unknown_token_id", parts.rules.unknown),
    ];
    keys.extend(ids.into_iter().filter_map(|(key, id)| Some((key, Value::Unsigned(id?.into())))));
    keys.push(("add_bos_token", Value::Bool(parts.add_bos && parts.bos.is_some())));
    Ok(keys.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect())
}

type Keys = Vec<(&'static str, Value)>;

fn byte_level(parts: &Parts, texts: &[Option<String>]) -> Result<Keys> {
    if !judge::normalizer(parts)?.is_empty() {
        let what = "a byte-level tokenizer that rewrites text before it cuts cannot be written in GGUF";
        return Err(Error::unsupported(what).at("normalizer"));
    }
    let steps = judge::splitter(parts)?;
    let name = Splitter::name_of(&steps, parts.rules.whole_words)?;
    let text = |id: u32| texts.get(id as usize).and_then(Option::as_deref).unwrap_or_default();
    let merges =
        parts.merges.iter().map(|merge| format!("{} {}", text(merge.left), text(merge.right))).collect();
    Ok(vec![
        ("model", Value::Text("gpt2".to_owned())),
        ("pre", Value::Text(name.to_owned())),
        ("merges", Value::Array(Array::Text(merges))),
    ])
}

fn sentence_piece(parts: &Parts, rows: usize) -> Keys {
    let mut scores = scores(parts);
    scores.resize(rows, 0.0);
    vec![
        ("model", Value::Text("llama".to_owned())),
        ("pre", Value::Text("default".to_owned())),
        ("scores", Value::Array(Array::Float(scores))),
        ("add_space_prefix", Value::Bool(parts.vocabulary.leading_space)),
    ]
}

/// A piece is merged the sooner the higher its score. What the merges of two pieces are mixed up with has the same.
fn scores(parts: &Parts) -> Vec<f64> {
    let wholes = || parts.merges.iter().map(|merge| merge.whole);
    let last: HashMap<u32, usize> = wholes().zip(0..).collect();
    let mut ranks: HashMap<u32, u32> = HashMap::new();
    let (mut rank, mut end) = (0, 0);
    for (at, whole) in wholes().enumerate() {
        rank += u32::from(at > end);
        end = end.max(last.get(&whole).copied().unwrap_or(at));
        ranks.entry(whole).or_insert(rank);
    }
    let of = |id: u32| match parts.vocabulary.role(id) {
        Some(Role::Text | Role::Added) => -f64::from(ranks.get(&id).copied().unwrap_or(rank + 1)),
        _ => 0.0,
    };
    parts.vocabulary.ids().map(of).collect()
}

fn types(parts: &Parts, texts: &[Option<String>], rows: usize, spelling: Spelling) -> Vec<i64> {
    let merged: HashSet<u32> = parts.merges.iter().map(|merge| merge.whole).collect();
    // Byte-level models have an unknown token for form's sake, if they have one.
    let names_unknown = spelling == Spelling::Space || !parts.covers_all_bytes();
    let of = |id: u32| {
        let text = texts.get(id as usize).and_then(Option::as_deref);
        match (parts.vocabulary.role(id), text) {
            (Some(Role::Special), _) if names_unknown && parts.rules.unknown == Some(id) => Type::Unknown,
            (Some(Role::Special), _) => Type::Control,
            (Some(Role::Added), _) => Type::UserDefined,
            (Some(Role::Byte), _) => Type::Byte,
            // Scores would make a merge of a piece that none makes.
            (Some(Role::Text), Some(text))
                if spelling == Spelling::Space && text.chars().nth(1).is_some() && !merged.contains(&id) =>
            {
                Type::Unused
            }
            (Some(Role::Text), _) => Type::Normal,
            (None, _) => Type::Unused,
        }
    };
    (0..).take(rows).map(|id| of(id).number()).collect()
}
