//! Calls out of an answer as it grows. What turns out to be no call is text.

use serde_json::{Map, Value};

use super::call::{Object, arguments_of};
use super::{Manner, ToolCall, gemma};

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
    /// The tools that there are: in Llama's manner, where any JSON might be a call, a call is of one of these.
    names: Vec<String>,
    /// Goes into the ids, so that those of other answers are others.
    salt: u32,
    count: u32,
    /// What was not read yet.
    held: String,
    state: State,
    /// Something other than space was text.
    begun: bool,
}

#[derive(Debug)]
enum State {
    /// Between calls.
    Outside,
    /// In a JSON object; behind the mark, and in a list of them where a bracket was.
    Object { mark: &'static str, list: bool, object: Object },
    /// In a call whose text is read when it is whole, which `close` says, or the brace where there is none.
    Whole { mark: &'static str, close: &'static str },
    /// Behind a call: passes over what closes it.
    Behind { list: bool },
}

const HERMES: (&str, &str) = ("<tool_call>", "</tool_call>");
const GEMMA: (&str, &str) = ("<start_function_call>", "<end_function_call>");
const PYTHON: &str = "<|python_tag|>";
const CALLS: &str = "[TOOL_CALLS]";
const ARGS: &str = "[ARGS]";
const CALL_ID: &str = "[CALL_ID]";

impl Reader {
    /// Of calls in `manner` of tools with these names.
    pub fn new(manner: Manner, names: Vec<String>, salt: u32) -> Self {
        Self { manner, names, salt, count: 0, held: String::new(), state: State::Outside, begun: false }
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
        let rest = match std::mem::replace(&mut self.state, State::Outside) {
            State::Object { mark, object, .. } => format!("{mark}{}", object.text()),
            State::Whole { mark, .. } => mark.to_owned(),
            State::Outside | State::Behind { .. } => String::new(),
        };
        self.text(&mut news, rest);
        let held = std::mem::take(&mut self.held);
        self.text(&mut news, held);
        joined(news)
    }

    /// Whether something was read, and more might be.
    fn step(&mut self, news: &mut Vec<News>, is_last: bool) -> bool {
        match &mut self.state {
            State::Outside => self.outside(news, is_last),
            State::Object { .. } => self.object(news),
            State::Whole { .. } => self.whole(news, is_last),
            State::Behind { .. } => self.behind(is_last),
        }
    }

    fn outside(&mut self, news: &mut Vec<News>, is_last: bool) -> bool {
        let mark = match self.manner {
            Manner::Hermes => HERMES.0,
            Manner::Llama => PYTHON,
            Manner::Mistral => CALLS,
            Manner::Gemma => GEMMA.0,
        };
        let found = self.held.find(mark);
        // Llama's calls may stand bare where the answer begins.
        let bare = self
            .held
            .find(|c: char| !c.is_whitespace())
            .filter(|&at| self.manner == Manner::Llama && !self.begun && self.held[at..].starts_with('{'));
        if let Some(at) = bare.filter(|&at| found.is_none_or(|found| at < found)) {
            self.held.drain(..at);
            self.state = State::Object { mark: "", list: false, object: Object::default() };
            return true;
        }
        let Some(at) = found else {
            let keep = if is_last { self.held.len() } else { self.held.len() - beginning(&self.held, mark) };
            let text: String = self.held.drain(..keep).collect();
            self.text(news, text);
            return false;
        };
        let text: String = self.held.drain(..at).collect();
        self.text(news, text);
        self.held.drain(..mark.len());
        self.state = match self.manner {
            Manner::Hermes | Manner::Llama => State::Object { mark, list: false, object: Object::default() },
            Manner::Gemma => State::Whole { mark, close: GEMMA.1 },
            Manner::Mistral => State::Whole { mark, close: "" },
        };
        true
    }

    fn object(&mut self, news: &mut Vec<News>) -> bool {
        let State::Object { mark, list, object } = &mut self.state else { return false };
        let (mark, is_list) = (*mark, *list);
        let mut taken = 0;
        let mut outcome = Some(false);
        for c in self.held.chars() {
            // A list, which Hermes' manner may have too.
            if object.text().trim().is_empty() && c == '[' && !is_list && !mark.is_empty() {
                *list = true;
                taken += c.len_utf8();
                continue;
            }
            taken += c.len_utf8();
            outcome = object.push(c);
            if outcome != Some(false) {
                break;
            }
        }
        let known = |name: &str| self.manner != Manner::Llama || self.names.iter().any(|known| known == name);
        let more = object.more().filter(|(name, _)| known(name));
        let list = *list;
        let call = if outcome == Some(true) { object.read().filter(|(name, _)| known(name)) } else { None };
        let is_wrong = outcome.is_none() || (outcome == Some(true) && call.is_none());
        let text = if is_wrong { format!("{mark}{}", object.text()) } else { String::new() };
        self.held.drain(..taken);
        if let Some((name, text)) = more {
            news.push(News::Arguments { id: self.id(), name, text });
        }
        if let Some((name, arguments)) = call {
            self.call(news, name, arguments);
            self.state = State::Behind { list };
            return true;
        }
        if is_wrong {
            self.state = State::Outside;
            self.text(news, text);
            return true;
        }
        false
    }

    /// Calls that are not streamed: Gemma's, and Mistral's by name until the arguments begin.
    fn whole(&mut self, news: &mut Vec<News>, is_last: bool) -> bool {
        let State::Whole { mark, close } = self.state else { return false };
        if self.manner == Manner::Gemma {
            let Some(end) = self.held.find(close) else { return false };
            let text: String = self.held.drain(..end).collect();
            self.held.drain(..close.len());
            self.state = State::Outside;
            match gemma::read(&text) {
                Some((name, arguments)) => self.call(news, name, arguments),
                None => self.text(news, format!("{mark}{text}{close}")),
            }
            return true;
        }
        match self.held.trim_start().chars().next() {
            None => return false,
            Some('[') if !CALL_ID.starts_with(self.held.trim_start()) => {
                self.state = State::Object { mark, list: false, object: Object::default() };
                return true;
            }
            Some(_) => {}
        }
        // name[ARGS]{…}, perhaps with [CALL_ID] before the arguments.
        let Some(brace) = self.held.find('{') else {
            if is_last || self.held.len() > 512 {
                self.state = State::Outside;
                self.text(news, mark.to_owned());
                return true;
            }
            return false;
        };
        let head = self.held[..brace].replace(ARGS, "");
        let name = head.split(CALL_ID).next().unwrap_or_default().trim().to_owned();
        let mut stream = serde_json::Deserializer::from_str(&self.held[brace..]).into_iter::<Value>();
        let (value, end) = match stream.next() {
            Some(Ok(value)) => (value, stream.byte_offset()),
            Some(Err(error)) if error.is_eof() && !is_last => return false,
            _ => {
                self.state = State::Outside;
                self.text(news, mark.to_owned());
                return true;
            }
        };
        self.held.drain(..brace + end);
        self.state = State::Outside;
        match arguments_of(value) {
            Some(arguments) => self.call(news, name, arguments),
            None => self.text(news, mark.to_owned()),
        }
        true
    }

    fn behind(&mut self, is_last: bool) -> bool {
        let State::Behind { list } = self.state else { return false };
        let rest = self.held.trim_start();
        let (skip, state) = match rest.chars().next() {
            None if is_last => (0, State::Outside),
            None => return false,
            Some(',' | ';') if list || self.manner == Manner::Llama => {
                (1, State::Object { mark: "", list, object: Object::default() })
            }
            Some(']') if list => (1, State::Behind { list: false }),
            Some('<')
                if self.manner == Manner::Hermes
                    && HERMES.1.starts_with(rest)
                    && !is_last
                    && rest != HERMES.1 =>
            {
                return false;
            }
            Some('<') if rest.starts_with(HERMES.1) => (HERMES.1.len(), State::Outside),
            Some(_) => (0, State::Outside),
        };
        let skip = self.held.len() - rest.len() + skip;
        self.held.drain(..skip);
        self.state = state;
        true
    }

    fn call(&mut self, news: &mut Vec<News>, name: String, arguments: Map<String, Value>) {
        // What was not streamed is told all the same.
        let id = self.id();
        if !news_of(news, &id) && matches!(self.state, State::Outside | State::Whole { .. }) {
            let text = Value::Object(arguments.clone()).to_string();
            news.push(News::Arguments { id: id.clone(), name: name.clone(), text });
        }
        news.push(News::Call(ToolCall { id, name, arguments }));
        self.count += 1;
        self.begun = true;
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

fn news_of(news: &[News], call: &str) -> bool {
    news.iter().any(|news| matches!(news, News::Arguments { id, .. } if id == call))
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
