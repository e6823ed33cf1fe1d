//! Typed and scored tokens, the form of a vocabulary in SentencePiece's models and in GGUF.

use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Prepend, Replace, Sequence};
use tokenizers::{AddedToken, NormalizerWrapper};

use super::merging::Merge;
use super::vocabulary::{Role, SPACE, Spelling, Vocabulary, named_byte};
use crate::error::{Error, Result};

/// The longest piece that merges are derived for, in bytes: the work grows with the square.
const MAX_PIECE: usize = 1024;

/// What a token is, numbered from 1 in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl Type {
    /// The number of the type.
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Normal => 1,
            Self::Unknown => 2,
            Self::Control => 3,
            Self::UserDefined => 4,
            Self::Unused => 5,
            Self::Byte => 6,
        }
    }

    /// The type with this number.
    pub(super) fn numbered(number: i64) -> Result<Self> {
        Ok(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return Err(Error::bad_file(format!("a token has the type {number}, not 1 to 6"))),
        })
    }
}

/// The bytes and roles of the tokens.
pub(super) fn vocabulary(tokens: &[(&str, Type)], spelling: Spelling) -> Result<Vocabulary> {
    let mut vocabulary = Vocabulary::new(spelling);
    for &(text, kind) in tokens {
        match kind {
            Type::Normal | Type::Unused => vocabulary.push(&spelling.bytes(text), Role::Text)?,
            Type::UserDefined => vocabulary.push(text.as_bytes(), Role::Added)?,
            Type::Control | Type::Unknown => vocabulary.push(text.as_bytes(), Role::Special)?,
            Type::Byte => {
                let byte = named_byte(text)
                    .ok_or_else(|| Error::bad_file(format!("{text:?} is no byte like <0x0A>")))?;
                vocabulary.push(&[byte], Role::Byte)?;
            }
        }
    }
    Ok(vocabulary)
}

/// Makes the tokens that are `wanted` those that cutting may give; `first` before any with the same text.
pub(super) fn index(
    vocabulary: &mut Vocabulary,
    tokens: &[(&str, Type)],
    first: Option<u32>,
    wanted: impl Fn(Type) -> bool,
) {
    let ids =
        first.into_iter().chain((0u32..).zip(tokens).filter(|(_, token)| wanted(token.1)).map(|(id, _)| id));
    let pieces = ids.filter_map(|id| Some((tokens.get(id as usize)?.0, id)));
    vocabulary.index(tokens.len() + 1, pieces);
}

/// The tokens that are found in a text before anything else.
pub(super) fn added(tokens: &[(&str, Type)]) -> Vec<(u32, AddedToken)> {
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

/// The tokens that merging may make: text must never become a special token or a byte.
pub(super) fn merged<'a>(tokens: &[(&'a str, Type)]) -> impl Iterator<Item = (u32, &'a str)> {
    let is_text = |kind| matches!(kind, Type::Normal | Type::UserDefined);
    (0..).zip(tokens).filter(move |(_, token)| is_text(token.1)).map(|(id, token)| (id, token.0))
}

/// SentencePiece and tiktoken merge whatever pair gives the piece of the highest score, so each way to cut a piece
/// into two pieces is a merge, and the scores are the order. `tokens` are those that merging may make.
pub(super) fn merges_by_score<T: AsRef<str>>(
    vocabulary: &Vocabulary,
    tokens: impl Iterator<Item = (u32, T)>,
    scores: &[f64],
) -> Result<Vec<Merge>> {
    // Two for a token, as a rule.
    let mut merges = Vec::with_capacity(2 * scores.len());
    let score = |id: u32| scores.get(id as usize).copied().unwrap_or_default();
    for (whole, text) in tokens {
        let text = text.as_ref();
        if vocabulary.piece(text) != Some(whole) {
            continue;
        }
        if score(whole).is_nan() {
            return Err(Error::bad_file(format!("the score of token {whole} is no number")));
        }
        if text.len() > MAX_PIECE {
            return Err(Error::unsupported(format!("token {whole} has {} bytes", text.len()))
                .hint(format!("at most {MAX_PIECE} work")));
        }
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if let (Some(left), Some(right)) = (vocabulary.piece(left), vocabulary.piece(right)) {
                merges.push(Merge { left, right, whole });
            }
        }
    }
    merges.sort_unstable_by(|a, b| {
        score(b.whole).total_cmp(&score(a.whole)).then((a.left, a.right).cmp(&(b.left, b.right)))
    });
    merges.shrink_to_fit();
    Ok(merges)
}

/// Spaces become `▁`, and each run of text begins with one where `leading` says so. With `single`, a run of spaces
/// becomes one first, and none at the start or the end.
pub(super) fn visible_spaces(leading: bool, single: bool) -> Result<NormalizerWrapper> {
    let replace = |pattern: ReplacePattern, content: String| {
        Replace::new(pattern, content)
            .map_err(|error| Error::internal("the spaces cannot be replaced").caused_by(error))
    };
    let regex = |pattern: &str| ReplacePattern::Regex(pattern.to_owned());
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if single {
        steps.push(replace(regex("^ +| +$"), String::new())?.into());
        steps.push(replace(regex(" {2,}"), " ".to_owned())?.into());
    }
    if leading {
        steps.push(Prepend::new(SPACE.to_string()).into());
    }
    steps.push(replace(" ".into(), SPACE.to_string())?.into());
    Ok(Sequence::new(steps).into())
}
