//! A call as a JSON object, while it is written: `{"name": …, "arguments": {…}}`, the keys in any order.

use std::ops::Range;

use serde_json::{Map, Value};

/// Bytes of a call, at most.
const MOST: usize = 1 << 20;

/// What of a call's object is there.
#[derive(Debug, Default)]
pub(super) struct Object {
    text: String,
    depth: u32,
    /// Where the string begins that is under way.
    string: Option<usize>,
    escaped: bool,
    /// The key of the member that is under way, and where its value begins.
    key: Option<String>,
    value: Option<usize>,
    name: Option<String>,
    arguments: Option<Range<usize>>,
    /// How much of the arguments was told.
    told: usize,
}

impl Object {
    /// The next character: whether the object is closed by it, `None` where it can be no object.
    pub(super) fn push(&mut self, c: char) -> Option<bool> {
        let at = self.text.len();
        self.text.push(c);
        if self.text.len() > MOST {
            return None;
        }
        if let Some(begun) = self.string {
            if self.escaped || c != '"' {
                self.escaped = c == '\\' && !self.escaped;
                return Some(false);
            }
            self.string = None;
            if self.depth == 1 && self.value.is_none() {
                self.key = serde_json::from_str(&self.text[begun..]).ok();
            }
            return Some(false);
        }
        let is_space = c.is_ascii_whitespace();
        if self.depth == 0 && c != '{' {
            return is_space.then_some(false);
        }
        if self.depth == 1 && self.key.is_some() && self.value.is_none() && !is_space && c != ':' {
            self.value = Some(at);
        }
        match c {
            '"' => self.string = Some(at),
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.close(at);
                    return Some(true);
                }
            }
            ',' if self.depth == 1 => self.close(at),
            _ => {}
        }
        Some(false)
    }

    /// A member ends before `at`.
    fn close(&mut self, at: usize) {
        let (Some(key), Some(value)) = (self.key.take(), self.value.take()) else { return };
        match key.as_str() {
            "name" => self.name = serde_json::from_str(self.text[value..at].trim()).ok(),
            "arguments" | "parameters" => self.arguments = Some(value..at),
            _ => {}
        }
    }

    /// The tool's name and more of its arguments, where that is known.
    pub(super) fn more(&mut self) -> Option<(String, String)> {
        let name = self.name.clone()?;
        let under_way = || {
            let is_arguments = matches!(self.key.as_deref(), Some("arguments" | "parameters"));
            Some(self.value.filter(|_| is_arguments)?..self.text.len())
        };
        let range = self.arguments.clone().or_else(under_way)?;
        let from = range.start + self.told;
        if from >= range.end {
            return None;
        }
        self.told = range.len();
        Some((name, self.text[from..range.end].to_owned()))
    }

    /// Name and arguments of an object that is closed; `None` where it is no call.
    pub(super) fn read(&self) -> Option<(String, Map<String, Value>)> {
        whole(&self.text)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Name and arguments of a call that is all there; `None` where it is none.
pub(super) fn whole(text: &str) -> Option<(String, Map<String, Value>)> {
    let Ok(Value::Object(mut call)) = serde_json::from_str(text) else { return None };
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = call.remove("arguments").or_else(|| call.remove("parameters"));
    Some((name, arguments_of(arguments.unwrap_or_default())?))
}

/// Arguments as an object: it may stand in a string, or be left out.
pub(super) fn arguments_of(arguments: Value) -> Option<Map<String, Value>> {
    match arguments {
        Value::Object(arguments) => Some(arguments),
        Value::Null => Some(Map::new()),
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(Value::Object(arguments)) => Some(arguments),
            _ => None,
        },
        _ => None,
    }
}
