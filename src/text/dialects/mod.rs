//! A tokenizer in the words of another dialect: GGUF's keys `tokenizer.*`, or Hugging Face's `tokenizer.json` and
//! `tokenizer_config.json`.
//!
//! What has been written is read back at once, and must be the same: the same bytes, roles and merges, the same cut into
//! words, the same beginning and ends. A tokenizer that the dialect has no words for is refused.

mod gguf;
mod json;
mod judge;

use std::collections::HashMap;

use serde_json::Value as Json;

use crate::error::{Error, Kind, Result};
use crate::format::{Config, Dialect, Metadata, Value};

use super::tokenizer::{Parts, Tokenizer, ends, family_template};
use super::vocabulary::{Role, Spelling};
use super::{gguf as gguf_reader, json as json_reader};
pub(super) use judge::steps;
use judge::{judge, noted};

/// A tokenizer as GGUF has it.
#[derive(Debug, Default)]
pub struct GgufWords {
    /// Keys with their values.
    pub entries: Vec<(String, Value)>,
    /// What GGUF says otherwise, a clause each.
    pub notes: Vec<String>,
}

/// A tokenizer as a Hugging Face folder has it.
#[derive(Debug, Default)]
pub struct FolderWords {
    /// Names of files with their content.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// The token that begins a sequence.
    pub bos: Option<u32>,
    /// The token that ends one.
    pub eos: Option<u32>,
    /// What the dialect says otherwise, a clause each.
    pub notes: Vec<String>,
}

/// The tokenizer and the chat template of a model in `dialect`, for a GGUF whose embedding has `rows` rows; nothing where
/// the model brings none.
///
/// # Errors
/// [`crate::Kind::Unsupported`] for a tokenizer that GGUF has no words for, and those of [`Tokenizer::of`].
pub fn to_gguf(dialect: &Dialect, rows: u32) -> Result<GgufWords> {
    let Some(parts) = Parts::of(dialect)? else { return Ok(GgufWords::default()) };
    let (mut words, parts) = match (gguf_words(parts, rows), dialect) {
        (Err(error), Dialect::HuggingFace(files)) if error.kind() == Kind::Unsupported => {
            // SentencePiece's own file says in its way what a tokenizer.json beside it may say in another.
            let (Some(_), Some(model)) = (&files.tokenizer_json, &files.tokenizer_model) else {
                return Err(error);
            };
            let parts = Parts::of_model(model, files.tokenizer_config.as_ref())?;
            let (mut words, parts) =
                gguf_words(parts.with_ends(files.generation_config.as_ref()), rows).map_err(|_| error)?;
            words.notes.push("the tokenizer is that of tokenizer.model, not of tokenizer.json".to_owned());
            (words, parts)
        }
        (words, _) => words?,
    };
    let template = chat_template(dialect, || family_template(&parts.vocabulary))?;
    words.entries.extend(template.map(|text| ("tokenizer.chat_template".to_owned(), Value::Text(text))));
    Ok(words)
}

fn gguf_words(parts: Parts, rows: u32) -> Result<(GgufWords, Parts)> {
    let entries = gguf::describe(&parts, rows as usize)?;
    let mut metadata = Metadata::default();
    entries.iter().try_for_each(|(key, value)| metadata.insert(key.clone(), value.clone()))?;
    let read = gguf_reader::parts(&metadata).map_err(|error| unread("GGUF", error))?;
    judge("GGUF", &parts, &read)?;
    Ok((GgufWords { entries, notes: noted(&parts) }, parts))
}

/// The tokenizer and the chat template of a model in `dialect`, for a Hugging Face folder; nothing where the model brings
/// none.
///
/// # Errors
/// [`crate::Kind::Unsupported`] for a tokenizer that the dialect has no words for, and those of [`Tokenizer::of`].
pub fn to_hugging_face(dialect: &Dialect) -> Result<FolderWords> {
    let Some(parts) = Parts::of(dialect)? else { return Ok(FolderWords::default()) };
    let texts = parts.texts()?;
    let tokenizer = json::describe(&parts, &texts)?;
    let settings =
        json::settings(&parts, &texts, chat_template(dialect, || family_template(&parts.vocabulary))?);
    let generation = json::generation(&parts);
    let read = json_reader::parts(&tokenizer, Some(&settings))
        .map(|parts| parts.with_ends(Some(&generation)))
        .map_err(|error| unread("tokenizer.json", error))?;
    judge("tokenizer.json", &parts, &read)?;
    let files = vec![
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings.to_json()),
        ("generation_config.json", generation.to_json()),
    ];
    Ok(FolderWords { files, bos: parts.bos, eos: parts.eos, notes: Vec::new() })
}

/// The error for what cannot be read back.
fn unread(dialect: &str, error: Error) -> Error {
    Error::unsupported(format!("{dialect} cannot say this tokenizer")).caused_by(error)
}

impl Tokenizer {
    /// The tokenizer of a model in `dialect`, if it brings one.
    ///
    /// # Errors
    /// As [`Self::from_gguf`].
    pub fn of(dialect: &Dialect) -> Result<Option<Self>> {
        Parts::of(dialect)?.map(Self::build).transpose()
    }

    /// The chat template of a model in `dialect` with this tokenizer; for Meta's folders that of the family.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] where it is no text.
    pub fn chat_template(dialect: &Dialect, tokenizer: Option<&Self>) -> Result<Option<String>> {
        chat_template(dialect, || tokenizer?.family_template())
    }
}

fn chat_template(
    dialect: &Dialect,
    of_family: impl FnOnce() -> Option<&'static str>,
) -> Result<Option<String>> {
    Ok(match dialect {
        Dialect::Gguf(metadata) => metadata.text("tokenizer.chat_template")?.map(str::to_owned),
        Dialect::HuggingFace(files) => files.chat_template.clone(),
        Dialect::Meta(_) => of_family().map(str::to_owned),
    })
}

impl Parts {
    /// The tokenizer of a model in `dialect`, if it brings one.
    fn of(dialect: &Dialect) -> Result<Option<Self>> {
        match dialect {
            Dialect::Gguf(metadata) => {
                metadata.get("tokenizer.ggml.model").map(|_| gguf_reader::parts(metadata)).transpose()
            }
            Dialect::HuggingFace(files) => {
                let config = files.tokenizer_config.as_ref();
                let parts = match (&files.tokenizer_json, &files.tokenizer_model) {
                    (Some(json), _) => json_reader::parts(json, config).map(Some),
                    (None, Some(model)) => Self::of_model(model, config).map(Some),
                    (None, None) => Ok(None),
                };
                Ok(parts?.map(|parts| parts.with_ends(files.generation_config.as_ref())))
            }
            Dialect::Meta(files) => {
                files.tokenizer_model.as_ref().map(|model| Self::of_model(model, None)).transpose()
            }
        }
    }

    /// With the ends of generation that `generation_config.json` names: an id, or a list. What is none of the vocabulary
    /// is no reason not to run the model.
    fn with_ends(mut self, generation: Option<&Config>) -> Self {
        let Some(ends) = generation.and_then(|config| config.get("eos_token_id")) else { return self };
        let ids: Vec<&Json> = ends.as_array().map_or_else(|| vec![ends], |ids| ids.iter().collect());
        let ids = ids.into_iter().filter_map(|id| u32::try_from(id.as_u64()?).ok());
        self.ends.extend(ids.filter(|&id| self.vocabulary.role(id).is_some()));
        self
    }

    /// The spelled text of each token, `None` for an id that none has.
    fn texts(&self) -> Result<Vec<Option<String>>> {
        let vocabulary = &self.vocabulary;
        let refuse = |id: u32| Error::unsupported(format!("token {id} is not UTF-8 and no piece"));
        let text =
            |id: u32| vocabulary.role(id).map(|_| vocabulary.text(id).ok_or_else(|| refuse(id))).transpose();
        let odd: HashMap<u32, &str> = vocabulary.odd_pieces().map(|(text, id)| (id, text)).collect();
        let is_text = |id: &u32| vocabulary.role(*id) == Some(Role::Text);
        let odd = |id: u32| Some((*odd.get(&id).filter(|_| is_text(&id))?).to_owned());
        vocabulary.ids().map(|id| odd(id).map_or_else(|| text(id), |text| Ok(Some(text)))).collect()
    }

    /// Whether each byte has a token, so that no text is unknown.
    fn covers_all_bytes(&self) -> bool {
        let vocabulary = &self.vocabulary;
        match vocabulary.spelling() {
            Spelling::ByteLevel => {
                (0..=255).all(|byte| vocabulary.piece(&Spelling::byte_level(&[byte])).is_some())
            }
            Spelling::Space => {
                let bytes = vocabulary.ids().filter(|&id| vocabulary.role(id) == Some(Role::Byte));
                self.rules.byte_fallback && bytes.count() >= 256
            }
        }
    }

    /// The ends of generation that follow from EOS and from the names of tokens.
    fn known_ends(&self) -> std::collections::BTreeSet<u32> {
        ends(&self.vocabulary, &[], self.eos)
    }
}
