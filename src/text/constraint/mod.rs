//! What an answer must be, as data, and the guide that holds an answer to it: which tokens may come next.
//!
//! Matching is the `llguidance` crate's: an Earley parser over lexemes that are derivatives of regular expressions (Moskal
//! et al., "llguidance: making structured outputs go brrr", 2025), walked over the trie of the vocabulary. What is here says each
//! kind of constraint in its terms, refuses what it would pass over in silence ([`schema`]), and bounds what a text that
//! keeps to its grammar may still do to a reader ([`json`]).

mod gbnf;
mod json;
mod lexicon;
mod schema;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::SimpleVob;
use llguidance::{Matcher, regex_to_lark};
use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};

pub use lexicon::Lexicon;
pub(super) use schema::checked;

/// What the text of an answer must be. It either is, or ends with the reason `length`.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// JSON that is valid by this schema, the properties of objects in the schema's order. What of JSON Schema cannot be
    /// kept is refused by name.
    JsonSchema(Value),
    /// A JSON object, whatever is in it.
    JsonObject,
    /// All of the text matches this expression, in the syntax of the crate `regex`.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A grammar in Lark's syntax, as llguidance knows it; the text is a `start`.
    Lark(String),
    /// A grammar in llama.cpp's syntax; the text is a `root`.
    Gbnf(String),
}

/// Bytes of a grammar, a schema or a list, at most.
const MOST_BYTES: usize = 256 << 10;
/// How deep brackets of a grammar may be nested.
const MOST_NESTED: usize = 1000;

/// Holds one answer to its constraint. What it knows is a function of the constraint and the tokens pushed.
pub struct Guide {
    matcher: Matcher,
    /// What the answer may not end with, where it is to go on past its end.
    barred: Vec<u32>,
    /// How the text looks as JSON, where it has to.
    json: Option<json::Scan>,
    lexicon: Lexicon,
    /// Which tokens may come next, once it is known.
    mask: Option<SimpleVob>,
}

impl Constraint {
    /// The grammar in llguidance's terms.
    fn grammar(&self) -> Result<TopLevelGrammar> {
        Ok(match self {
            Self::JsonSchema(schema) => TopLevelGrammar::from_json_schema(schema::checked(schema)?),
            Self::JsonObject => {
                TopLevelGrammar::from_json_schema(schema::checked(&json!({"type": "object"}))?)
            }
            Self::Regex(regex) => {
                bounded(regex)?;
                TopLevelGrammar::from_lark(format!("start: /{}/", regex_to_lark(regex, "")))
            }
            Self::Choice(choices) => TopLevelGrammar::from_lark(choice(choices)?),
            Self::Lark(grammar) => {
                bounded(grammar)?;
                TopLevelGrammar::from_lark(grammar.clone())
            }
            Self::Gbnf(grammar) => {
                bounded(grammar)?;
                TopLevelGrammar::from_lark(gbnf::to_lark(grammar)?)
            }
        })
    }

    fn is_json(&self) -> bool {
        matches!(self, Self::JsonSchema(_) | Self::JsonObject)
    }

    /// How it is called in errors.
    fn noun(&self) -> &'static str {
        match self {
            Self::JsonSchema(_) | Self::JsonObject => "the JSON schema",
            Self::Regex(_) => "the regular expression",
            Self::Choice(_) => "the list of choices",
            Self::Lark(_) | Self::Gbnf(_) => "the grammar",
        }
    }
}

/// One terminal for all of them, so that none is taken for the beginning of another.
fn choice(choices: &[String]) -> Result<String> {
    if choices.is_empty() {
        return Err(Error::invalid("there is nothing to choose from").hint("give at least one text"));
    }
    let bytes = choices.iter().map(String::len).sum::<usize>();
    if bytes > MOST_BYTES {
        return Err(Error::invalid(format!("the choices have {bytes} bytes"))
            .hint(format!("{MOST_BYTES} are the most that works")));
    }
    let choices: Vec<String> =
        choices.iter().map(|choice| regex_to_lark(&regex::escape(choice), "")).collect();
    Ok(format!("start: /(?:{})/", choices.join("|")))
}

/// Refuses a text that is too long or too deep to be read by recursion.
fn bounded(text: &str) -> Result<()> {
    if text.len() > MOST_BYTES {
        return Err(Error::invalid(format!("the grammar has {} bytes", text.len()))
            .hint(format!("{MOST_BYTES} are the most that works")));
    }
    let mut depth = 0usize;
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MOST_NESTED {
            return Err(Error::invalid("the brackets of the grammar are nested too deep")
                .hint(format!("{MOST_NESTED} are the most that works")));
        }
    }
    Ok(())
}

impl Guide {
    /// Finds out which tokens may come next, if that is not known yet.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] where the grammar is too ambiguous to go on with within its limits, or where no token of the
    /// vocabulary can go on with the text.
    pub fn prepare(&mut self) -> Result<()> {
        if self.mask.is_some() {
            return Ok(());
        }
        let mut mask = self.matcher.compute_mask().map_err(|error| stuck(&error))?;
        for &token in &self.barred {
            mask.disallow_token(token);
        }
        if let Some(json) = &self.json {
            json.narrow(&mut mask, &self.lexicon);
        }
        if mask.is_zero() {
            return Err(stuck(&"no token can follow"));
        }
        self.mask = Some(mask);
        Ok(())
    }

    /// Which tokens may come next: bit `t % 32` of word `t / 32`. A token beyond is not allowed.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn allowed(&mut self) -> Result<&[u32]> {
        self.prepare()?;
        Ok(self.mask.as_ref().map_or(&[], SimpleVob::as_slice))
    }

    /// The tokens that follow next whatever the model would say, as its tokenizer cuts what the constraint leaves no choice about;
    /// none where there is a choice. Each is the only one that [`Self::allowed`] allows in its turn.
    pub fn forced(&mut self) -> Vec<u32> {
        let mut tokens = self.matcher.compute_ff_tokens();
        let allowed = tokens.iter().take_while(|token| !self.barred.contains(token)).count();
        tokens.truncate(allowed);
        tokens
    }

    /// Adds a token of the answer, not one that ends it: whether the text is complete and nothing may follow, or nothing
    /// that means anything.
    ///
    /// # Errors
    /// [`Kind::Internal`] where the token was not allowed; as [`Self::prepare`] otherwise.
    pub fn push(&mut self, token: u32) -> Result<bool> {
        self.mask = None;
        let pushed = self.matcher.try_consume_tokens(&[token]).map_err(|error| stuck(&error))?;
        if pushed == 0 {
            return Err(Error::internal(format!("token {token} is not allowed by the constraint")));
        }
        if let Some(json) = &mut self.json {
            self.lexicon.bytes(token).iter().for_each(|&byte| json.push(byte));
        }
        if self.matcher.is_stopped() {
            return Ok(true);
        }
        Ok(self.json.as_ref().is_some_and(json::Scan::is_closed) && self.is_complete()?)
    }

    /// Whether the text may end here.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn is_complete(&mut self) -> Result<bool> {
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(true);
        }
        self.matcher.is_accepting().map_err(|error| stuck(&error))
    }

    /// Whether all of `text` is what the constraint asks for, whatever was pushed before and instead of it.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn accepts(&mut self, text: &[u8]) -> Result<bool> {
        self.mask = None;
        self.matcher.reset().map_err(|error| stuck(&error))?;
        let Some(tokens) = self.lexicon.cut(text) else { return Ok(false) };
        let pushed = self.matcher.try_consume_tokens(&tokens).map_err(|error| stuck(&error))?;
        Ok(pushed == tokens.len() && self.is_complete()?)
    }
}

impl std::fmt::Debug for Guide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guide({})", if self.matcher.is_stopped() { "complete" } else { "open" })
    }
}

fn stuck(error: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Unsupported, format!("the constraint cannot be gone on with: {error}"))
        .hint("a plainer grammar would work")
}
