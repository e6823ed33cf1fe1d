//! A vocabulary as a trie of bytes, shared by all guides of a model.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use llguidance::api::{GrammarInit, ParserLimits};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{
    INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv,
};
use llguidance::{Logger, Matcher, ParserFactory};

use super::{Constraint, Guide, json};
use crate::error::{Error, Kind, Result};
use crate::text::{Special, Tokenizer};

/// The longest token that a guide allows: the trie counts parents in 10 bits, one of them for the marker.
const MOST_TOKEN: usize = 1000;
/// Nodes of the trie and ids of tokens, at most; it keeps them in 22 and 24 bits.
const MOST_NODES: usize = 1 << 22;
/// As many tokens of the same bytes are kept.
const MOST_ALIKE: u8 = 4;
/// What a special token's name begins with in the trie.
const MARKER: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
/// The stack for compiling, which recurses as deep as a grammar is nested within its limits. Only what is used of it is ever
/// in memory.
const STACK: usize = 256 << 20;

/// What the tokens of a model are as bytes. Cheap to clone.
#[derive(Clone)]
pub struct Lexicon {
    factory: Arc<ParserFactory>,
    /// Tokens in which an exponent of three digits stands: as numbers, no reader knows them.
    vast: Arc<[TokenId]>,
    ends: Arc<[TokenId]>,
}

/// How texts are cut: as the model learnt them, where its tokenizer cuts a part of a text as it is; else by the longest tokens, and
/// then nothing is forced.
struct Cutter {
    trie: TokTrie,
    tokenizer: Option<Arc<Tokenizer>>,
}

impl Cutter {
    fn new(trie: TokTrie, tokenizer: &Arc<Tokenizer>) -> Self {
        let mut cutter = Self { trie, tokenizer: None };
        // SentencePiece may put a space before a text.
        if cutter.faithful(tokenizer, "{\"a").is_some() {
            cutter.tokenizer = Some(tokenizer.clone());
        }
        cutter
    }

    /// The tokens of a text, where they are its very bytes: a normalizer may spell it otherwise.
    fn faithful(&self, tokenizer: &Tokenizer, text: &str) -> Option<Vec<TokenId>> {
        let tokens = tokenizer.encode(text, Special::Plain).ok()?;
        let mut rest = text.as_bytes();
        for &token in &tokens {
            rest = rest.strip_prefix(bytes_of(&self.trie, token)).filter(|left| left.len() < rest.len())?;
        }
        rest.is_empty().then_some(tokens)
    }
}

impl TokenizerEnv for Cutter {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let longest = |bytes: &[u8]| self.trie.greedy_tokenize(bytes);
        let Some(tokenizer) = &self.tokenizer else { return longest(bytes) };
        let cut = |text: &str| self.faithful(tokenizer, text).unwrap_or_else(|| longest(text.as_bytes()));
        self.trie.tokenize_with_greedy_fallback(bytes, cut)
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.tokenizer.is_some()
    }
}

/// The bytes of a token; none of a special one.
fn bytes_of(trie: &TokTrie, token: TokenId) -> &[u8] {
    let bytes = if (token as usize) < trie.vocab_size() { trie.token(token) } else { &[] };
    if bytes.first() == Some(&MARKER) { &[] } else { bytes }
}

impl Lexicon {
    /// The tokens of a tokenizer. Special ones are no text: those that end an answer follow a complete text, and the others
    /// follow only where a grammar names them.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] where the vocabulary is larger than any.
    pub fn new(tokenizer: &Arc<Tokenizer>) -> Result<Self> {
        let words = words(tokenizer)?;
        let bytes: usize = words.iter().map(Vec::len).sum();
        if words.len() >= MOST_NODES || bytes >= MOST_NODES {
            let what = format!("a vocabulary of {} tokens and {bytes} bytes", words.len());
            return Err(Error::unsupported(what).hint("constraints take up to 4 million of both"));
        }
        let ends = tokenizer.ends();
        let info = TokRxInfo::new(words.len() as u32, ends.first().copied().unwrap_or(INVALID_TOKEN));
        let trie = TokTrie::from(&info, &words);
        let trie = if ends.is_empty() { trie } else { trie.with_eos_tokens(&ends) };
        let vast = (0..).zip(&words).filter(|(_, word)| json::has_vast_exponent(word)).map(|(id, _)| id);
        let vast = vast.collect();
        let env: TokEnv = Arc::new(Cutter::new(trie, tokenizer));
        let slices = SlicedBiasComputer::json_slices();
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
            .map_err(|error| Error::internal(format!("the vocabulary cannot be cut into slices: {error}")))?;
        factory.quiet();
        *factory.limits_mut() =
            ParserLimits { max_lexer_states: 50_000, verbose_errors: false, ..ParserLimits::default() };
        Ok(Self { factory: Arc::new(factory), vast, ends: ends.into() })
    }

    /// A guide for one answer; one that does not end (`endless`) may not be closed by the model's own end.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] naming what of the constraint cannot be kept, or that it is too large;
    /// [`Kind::InvalidArgument`] where it makes no sense.
    pub fn guide(&self, constraint: &Constraint, endless: bool) -> Result<Guide> {
        let matcher = apart(|| self.compile(constraint))?;
        let json = constraint.is_json().then(json::Scan::default);
        let barred = if endless { self.ends.to_vec() } else { Vec::new() };
        Ok(Guide { matcher, barred, json, lexicon: self.clone(), mask: None })
    }

    fn compile(&self, constraint: &Constraint) -> Result<Matcher> {
        let grammar = constraint.grammar()?;
        let limits = self.factory.limits().clone();
        let parser = self.factory.create_parser_from_init_ext(
            GrammarInit::Serialized(grammar),
            Logger::new(0, 0),
            InferenceCapabilities::default(),
            limits,
        );
        let mut matcher = Matcher::new(parser);
        match matcher.get_error() {
            Some(error) => Err(refused(constraint, &error)),
            None => {
                if let Some(warning) = matcher.grammar_warnings().first() {
                    return Err(refused(constraint, warning));
                }
                Ok(matcher)
            }
        }
    }

    /// The bytes of a token.
    pub(super) fn bytes(&self, token: u32) -> &[u8] {
        bytes_of(self.factory.tok_env().tok_trie(), token)
    }

    /// Tokens with an exponent of three digits.
    pub(super) fn vast(&self) -> &[TokenId] {
        &self.vast
    }

    /// Bytes as tokens, or `None` where no token has one of them.
    pub(super) fn cut(&self, text: &[u8]) -> Option<Vec<TokenId>> {
        let tokens = self.factory.tok_env().tokenize_bytes(text);
        let length: usize = tokens.iter().map(|&token| self.bytes(token).len()).sum();
        (length == text.len()).then_some(tokens)
    }
}

impl std::fmt::Debug for Lexicon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lexicon({} tokens)", self.factory.tok_env().tok_trie().vocab_size())
    }
}

/// The bytes by token: none for a token that no answer may have.
fn words(tokenizer: &Tokenizer) -> Result<Vec<Vec<u8>>> {
    let mut alike: HashMap<&[u8], u8> = HashMap::new();
    let word = |id: u32| {
        let Some(bytes) = tokenizer.token_bytes(id).filter(|bytes| bytes.len() <= MOST_TOKEN) else {
            return Vec::new();
        };
        if tokenizer.is_special(id) || tokenizer.is_end(id) {
            return [&[MARKER], bytes].concat();
        }
        let seen = alike.entry(bytes).or_default();
        *seen = seen.saturating_add(1);
        // Text that looks like a marked name is not one.
        if *seen > MOST_ALIKE || (bytes.len() > 1 && bytes[0] == MARKER) {
            Vec::new()
        } else {
            bytes.to_vec()
        }
    };
    let count = u32::try_from(tokenizer.vocab_size())
        .map_err(|_| Error::unsupported("a vocabulary of more than 4 billion tokens"))?;
    Ok((0..count).map(word).collect())
}

/// What a grammar was refused for, in its own kind.
fn refused(constraint: &Constraint, error: &str) -> Error {
    let line = error.lines().next().unwrap_or("for no reason that is told");
    let what = format!("{} is refused: {line}", constraint.noun());
    let is_missing =
        ["Unimplemented", "not supported", "only supported", "Unknown format", "can't determine"]
            .iter()
            .chain(&["not disjoint", "Unable to determine", "too complex", "too large", "limit", "fuel"])
            .any(|words| error.contains(words));
    match is_missing {
        true => Error::unsupported(what).hint("docs/answers.md lists what works"),
        false => Error::invalid(what),
    }
}

/// Runs on a thread of its own, for the sake of its stack and of what may panic in it.
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("pocketlm-grammar".into()).stack_size(STACK);
        let thread = thread
            .spawn_scoped(scope, work)
            .map_err(|error| Error::new(Kind::OutOfMemory, "no stack for the grammar").caused_by(error))?;
        thread.join().unwrap_or_else(|_| Err(Error::internal("the grammar's compiler panicked")))
    })
}
