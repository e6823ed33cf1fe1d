//! Text to token ids and back, whatever file the vocabulary came from.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokenizers::models::wordlevel::WordLevel;
use tokenizers::{AddedToken, AddedVocabulary, OffsetReferential, OffsetType, PreTokenizer};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use super::decoder::Decoder;
use super::merging::{Bpe, Merge, Rules, Work};
use super::unigram::Unigram;
use super::vocabulary::{Role, Vocabulary};
use super::{gguf, json, sentence_piece, tiktoken};
use crate::error::{Error, Result};
use crate::format::{Array, Config, Dialect, Metadata, Value};

/// Whether the names of special tokens in a text mean the tokens or are text like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// `<|im_start|>` is the token: for rendered chat templates.
    Parse,
    /// `<|im_start|>` is twelve characters: for text that is not trusted.
    Plain,
}

/// A vocabulary with the rules that cut text into its tokens. Immutable and shared freely.
pub struct Tokenizer {
    vocabulary: Arc<Vocabulary>,
    normalizer: Option<NormalizerWrapper>,
    splitter: Option<PreTokenizerWrapper>,
    model: Model,
    parse: AddedVocabulary,
    plain: AddedVocabulary,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    ends: BTreeSet<u32>,
}

/// How a word becomes tokens.
enum Model {
    Bpe(Bpe),
    Unigram(Unigram),
}

/// What a file must say for a [`Tokenizer`] to be built.
pub(super) struct Parts {
    /// With the tokens that cutting a text may give.
    pub(super) vocabulary: Vocabulary,
    /// The first to be done first.
    pub(super) merges: Vec<Merge>,
    /// The model of scores, where it is one: then there are no merges.
    pub(super) unigram: Option<Unigram>,
    pub(super) rules: Rules,
    /// Tokens found in the text before anything else, with their ids.
    pub(super) added: Vec<(u32, AddedToken)>,
    pub(super) normalizer: Option<NormalizerWrapper>,
    pub(super) splitter: Option<PreTokenizerWrapper>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) add_bos: bool,
    /// Ends of generation that the file names besides `eos`.
    pub(super) ends: Vec<u32>,
}

/// The conversation as Llama 3's model card describes it.
const LLAMA_3_TEMPLATE: &str = include_str!("template/llama3.jinja");

/// Special tokens that end an answer in the models that have them, whether their files say so or not.
const END_NAMES: &[&str] = &[
    "</s>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<end_of_turn>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_turn|>",
    "<|end_of_role|>",
    "<|endofturn|>",
    "<｜end▁of▁sentence｜>",
    "<|eos|>",
    "<EOT>",
    "<eos>",
];

impl Parts {
    /// Those of a file `tokenizer.model`.
    pub(super) fn of_model(tokenizer_model: &[u8], tokenizer_config: Option<&Config>) -> Result<Self> {
        // The first field of SentencePiece's message; base64 has no such byte.
        match tokenizer_model.starts_with(b"\n") {
            true => sentence_piece::parts(tokenizer_model, tokenizer_config),
            false => tiktoken::parts(tokenizer_model),
        }
    }
}

impl Tokenizer {
    /// From GGUF metadata: byte-level BPE or SentencePiece.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`] where the metadata lacks a key or contradicts itself,
    /// [`crate::Kind::Unsupported`] for another kind of tokenizer or an unknown way to cut words.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        Self::build(gguf::parts(metadata)?)
    }

    /// From Hugging Face's `tokenizer.json`, with BOS and EOS from `tokenizer_config.json` where given.
    ///
    /// # Errors
    /// As [`from_gguf`](Self::from_gguf).
    pub fn from_json(tokenizer_json: &[u8], tokenizer_config: Option<&Config>) -> Result<Self> {
        Self::build(json::parts(tokenizer_json, tokenizer_config)?)
    }

    /// From a file `tokenizer.model`: SentencePiece's, or Llama 3's list of tokens in base64; with what
    /// `tokenizer_config.json` adds where given.
    ///
    /// # Errors
    /// As [`from_gguf`](Self::from_gguf).
    pub fn from_model(tokenizer_model: &[u8], tokenizer_config: Option<&Config>) -> Result<Self> {
        Self::build(Parts::of_model(tokenizer_model, tokenizer_config)?)
    }

    /// About how many bytes of the process the tokenizer of a checkpoint takes that has `tokens` tokens: texts, merges, and
    /// tables of both, each of a power of two of places; and what each text of a GGUF's metadata leaves to the allocator, which
    /// is the most of it. Within a fifth for the vocabularies that it was measured with (SmolLM2's, Llama 2's and 3's, Qwen 2's,
    /// and those of `tests/peak.rs`).
    pub fn footprint(dialect: &Dialect, tokens: u32) -> u64 {
        let tokens = u64::from(tokens);
        let listed = |metadata: &Metadata| match metadata.get("tokenizer.ggml.merges") {
            Some(Value::Array(Array::Text(merges))) => Some(merges.len() as u64),
            _ => None,
        };
        let (merges, texts) = match dialect {
            Dialect::Gguf(metadata) => {
                let merges = listed(metadata);
                (merges.unwrap_or(2 * tokens), tokens + merges.unwrap_or(0))
            }
            Dialect::HuggingFace(_) | Dialect::Meta(_) => (2 * tokens, 0),
        };
        let places = |count: u64| (count + count / 3 + 1).next_power_of_two();
        12 * (tokens + merges) + 4 * (places(tokens) + places(merges)) + 34 * texts
    }

    /// The ids of `text`, without BOS or EOS.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] where the library that cuts words refuses; no text is known for which it does.
    /// [`crate::Kind::InvalidArgument`] for a word of 4 GiB.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>> {
        let added = match special {
            Special::Parse => &self.parse,
            Special::Plain => &self.plain,
        };
        let cut = || {
            let mut words = added.extract_and_normalize(self.normalizer.as_ref(), text);
            if let Some(splitter) = &self.splitter {
                splitter.pre_tokenize(&mut words)?;
            }
            Ok(words)
        };
        let refuse = |error: tokenizers::Error| Error::internal("the text has no words").caused_by(error);
        let words = cut().map_err(refuse)?;
        let (mut ids, mut work) = (Vec::new(), Work::default());
        for (word, _, tokens) in words.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            match (tokens, &self.model) {
                (Some(tokens), _) => ids.extend(tokens.iter().map(|token| token.id)),
                (None, Model::Bpe(model)) => model.cut(&self.vocabulary, word, &mut work, &mut ids)?,
                (None, Model::Unigram(model)) => model.cut(&self.vocabulary, word, &mut ids),
            }
        }
        Ok(ids)
    }

    /// The text of `ids`; special tokens are left out or spelled out. Lossy only where the bytes are no UTF-8.
    pub fn decode(&self, ids: &[u32], keep_special: bool) -> String {
        let mut decoder = self.decoder(None, keep_special);
        let mut text: String = ids.iter().map(|&id| decoder.push(id)).collect();
        text += &decoder.finish();
        text
    }

    /// A decoder for the tokens that follow `after`. SentencePiece spells the start of a text with a space: it
    /// is dropped at the start (`None`) and after a special token, and kept where text goes on.
    pub fn decoder(&self, after: Option<u32>, keep_special: bool) -> Decoder {
        let starts = after.is_none_or(|id| self.is_special(id));
        Decoder::new(self.vocabulary.clone(), starts && self.vocabulary.leading_space, keep_special)
    }

    /// The bytes that a token stands for (a special one: its name), or `None` where no token has the id. A
    /// character can span several tokens.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.bytes(id)
    }

    /// The bytes of a token as text, U+FFFD where they are not UTF-8.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.token_bytes(id).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The tokens in which one of these texts stands.
    pub fn tokens_with(&self, texts: &[&str]) -> Vec<u32> {
        let holds = |id: &u32| {
            let bytes = self.token_bytes(*id).unwrap_or_default();
            texts.iter().any(|text| bytes.windows(text.len().max(1)).any(|part| part == text.as_bytes()))
        };
        self.vocabulary.ids().filter(holds).collect()
    }

    /// Whether a token steers the model and is no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocabulary.role(id) == Some(Role::Special)
    }

    /// Whether the model has finished when it gives this token: end of sequence, turn or message.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The tokens that end an answer.
    pub fn ends(&self) -> Vec<u32> {
        self.ends.iter().copied().collect()
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether the model expects a raw text to begin with [`bos`](Self::bos), by its file or its family.
    pub fn add_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }

    /// The chat template of the family that the special tokens belong to, for files that bring none: Llama 3's.
    pub fn family_template(&self) -> Option<&'static str> {
        family_template(&self.vocabulary)
    }

    /// One more than the highest id.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    pub(super) fn build(mut parts: Parts) -> Result<Self> {
        check_ids(&parts)?;
        parts.vocabulary.shrink();
        let ends = ends(&parts.vocabulary, &parts.ends, parts.eos);
        let (parse, plain) = added(&parts)?;
        let model = match parts.unigram {
            Some(unigram) => Model::Unigram(unigram),
            None => Model::Bpe(Bpe::new(&parts.vocabulary, parts.merges, parts.rules)?),
        };
        Ok(Self {
            vocabulary: Arc::new(parts.vocabulary),
            normalizer: parts.normalizer,
            splitter: parts.splitter,
            model,
            parse,
            plain,
            bos: parts.bos,
            eos: parts.eos,
            add_bos: parts.add_bos,
            ends,
        })
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens, {:?})", self.vocab_size(), self.splitter)
    }
}

fn check_ids(parts: &Parts) -> Result<()> {
    let count = parts.vocabulary.len();
    if count == 0 {
        return Err(Error::bad_file("the vocabulary is empty"));
    }
    let named = [("BOS", parts.bos), ("EOS", parts.eos)];
    let ends = parts.ends.iter().map(|&id| ("end", Some(id)));
    for (name, id) in named.into_iter().chain(ends) {
        if let Some(id) = id.filter(|&id| parts.vocabulary.role(id).is_none()) {
            return Err(Error::bad_file(format!(
                "the {name} token is {id}, but the vocabulary has {count} tokens"
            )));
        }
    }
    Ok(())
}

/// The tokens that end an answer: `named`, EOS, and those that are known by their names.
pub(super) fn ends(vocabulary: &Vocabulary, named: &[u32], eos: Option<u32>) -> BTreeSet<u32> {
    let known = |&id: &u32| {
        let name = || vocabulary.bytes(id).and_then(|bytes| std::str::from_utf8(bytes).ok());
        vocabulary.role(id) == Some(Role::Special) && name().is_some_and(|name| END_NAMES.contains(&name))
    };
    named.iter().copied().chain(eos).chain(vocabulary.ids().filter(known)).collect()
}

/// See [`Tokenizer::family_template`].
pub(super) fn family_template(vocabulary: &Vocabulary) -> Option<&'static str> {
    let special = |name: &str| {
        let is =
            |id| vocabulary.role(id) == Some(Role::Special) && vocabulary.bytes(id) == Some(name.as_bytes());
        vocabulary.ids().any(is)
    };
    (special("<|start_header_id|>") && special("<|eot_id|>")).then_some(LLAMA_3_TEMPLATE)
}

/// The finders of added tokens: with the special ones and without.
fn added(parts: &Parts) -> Result<(AddedVocabulary, AddedVocabulary)> {
    let refuse = |error| Error::bad_file("the added tokens cannot be searched for").caused_by(error);
    // The finder takes ids from a model; the pieces lack special tokens, so this one has just what is added.
    let ids = parts.added.iter().map(|(id, token)| (token.content.clone(), *id)).collect();
    let ids = WordLevel::builder().vocab(ids).build().map_err(refuse)?;
    let mut parse = AddedVocabulary::new();
    let tokens = parts.added.iter().map(|(_, token)| token.clone());
    parse.add_tokens(tokens, &ids, parts.normalizer.as_ref()).map_err(refuse)?;
    let mut plain = AddedVocabulary::new();
    let tokens = parts.added.iter().filter(|(_, token)| !token.special).map(|(_, token)| token.clone());
    plain.add_tokens(tokens, &ids, parts.normalizer.as_ref()).map_err(refuse)?;
    Ok((parse, plain))
}
