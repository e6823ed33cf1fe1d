//! SentencePiece's `tokenizer.model`: a protocol buffer with pieces, their scores, and how text is prepared.
//! Fields: `sentencepiece_model.proto` of google/sentencepiece.
//!
//! In one thing BPE models are read as llama.cpp and transformers do and not as the library: what follows a
//! user-defined symbol begins with a space of its own.

use tokenizers::AddedToken;

use super::merging::Rules;
use super::pieces::{Type, added, index, merged, merges_by_score, visible_spaces, vocabulary};
use super::protobuf::{Field, fields};
use super::tokenizer::Parts;
use super::unigram::Unigram;
use super::vocabulary::{Role, Spelling, Vocabulary, named_byte};
use crate::error::{Error, Result};
use crate::format::Config;

/// A model as the file has it.
#[derive(Debug)]
struct File<'a> {
    tokens: Vec<(&'a str, Type)>,
    scores: Vec<f64>,
    kind: u64,
    byte_fallback: bool,
    unknown: u64,
    /// Absent is an id that is not there: -1.
    bos: i64,
    eos: i64,
    suffix: bool,
    rules: bool,
    leading_space: bool,
    single_spaces: bool,
    visible_spaces: bool,
}

const UNIGRAM: u64 = 1;
const BPE: u64 = 2;

/// The score of a user-defined symbol, whatever the file says: nearly that of certainty.
const USER_DEFINED_SCORE: f32 = -0.1;

/// The parts of a tokenizer; `config` is `tokenizer_config.json`, which may add tokens.
pub(super) fn parts(bytes: &[u8], config: Option<&Config>) -> Result<Parts> {
    let file = File::read(bytes)?;
    file.refuse_unknown()?;
    let empty = Config::default();
    let config = config.unwrap_or(&empty);
    let mut vocabulary = vocabulary(&file.tokens, Spelling::Space)?;
    vocabulary.leading_space = file.leading_space;
    let mut added = added(&file.tokens);
    // A unigram model weighs its user-defined symbols with the other pieces.
    added.retain(|(_, token)| file.kind == BPE || token.special);
    add_tokens(&mut vocabulary, &mut added, config)?;
    let (unigram, merges) = if file.kind == UNIGRAM {
        index(&mut vocabulary, &file.tokens, None, |kind| matches!(kind, Type::Normal | Type::UserDefined));
        (Some(file.unigram()?), Vec::new())
    } else {
        index(&mut vocabulary, &file.tokens, None, |kind| kind != Type::Control);
        (None, merges_by_score(&vocabulary, merged(&file.tokens), &file.scores)?)
    };
    let unknown = file.unknown_token().and_then(|(_, text)| vocabulary.piece(text));
    let id = |id: i64| u32::try_from(id).ok().filter(|&id| (id as usize) < file.tokens.len());
    Ok(Parts {
        vocabulary,
        merges,
        unigram,
        rules: Rules { unknown, byte_fallback: file.byte_fallback, fuse_unknown: true, whole_words: false },
        added,
        normalizer: Some(visible_spaces(file.leading_space, file.single_spaces)?),
        splitter: None,
        bos: id(file.bos),
        eos: id(file.eos),
        add_bos: config.bool("add_bos_token")?.unwrap_or(true),
        ends: Vec::new(),
    })
}

impl<'a> File<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut file = Self {
            tokens: Vec::new(),
            scores: Vec::new(),
            kind: UNIGRAM,
            byte_fallback: false,
            unknown: 0,
            bos: 1,
            eos: 2,
            suffix: false,
            rules: false,
            leading_space: true,
            single_spaces: true,
            visible_spaces: true,
        };
        for field in fields(bytes) {
            match field? {
                (1, Field::Bytes(piece)) => file.piece(piece)?,
                (2, Field::Bytes(trainer)) => file.trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => file.normalizer(normalizer)?,
                _ => {}
            }
        }
        Ok(file)
    }

    fn piece(&mut self, message: &'a [u8]) -> Result<()> {
        let id = self.tokens.len();
        let (mut text, mut score, mut kind) = ("", 0.0, 1);
        for field in fields(message) {
            match field? {
                (1, Field::Bytes(bytes)) => {
                    text = std::str::from_utf8(bytes).map_err(|error| {
                        Error::bad_file(format!("piece {id} is not UTF-8")).caused_by(error)
                    })?;
                }
                (2, Field::Four(bytes)) => score = f32::from_le_bytes(bytes),
                (3, Field::Number(number)) => kind = i64::try_from(number).unwrap_or(0),
                _ => {}
            }
        }
        if text.is_empty() || !score.is_finite() {
            return Err(Error::bad_file(format!("piece {id} is {text:?} with the score {score}")));
        }
        self.tokens.push((text, Type::numbered(kind)?));
        self.scores.push(score.into());
        Ok(())
    }

    fn trainer(&mut self, message: &[u8]) -> Result<()> {
        for field in fields(message) {
            match field? {
                (3, Field::Number(kind)) => self.kind = kind,
                (24, Field::Number(flag)) => self.suffix = flag != 0,
                (35, Field::Number(flag)) => self.byte_fallback = flag != 0,
                (40, Field::Number(id)) => self.unknown = id,
                // Negative numbers are written in 64 bits.
                (41, Field::Number(id)) => self.bos = id as i64,
                (42, Field::Number(id)) => self.eos = id as i64,
                _ => {}
            }
        }
        Ok(())
    }

    fn normalizer(&mut self, message: &[u8]) -> Result<()> {
        for field in fields(message) {
            match field? {
                (2, Field::Bytes(rules)) => self.rules = !rules.is_empty(),
                (3, Field::Number(flag)) => self.leading_space = flag != 0,
                (4, Field::Number(flag)) => self.single_spaces = flag != 0,
                (5, Field::Number(flag)) => self.visible_spaces = flag != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn refuse_unknown(&self) -> Result<()> {
        let what = match self {
            Self { kind, .. } if ![UNIGRAM, BPE].contains(kind) => "a model of words or characters",
            Self { rules: true, .. } => "a model that rewrites characters before it cuts",
            Self { suffix: true, .. } => "a model that puts the space behind a word",
            Self { visible_spaces: false, .. } => "a model that keeps spaces as they are",
            _ => return Ok(()),
        };
        Err(Error::unsupported(format!("{what} (SentencePiece)"))
            .hint("put the model's tokenizer.json into the folder"))
    }

    fn unknown_token(&self) -> Option<(u32, &'a str)> {
        let id = u32::try_from(self.unknown).ok()?;
        let token = self.tokens.get(id as usize).filter(|token| token.1 == Type::Unknown)?;
        Some((id, token.0))
    }

    fn unigram(&self) -> Result<Unigram> {
        let Some((unknown, _)) = self.unknown_token() else {
            return Err(Error::bad_file(format!("token {} is not the unknown one", self.unknown)));
        };
        let mut scores = Vec::with_capacity(self.tokens.len());
        let mut lowest = f32::MAX;
        let mut longest = 0;
        let mut bytes = [None; 256];
        for (id, (&(text, kind), &score)) in (0u32..).zip(self.tokens.iter().zip(&self.scores)) {
            let score = if kind == Type::UserDefined { USER_DEFINED_SCORE } else { score as f32 };
            scores.push(score);
            match kind {
                Type::Normal | Type::UserDefined => longest = longest.max(text.len()),
                Type::Byte => {
                    if let Some(byte) = named_byte(text) {
                        bytes[usize::from(byte)] = Some(id);
                    }
                }
                Type::Unknown | Type::Control | Type::Unused => {}
            }
            if kind == Type::Normal {
                lowest = lowest.min(score);
            }
        }
        let missing = || Error::bad_file("the model falls back to bytes, but lacks some of their tokens");
        let bytes = match self.byte_fallback {
            true => {
                let all: Option<Vec<u32>> = bytes.into_iter().collect();
                Some(all.and_then(|all| all.into_boxed_slice().try_into().ok()).ok_or_else(missing)?)
            }
            false => None,
        };
        Ok(Unigram::new(scores, longest, lowest, unknown, bytes))
    }
}

/// Tokens that `added_tokens_decoder` numbers behind those of the model.
fn add_tokens(
    vocabulary: &mut Vocabulary,
    added: &mut Vec<(u32, AddedToken)>,
    config: &Config,
) -> Result<()> {
    let key = "added_tokens_decoder";
    let Some(tokens) = config.object(key)? else { return Ok(()) };
    let refuse = |id: &str| Error::bad_file(format!("added token {id} makes no sense")).at(key);
    let mut more = Vec::new();
    for (text, token) in tokens.iter() {
        let id: u32 = text.parse().map_err(|_| refuse(text))?;
        let content =
            token.get("content").and_then(|content| content.as_str()).ok_or_else(|| refuse(text))?;
        if id as usize >= vocabulary.len() {
            let special = token.get("special").and_then(|special| special.as_bool()).unwrap_or(false);
            more.push((id, AddedToken::from(content, special).normalized(false)));
        }
    }
    more.sort_by_key(|&(id, _)| id);
    for (id, token) in more {
        if id as usize != vocabulary.len() {
            return Err(Error::bad_file(format!(
                "added token {id} stands where {} belongs",
                vocabulary.len()
            ))
            .at(key));
        }
        vocabulary.push(token.content.as_bytes(), if token.special { Role::Special } else { Role::Added })?;
        added.push((id, token));
    }
    Ok(())
}
