//! A tokenizer from GGUF metadata: the keys `tokenizer.ggml.*`, read as llama.cpp's `llama-vocab.cpp` does.

use tokenizers::AddedToken;

use super::merging::{Merge, MergeReader, Rules};
use super::pieces::{Type, added, index, merged, merges_by_score, visible_spaces, vocabulary};
use super::splitter::Splitter;
use super::tokenizer::Parts;
use super::vocabulary::{Spelling, Vocabulary};
use crate::error::{Error, Result};
use crate::format::Metadata;

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

pub(super) fn parts(metadata: &Metadata) -> Result<Parts> {
    match metadata.text("tokenizer.ggml.model")? {
        Some("gpt2") => byte_level(metadata),
        Some("llama") => sentence_piece(metadata),
        Some(other) => Err(Error::unsupported(format!("the tokenizer model {other:?} is not known"))
            .at("tokenizer.ggml.model")
            .hint("known are gpt2 (byte-level BPE) and llama (SentencePiece)")),
        None => Err(Error::bad_file("the file has no tokenizer").at("tokenizer.ggml.model")),
    }
}

fn byte_level(metadata: &Metadata) -> Result<Parts> {
    let pre = metadata.text("tokenizer.ggml.pre")?.ok_or_else(|| {
        Error::unsupported("the file does not say how text is cut into words")
            .at("tokenizer.ggml.pre")
            .hint("convert the model again with a current tool")
    })?;
    let splitter = Splitter::named(pre).map_err(|error| error.at("tokenizer.ggml.pre"))?;
    let tokens = tokens(metadata)?;
    let mut vocabulary = vocabulary(&tokens, Spelling::ByteLevel).map_err(|error| error.at(TOKENS))?;
    // For vocabularies that lack bytes; others have none of this type.
    let unknown = metadata.u32("tokenizer.ggml.unknown_token_id")?;
    let unknown = unknown.filter(|&id| tokens.get(id as usize).is_some_and(|token| token.1 == Type::Unknown));
    index(&mut vocabulary, &tokens, unknown, |kind| !matches!(kind, Type::Control | Type::Unknown));
    let added = added(&tokens);
    drop(tokens);
    Ok(Parts {
        merges: merges(metadata, &vocabulary, &added)?,
        vocabulary,
        unigram: None,
        rules: Rules { unknown, whole_words: splitter.whole_words, ..Rules::default() },
        added,
        normalizer: None,
        splitter: Some(splitter.build()?),
        bos: metadata.u32("tokenizer.ggml.bos_token_id")?,
        eos: metadata.u32("tokenizer.ggml.eos_token_id")?,
        add_bos: metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(splitter.add_bos),
        ends: ends(metadata)?,
    })
}

fn sentence_piece(metadata: &Metadata) -> Result<Parts> {
    let tokens = tokens(metadata)?;
    let scores = metadata
        .floats(SCORES)?
        .ok_or_else(|| Error::bad_file("the tokenizer needs scores to merge by").at(SCORES))?;
    same_length(&tokens, scores.len(), SCORES)?;
    let mut vocabulary = vocabulary(&tokens, Spelling::Space).map_err(|error| error.at(TOKENS))?;
    index(&mut vocabulary, &tokens, None, |kind| kind != Type::Control);
    let merges = merges_by_score(&vocabulary, merged(&tokens), scores).map_err(|error| error.at(SCORES))?;
    let id = |key: &str, default: u32| Ok::<_, Error>(metadata.u32(key)?.unwrap_or(default));
    let unknown = id("tokenizer.ggml.unknown_token_id", 0)?;
    let unknown = tokens.get(unknown as usize).filter(|token| token.1 == Type::Unknown);
    let leading_space = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    vocabulary.leading_space = leading_space;
    let unknown = unknown.and_then(|token| vocabulary.piece(token.0));
    Ok(Parts {
        vocabulary,
        merges,
        unigram: None,
        rules: Rules { unknown, byte_fallback: true, fuse_unknown: true, whole_words: false },
        added: added(&tokens),
        normalizer: Some(visible_spaces(leading_space, false)?),
        splitter: None,
        bos: Some(id("tokenizer.ggml.bos_token_id", 1)?),
        eos: Some(id("tokenizer.ggml.eos_token_id", 2)?),
        add_bos: metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(true),
        ends: ends(metadata)?,
    })
}

/// The tokens with their types; all are normal where the file has no types.
fn tokens(metadata: &Metadata) -> Result<Vec<(&str, Type)>> {
    let texts =
        metadata.texts(TOKENS)?.ok_or_else(|| Error::bad_file("the file has no tokens").at(TOKENS))?;
    if texts.is_empty() {
        return Err(Error::bad_file("the vocabulary is empty").at(TOKENS));
    }
    let Some(types) = metadata.integers(TYPES)? else {
        return Ok(texts.iter().map(|text| (text.as_str(), Type::Normal)).collect());
    };
    same_length(texts, types.len(), TYPES)?;
    let mut tokens = Vec::with_capacity(texts.len());
    for (text, code) in texts.iter().zip(types) {
        tokens.push((text.as_str(), Type::numbered(code).map_err(|error| error.at(TYPES))?));
    }
    Ok(tokens)
}

fn same_length<T>(tokens: &[T], length: usize, key: &str) -> Result<()> {
    if length == tokens.len() {
        return Ok(());
    }
    Err(Error::bad_file(format!("{length} entries for {} tokens", tokens.len())).at(key))
}

fn ends(metadata: &Metadata) -> Result<Vec<u32>> {
    let keys = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
    keys.into_iter().filter_map(|key| metadata.u32(key).transpose()).collect()
}

/// The file's own merges, `"left right"` each.
fn merges(metadata: &Metadata, vocabulary: &Vocabulary, added: &[(u32, AddedToken)]) -> Result<Vec<Merge>> {
    let lines =
        metadata.texts(MERGES)?.ok_or_else(|| Error::bad_file("the file has no merges").at(MERGES))?;
    let mut merges = MergeReader::new(vocabulary, added, lines.len());
    for line in lines {
        // A piece can begin with a space, so the search starts behind the first character.
        let first = line.chars().next().map_or(0, char::len_utf8);
        let space = line[first..].find(' ').map(|at| first + at);
        let pair = space.map(|at| (&line[..at], &line[at + 1..]));
        merges.read(pair.ok_or_else(|| format!("{line:?}, without a space")));
    }
    merges.finish().map_err(|error| error.at(MERGES))
}
