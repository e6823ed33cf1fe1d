//! Chat templates: a conversation to the text that the model was trained on.
//!
//! A model file carries its template in Jinja, written for the environment that Hugging Face's transformers
//! sets up (`chat_template_utils.py`): immutable sandbox, `trim_blocks`, `lstrip_blocks`, loop controls,
//! `generation` blocks, `tojson`, `raise_exception`, `strftime_now`. minijinja renders it here.

mod compile;
mod json;
mod limits;
mod python;
mod time;

use std::collections::BTreeMap;
use std::time::SystemTime;

use minijinja::machinery::{Instructions, eval, get_compiled_template, make_string_output};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value as Jinja};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

use super::tools::Manner;
use crate::error::{Error, Kind, Result};

/// The stack for compiling and rendering, which recurse as deep as a hostile template is nested within its
/// limits. Only what is used of it is ever in memory.
const STACK: usize = 256 << 20;

/// A message of a conversation: a JSON object as chat clients send it, its keys in the order given.
#[derive(Clone, Debug, PartialEq)]
pub struct Message(pub Map<String, Value>);

impl Message {
    /// A message with a role (`system`, `user`, `assistant`, `tool`) and a text.
    pub fn new(role: &str, content: &str) -> Self {
        Self(Map::from_iter([("role".to_owned(), role.into()), ("content".to_owned(), content.into())]))
    }
}

/// What a template renders.
#[derive(Clone, Debug)]
pub struct ChatRequest<'a> {
    /// The conversation.
    pub messages: &'a [Message],
    /// The tools that the model may call, as JSON schemas.
    pub tools: Option<Value>,
    /// Documents for retrieval.
    pub documents: Option<Value>,
    /// Whether the text ends with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Further variables, such as `enable_thinking`. They win over those above.
    pub extra: Map<String, Value>,
    /// The time that `strftime_now` formats, in UTC.
    pub now: SystemTime,
}

impl<'a> ChatRequest<'a> {
    /// A request for the assistant's next turn, without tools.
    pub fn new(messages: &'a [Message], now: SystemTime) -> Self {
        Self { messages, tools: None, documents: None, add_generation_prompt: true, extra: Map::new(), now }
    }
}

/// A chat template that compiles.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// A template for a model with these special tokens, as text; empty where it has none.
    ///
    /// # Errors
    /// [`Kind::Template`] with the line where the source is no Jinja.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        let environment = environment()?;
        let source = compile::prepare(source, environment.syntax()).map_err(|error| refuse(&error))?;
        let template = Self { environment, source, bos: bos.to_owned(), eos: eos.to_owned() };
        apart(|| template.compile().map(drop))?;
        Ok(template)
    }

    /// Whether it says something of tools.
    pub fn knows_tools(&self) -> bool {
        self.source.contains("tools")
    }

    /// How its model writes calls of tools, where it shows that.
    pub fn manner(&self) -> Option<Manner> {
        if self.knows_tools() { Manner::of(&self.source) } else { Some(Manner::Hermes) }
    }

    /// The template itself.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// [`Kind::Template`] where the template refuses the conversation (with its own words), fails, or runs
    /// longer or larger than any sound one.
    pub fn render(&self, request: &ChatRequest) -> Result<String> {
        apart(|| {
            let code = self.compile()?;
            let mut text = String::new();
            let mut out = make_string_output(&mut text);
            let rendered =
                eval(&self.environment, &code, self.context(request), &NO_BLOCKS, &mut out, AutoEscape::None);
            drop(rendered?);
            Ok(text)
        })
    }

    fn compile(&self) -> Result<Instructions<'_>, minijinja::Error> {
        let template = self.environment.template_from_named_str(NAME, &self.source)?;
        compile::limited(&get_compiled_template(&template).instructions)
    }

    fn context(&self, request: &ChatRequest) -> Jinja {
        let messages: Vec<Jinja> = request.messages.iter().map(|message| Serde(&message.0).into()).collect();
        let now = request.now;
        let strftime = move |format: &str| time::format(now, format);
        let fixed = [
            ("messages", messages.into()),
            ("tools", Serde(&request.tools).into()),
            // SmolLM3's own name for those that are called in JSON, beside another for those in code.
            ("xml_tools", Serde(&request.tools).into()),
            ("documents", Serde(&request.documents).into()),
            ("add_generation_prompt", request.add_generation_prompt.into()),
            ("bos_token", self.bos.as_str().into()),
            ("eos_token", self.eos.as_str().into()),
            ("strftime_now", Jinja::from_function(strftime)),
        ];
        let extra = request.extra.iter().map(|(key, value)| (key.as_str(), Serde(value).into()));
        let all = fixed.into_iter().chain(extra).map(|(key, value)| (key.to_owned(), value));
        all.collect::<BTreeMap<String, Jinja>>().into()
    }
}

static NO_BLOCKS: BTreeMap<&str, Instructions<'static>> = BTreeMap::new();

/// Runs on a thread of its own, for the sake of its stack.
fn apart<T: Send>(work: impl FnOnce() -> Result<T, minijinja::Error> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(NAME.to_owned()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, || work().map_err(|error| refuse(&error)));
        let thread = thread.map_err(|error| {
            Error::new(Kind::OutOfMemory, "no stack for the chat template").caused_by(error)
        })?;
        thread.join().unwrap_or_else(|_| Err(Error::internal("the chat template panicked")))
    })
}

fn environment() -> Result<Environment<'static>> {
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|error| Error::internal("the template syntax is not accepted").caused_by(error))?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_debug(true);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.add_function("raise_exception", raise);
    python::install(&mut environment);
    limits::install(&mut environment);
    Ok(environment)
}

fn raise(message: String) -> Result<Jinja, minijinja::Error> {
    let refusal = minijinja::Error::new(ErrorKind::InvalidOperation, "the template refuses");
    Err(refusal.with_source(Raised(message)))
}

/// What a template says with `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn refuse(error: &minijinja::Error) -> Error {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return Error::new(
                Kind::Template,
                format!("the chat template refuses the conversation: {message}"),
            );
        }
        source = cause.source();
    }
    let what = match error.detail() {
        Some(detail) => format!("the chat template fails: {}: {detail}", error.kind()),
        None => format!("the chat template fails: {}", error.kind()),
    };
    let refused = Error::new(Kind::Template, what);
    match error.line() {
        Some(line) => refused.at(format!("line {line}")),
        None => refused,
    }
}
