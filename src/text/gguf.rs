//! A tokenizer from GGUF metadata: the keys `tokenizer.ggml.*`, read as llama.cpp's `llama-vocab.cpp` does.

use tokenizers::models::bpe;
use tokenizers::normalizers::{Prepend, Replace, Sequence};
use tokenizers::{AddedToken, NormalizerWrapper};

use super::splitter::Splitter;
use super::tokenizer::Parts;
use super::vocabulary::{Role, SPACE, Spelling, Vocabulary, named_byte};
use crate::error::{Error, Result};
use crate::format::Metadata;

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

/// The longest piece that merges are derived for, in bytes: the work grows with the square.
const MAX_PIECE: usize = 1024;

/// `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

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
    let pieces = pieces(&tokens, |kind| !matches!(kind, Type::Control | Type::Unknown));
    Ok(Parts {
        vocabulary: vocabulary(&tokens, Spelling::ByteLevel)?,
        pieces,
        merges: merges(metadata)?,
        unknown: None,
        byte_fallback: false,
        fuse_unknown: false,
        whole_words: splitter.whole_words,
        added: added(&tokens),
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
    let pieces = pieces(&tokens, |kind| kind != Type::Control);
    let merges = merges_by_score(&tokens, scores, &pieces)?;
    let id = |key: &str, default: u32| Ok::<_, Error>(metadata.u32(key)?.unwrap_or(default));
    let unknown = id("tokenizer.ggml.unknown_token_id", 0)?;
    let unknown = tokens.get(unknown as usize).filter(|token| token.1 == Type::Unknown);
    let leading_space = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut vocabulary = vocabulary(&tokens, Spelling::Space)?;
    vocabulary.leading_space = leading_space;
    Ok(Parts {
        vocabulary,
        pieces,
        merges,
        unknown: unknown.map(|token| token.0.to_owned()),
        byte_fallback: true,
        fuse_unknown: true,
        whole_words: false,
        added: added(&tokens),
        normalizer: Some(visible_spaces(leading_space)?),
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
    texts.iter().zip(types).map(|(text, code)| Ok((text.as_str(), token_type(code)?))).collect()
}

fn token_type(code: i64) -> Result<Type> {
    Ok(match code {
        1 => Type::Normal,
        2 => Type::Unknown,
        3 => Type::Control,
        4 => Type::UserDefined,
        5 => Type::Unused,
        6 => Type::Byte,
        _ => return Err(Error::bad_file(format!("a token has the type {code}, not 1 to 6")).at(TYPES)),
    })
}

fn same_length<T>(tokens: &[T], length: usize, key: &str) -> Result<()> {
    if length == tokens.len() {
        return Ok(());
    }
    Err(Error::bad_file(format!("{length} entries for {} tokens", tokens.len())).at(key))
}

fn vocabulary(tokens: &[(&str, Type)], spelling: Spelling) -> Result<Vocabulary> {
    let mut vocabulary = Vocabulary::default();
    for &(text, kind) in tokens {
        match kind {
            Type::Normal | Type::Unused => vocabulary.push(&spelling.bytes(text), Role::Text)?,
            Type::UserDefined => vocabulary.push(text.as_bytes(), Role::Added)?,
            Type::Control | Type::Unknown => vocabulary.push(text.as_bytes(), Role::Special)?,
            Type::Byte => {
                let byte = named_byte(text)
                    .ok_or_else(|| Error::bad_file(format!("{text:?} is no byte like <0x0A>")).at(TOKENS))?;
                vocabulary.push(&[byte], Role::Byte)?;
            }
        }
    }
    Ok(vocabulary)
}

/// The ids of the tokens that text may become; of two with the same text the first.
fn pieces(tokens: &[(&str, Type)], wanted: impl Fn(Type) -> bool) -> bpe::Vocab {
    let mut pieces = bpe::Vocab::default();
    pieces.reserve(tokens.len());
    for (id, &(text, kind)) in (0..).zip(tokens) {
        if wanted(kind) {
            pieces.entry(text.to_owned()).or_insert(id);
        }
    }
    pieces
}

fn added(tokens: &[(&str, Type)]) -> Vec<(u32, AddedToken)> {
    let token = |(id, &(text, kind)): (u32, &(&str, Type))| {
        let special = match kind {
            Type::Control | Type::Unknown => true,
            Type::UserDefined => false,
            Type::Normal | Type::Unused | Type::Byte => return None,
        };
        Some((id, AddedToken::from(text, special).normalized(false)))
    };
    (0..).zip(tokens).filter_map(token).collect()
}

fn ends(metadata: &Metadata) -> Result<Vec<u32>> {
    let keys = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
    keys.into_iter().filter_map(|key| metadata.u32(key).transpose()).collect()
}

/// The file's own merges, `"left right"` each.
fn merges(metadata: &Metadata) -> Result<Vec<(String, String)>> {
    let lines =
        metadata.texts(MERGES)?.ok_or_else(|| Error::bad_file("the file has no merges").at(MERGES))?;
    let merge = |(i, line): (usize, &String)| {
        // A piece can begin with a space, so the search starts behind the first character.
        let first = line.chars().next().map_or(0, char::len_utf8);
        let space = line[first..].find(' ').map(|at| first + at);
        space
            .map(|at| (line[..at].to_owned(), line[at + 1..].to_owned()))
            .ok_or_else(|| Error::bad_file(format!("merge {i} is {line:?}, without a space")).at(MERGES))
    };
    lines.iter().enumerate().map(merge).collect()
}

/// SentencePiece merges whatever pair gives the piece of the highest score, so each way to cut a piece into two
/// pieces is a merge, and the scores are the order.
fn merges_by_score(
    tokens: &[(&str, Type)],
    scores: &[f64],
    pieces: &bpe::Vocab,
) -> Result<Vec<(String, String)>> {
    let mut merges = Vec::new();
    for (id, (&(text, kind), &score)) in (0u32..).zip(tokens.iter().zip(scores)) {
        // Text must never become a special token or a byte by merging.
        if !matches!(kind, Type::Normal | Type::UserDefined) || pieces.get(text) != Some(&id) {
            continue;
        }
        if score.is_nan() {
            return Err(Error::bad_file(format!("the score of token {id} is no number")).at(SCORES));
        }
        if text.len() > MAX_PIECE {
            return Err(Error::unsupported(format!("token {id} has {} bytes", text.len()))
                .at(TOKENS)
                .hint(format!("at most {MAX_PIECE} work")));
        }
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (pieces.get(left), pieces.get(right)) {
                merges.push((score, left_id, right_id, left, right));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    Ok(merges.into_iter().map(|(_, _, _, left, right)| (left.to_owned(), right.to_owned())).collect())
}

/// Spaces become `▁`, and each run of text begins with one where `leading` says so.
fn visible_spaces(leading: bool) -> Result<NormalizerWrapper> {
    let replace = Replace::new(" ", SPACE.to_string())
        .map_err(|error| Error::internal("the space cannot be replaced").caused_by(error))?;
    if !leading {
        return Ok(replace.into());
    }
    Ok(Sequence::new(vec![Prepend::new(SPACE.to_string()).into(), replace.into()]).into())
}
