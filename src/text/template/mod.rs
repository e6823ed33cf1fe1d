//! Chat templates: a conversation to the text that the model was trained on.
//!
//! A model file carries its template in Jinja, written for the environment that Hugging Face's transformers
//! sets up (`chat_template_utils.py`): immutable sandbox, `trim_blocks`, `lstrip_blocks`, loop controls,
//! `generation` blocks, `tojson`, `raise_exception`, `strftime_now`. minijinja renders it here.

mod json;
mod time;

use std::collections::BTreeMap;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value as Jinja};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

use crate::error::{Error, Kind, Result};

/// The longest prompt that a template may render, in bytes.
const MAX_OUTPUT: usize = 64 << 20;

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

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles a template for a model with these special tokens, as text; empty where it has none.
    ///
    /// # Errors
    /// [`Kind::Template`] with the line where the source is no Jinja.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        let mut environment = environment()?;
        environment
            .add_template_owned(NAME, without_generation_blocks(source))
            .map_err(|error| refuse("the chat template cannot be compiled", &error))?;
        Ok(Self { environment, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// [`Kind::Template`] where the template refuses the conversation (with its own words), fails, or runs
    /// longer or larger than any sound one.
    pub fn render(&self, request: &ChatRequest) -> Result<String> {
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|error| Error::internal("the chat template is lost").caused_by(error))?;
        template.render(self.context(request)).map_err(|error| refuse("the chat template failed", &error))
    }

    fn context(&self, request: &ChatRequest) -> Jinja {
        let messages: Vec<Jinja> = request.messages.iter().map(|message| Serde(&message.0).into()).collect();
        let now = request.now;
        let strftime = move |format: &str| time::format(now, format);
        let fixed = [
            ("messages", messages.into()),
            ("tools", Serde(&request.tools).into()),
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

fn environment() -> Result<Environment<'static>> {
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|error| Error::internal("the template syntax is not accepted").caused_by(error))?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(1_000_000));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", json::tojson);
    environment.add_function("raise_exception", |message: String| -> Result<Jinja, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, "the template refuses")
            .with_source(Raised(message)))
    });
    Ok(environment)
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

fn refuse(what: &str, error: &minijinja::Error) -> Error {
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
        Some(detail) => format!("{what}: {}: {detail}", error.kind()),
        None => format!("{what}: {}", error.kind()),
    };
    let refused = Error::new(Kind::Template, what);
    match error.line() {
        Some(line) => refused.at(format!("line {line}")),
        None => refused,
    }
}

/// The source with `{% generation %}` blocks, which only mark text for training, as blocks that always run.
fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        rest = tag;
        let Some(end) = tag.find("%}") else { break };
        let inner = &tag[..end];
        match inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => out.push_str(&inner.replace("generation", "if true")),
            "endgeneration" => out.push_str(&inner.replace("endgeneration", "endif")),
            _ => continue,
        }
        rest = &tag[end..];
    }
    out + rest
}
