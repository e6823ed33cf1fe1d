//! Calls out of an answer as it grows. What turns out to be no call is text, and nothing of an answer is lost.

use serde_json::{Map, Value};

use super::call::{self, Object, arguments_of};
use super::{Manner, Tool, ToolCall, coder, gemma, python};

/// What a piece of an answer brings.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Text outside calls.
    Text(String),
    /// More of the arguments of a call, as the model writes them.
    Arguments {
        /// The call's id.
        id: String,
        /// The tool's name.
        name: String,
        /// More of them.
        text: String,
    },
    /// A call that is whole.
    Call(ToolCall),
}

/// Reads calls of one manner.
#[derive(Debug)]
pub struct Reader {
    manner: Manner,
    /// The tools that there are: where anything might be a call, a call is of one of these.
    tools: Vec<Tool>,
    /// Goes into the ids, so that those of other answers are others.
    salt: u32,
    count: u32,
    /// What was not read yet.
    held: String,
    /// What was passed over since the last text or call: marks, brackets, commas. Text, where no call follows.
    passed: String,
    state: State,
    /// Something other than space was text.
    begun: bool,
    /// Arguments of the call under way were told.
    told: bool,
}

/// What surrounds calls that are read as they are written.
#[derive(Clone, Copy, Debug)]
struct Form {
    /// They stand in brackets, with commas between them.
    list: bool,
    /// They may be in Python's notation.
    python: bool,
    /// No mark said that there are calls, so a call is of a tool that is known.
    bare: bool,
}

#[derive(Debug)]
enum State {
    /// Between calls.
    Outside,
    /// Before a call.
    Before(Form),
    /// In one.
    Written(Form, Written),
    /// In a call whose text is read when it is whole, which `close` says, or the brace where there is none.
    Whole { close: &'static str },
    /// Behind a call: passes over what closes it.
    Behind(Form),
}

/// A call that is being written.
#[derive(Debug)]
enum Written {
    Json(Box<Object>),
    Python(Box<python::Call>),
}

const GEMMA_ESCAPE: &str = "<escape>";
const GEMMA4_ESCAPE: &str = "<|\"|>";
const PYTHON: &str = "<|python_tag|>";
const CALLS: &str = "[TOOL_CALLS]";
const ARGS: &str = "[ARGS]";
const CALL_ID: &str = "[CALL_ID]";
/// Bytes of a call that is read when it is whole, at most.
const MOST: usize = 1 << 20;
/// Bytes of a name with its marks, at most.
const MOST_NAME: usize = 512;

impl Manner {
    /// What stands before calls and behind them; nothing behind those that end by themselves.
    pub(super) fn marks(self) -> (&'static str, &'static str) {
        match self {
            Self::Hermes | Self::Coder => ("<tool_call>", "</tool_call>"),
            Self::Llama => (PYTHON, ""),
            Self::Mistral => (CALLS, ""),
            Self::Gemma => ("<start_function_call>", "<end_function_call>"),
            Self::Gemma4 => ("<|tool_call>", "<tool_call|>"),
            // Granite's models close none, and are forgiven where they do.
            Self::Phi | Self::Granite => ("<|tool_call|>", "<|/tool_call|>"),
            Self::Lfm => ("<|tool_call_start|>", "<|tool_call_end|>"),
        }
    }
}

impl Reader {
    /// Of calls in `manner` of these tools.
    pub fn new(manner: Manner, tools: Vec<Tool>, salt: u32) -> Self {
        let (held, passed) = (String::new(), String::new());
        Self { manner, tools, salt, count: 0, held, passed, state: State::Outside, begun: false, told: false }
    }

    /// What `text` brings.
    pub fn push(&mut self, text: &str) -> Vec<News> {
        self.held += text;
        let mut news = Vec::new();
        while self.step(&mut news, false) {}
        joined(news)
    }

    /// No text follows.
    pub fn finish(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        while self.step(&mut news, true) {}
        // A call that is not whole is none.
        self.no_call(&mut news);
        let held = std::mem::take(&mut self.held);
        self.text(&mut news, held);
        joined(news)
    }

    /// Whether something was read, and more might be.
    fn step(&mut self, news: &mut Vec<News>, is_last: bool) -> bool {
        match &self.state {
            State::Outside => self.outside(news, is_last),
            State::Before(_) => self.before(news),
            State::Written(..) => self.written(news),
            State::Whole { .. } if self.manner == Manner::Mistral => self.named(news, is_last),
            State::Whole { .. } => self.whole(news),
            State::Behind(_) => self.behind(is_last),
        }
    }

    fn outside(&mut self, news: &mut Vec<News>, is_last: bool) -> bool {
        let (mark, close) = self.manner.marks();
        let found = self.held.find(mark);
        // Llama's calls may stand bare where the answer begins.
        let is_bare = |&at: &usize| {
            self.manner == Manner::Llama && !self.begun && self.held[at..].starts_with(['{', '['])
        };
        let bare = self.held.find(|c: char| !c.is_whitespace()).filter(is_bare);
        if let Some(at) = bare.filter(|&at| found.is_none_or(|found| at < found)) {
            self.pass(at);
            self.state = State::Before(Form { list: false, python: false, bare: true });
            return true;
        }
        let Some(at) = found else {
            if self.manner == Manner::Llama && !self.begun && !is_last && self.held.trim_start().is_empty() {
                return false;
            }
            let keep = if is_last { self.held.len() } else { self.held.len() - beginning(&self.held, mark) };
            let text: String = self.held.drain(..keep).collect();
            self.text(news, text);
            return false;
        };
        let text: String = self.held.drain(..at).collect();
        self.text(news, text);
        self.pass(mark.len());
        let python = matches!(self.manner, Manner::Llama | Manner::Lfm);
        self.state = match self.manner {
            Manner::Mistral | Manner::Gemma | Manner::Gemma4 | Manner::Coder => State::Whole { close },
            _ => State::Before(Form { list: false, python, bare: self.manner == Manner::Llama }),
        };
        true
    }

    /// Passes over space and a bracket that opens a list.
    fn before(&mut self, news: &mut Vec<News>) -> bool {
        let State::Before(form) = self.state else { return false };
        let Some((at, c)) = self.held.char_indices().find(|(_, c)| !c.is_whitespace()) else { return false };
        self.state = match c {
            '{' => State::Written(form, Written::Json(Box::default())),
            // Llama's models write a list of calls in Python's notation without a mark.
            '[' if !form.list => {
                let python = form.python || self.manner == Manner::Llama;
                self.pass(at + 1);
                State::Before(Form { list: true, python, ..form })
            }
            c if form.python && python::Call::begins(c) => {
                State::Written(form, Written::Python(Box::default()))
            }
            _ => {
                self.no_call(news);
                return true;
            }
        };
        if !matches!(self.state, State::Before(_)) {
            self.pass(at);
        }
        true
    }

    fn written(&mut self, news: &mut Vec<News>) -> bool {
        let State::Written(form, call) = &mut self.state else { return false };
        let form = *form;
        let mut taken = 0;
        let mut outcome = Some(false);
        for c in self.held.chars() {
            taken += c.len_utf8();
            outcome = call.push(c, &self.tools);
            if outcome != Some(false) {
                break;
            }
        }
        let known = |name: &str| !form.bare || self.tools.iter().any(|known| known.name == name);
        let more = call.more().filter(|(name, _)| known(name));
        let read = if outcome == Some(true) { call.read().filter(|(name, _)| known(name)) } else { None };
        self.held.drain(..taken);
        if let Some((name, text)) = more {
            news.push(News::Arguments { id: self.id(), name, text });
            self.told = true;
        }
        match (outcome, read) {
            (Some(false), _) => false,
            (Some(true), Some((name, arguments))) => {
                self.call(news, name, arguments);
                self.state = State::Behind(form);
                true
            }
            _ => {
                self.no_call(news);
                true
            }
        }
    }

    /// Calls that are not streamed.
    fn whole(&mut self, news: &mut Vec<News>) -> bool {
        let State::Whole { close } = self.state else { return false };
        let Some(end) = self.held.find(close).filter(|&end| end <= MOST) else {
            if self.held.len() > MOST {
                self.no_call(news);
                return true;
            }
            return false;
        };
        let text: String = self.held.drain(..end + close.len()).collect();
        let read = match self.manner {
            Manner::Gemma => gemma::read(&text[..end], GEMMA_ESCAPE),
            Manner::Gemma4 => gemma::read(&text[..end], GEMMA4_ESCAPE),
            _ => coder::read(&text[..end], &self.tools).or_else(|| call::whole(&text[..end])),
        };
        match read {
            Some((name, arguments)) => {
                self.call(news, name, arguments);
                self.state = State::Outside;
            }
            None => {
                self.passed += &text;
                self.no_call(news);
            }
        }
        true
    }

    /// Mistral's, which are not streamed where they stand by name.
    fn named(&mut self, news: &mut Vec<News>, is_last: bool) -> bool {
        match self.held.trim_start().chars().next() {
            None => return false,
            Some('[') if !CALL_ID.starts_with(self.held.trim_start()) => {
                self.state = State::Before(Form { list: false, python: false, bare: false });
                return true;
            }
            Some(_) => {}
        }
        // name[ARGS]{…}, perhaps with [CALL_ID] before the arguments.
        let Some(brace) = self.held.find('{').filter(|&brace| brace <= MOST_NAME) else {
            if is_last || self.held.len() > MOST_NAME {
                self.no_call(news);
                return true;
            }
            return false;
        };
        let head = self.held[..brace].replace(ARGS, "");
        let name = head.split(CALL_ID).next().unwrap_or_default().trim().to_owned();
        let mut stream = serde_json::Deserializer::from_str(&self.held[brace..]).into_iter::<Value>();
        let (value, end) = match stream.next() {
            Some(Ok(value)) => (value, stream.byte_offset()),
            Some(Err(error)) if error.is_eof() && !is_last && self.held.len() <= MOST => return false,
            _ => {
                self.no_call(news);
                return true;
            }
        };
        self.pass(brace + end);
        match arguments_of(value) {
            Some(arguments) => {
                self.call(news, name, arguments);
                self.state = State::Outside;
            }
            None => self.no_call(news),
        }
        true
    }

    fn behind(&mut self, is_last: bool) -> bool {
        let State::Behind(form) = self.state else { return false };
        let (_, close) = self.manner.marks();
        let rest = self.held.trim_start();
        let space = self.held.len() - rest.len();
        let (skip, state) = match rest.chars().next() {
            None if is_last => (space, State::Outside),
            None => return false,
            Some(',' | ';') if form.list || self.manner == Manner::Llama => (space + 1, State::Before(form)),
            Some(']') if form.list => (space + 1, State::Behind(Form { list: false, ..form })),
            Some(_) if !close.is_empty() && rest.starts_with(close) => (space + close.len(), State::Outside),
            Some(_) if close.starts_with(rest) && !is_last => return false,
            Some(_) => (0, State::Outside),
        };
        self.pass(skip);
        if !matches!(state, State::Before(_)) {
            // What closes calls belongs to them.
            self.passed.clear();
        }
        self.state = state;
        true
    }

    /// Takes so many bytes, which are text if no call follows.
    fn pass(&mut self, bytes: usize) {
        self.passed.extend(self.held.drain(..bytes));
    }

    fn call(&mut self, news: &mut Vec<News>, name: String, arguments: Map<String, Value>) {
        // What was not streamed is told all the same.
        let id = self.id();
        if !std::mem::take(&mut self.told) {
            let text = Value::Object(arguments.clone()).to_string();
            news.push(News::Arguments { id: id.clone(), name: name.clone(), text });
        }
        news.push(News::Call(ToolCall { id, name, arguments }));
        self.count += 1;
        self.begun = true;
        self.passed.clear();
    }

    /// What was taken for a call is text.
    fn no_call(&mut self, news: &mut Vec<News>) {
        self.told = false;
        let mut text = std::mem::take(&mut self.passed);
        if let State::Written(_, call) = &self.state {
            text += call.text();
        }
        self.state = State::Outside;
        self.text(news, text);
    }

    /// The id of the next call.
    fn id(&self) -> String {
        format!("c{:06x}{:02x}", self.salt & 0xff_ffff, self.count & 0xff)
    }

    fn text(&mut self, news: &mut Vec<News>, text: String) {
        self.begun |= !text.trim().is_empty();
        if !text.is_empty() {
            news.push(News::Text(text));
        }
    }
}

impl Written {
    fn push(&mut self, c: char, tools: &[Tool]) -> Option<bool> {
        match self {
            Self::Json(object) => object.push(c),
            Self::Python(call) => call.push(c, tools),
        }
    }

    fn more(&mut self) -> Option<(String, String)> {
        match self {
            Self::Json(object) => object.more(),
            Self::Python(call) => call.more(),
        }
    }

    fn read(&self) -> Option<(String, Map<String, Value>)> {
        match self {
            Self::Json(object) => object.read(),
            Self::Python(call) => call.read(),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Json(object) => object.text(),
            Self::Python(call) => call.text(),
        }
    }
}

/// Bytes at the end of `text` that begin `mark`.
fn beginning(text: &str, mark: &str) -> usize {
    let ends = mark.char_indices().map(|(at, _)| at).skip(1);
    ends.filter(|&end| text.ends_with(&mark[..end])).max().unwrap_or(0)
}

fn joined(news: Vec<News>) -> Vec<News> {
    let mut joined: Vec<News> = Vec::with_capacity(news.len());
    for piece in news {
        match (joined.last_mut(), piece) {
            (Some(News::Text(before)), News::Text(text)) => before.push_str(&text),
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

#[cfg(test)]
mod tests;
