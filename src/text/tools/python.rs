//! A call in Python's notation, while it is written: `name(key='text', other=[1, True], 'by place')`. What is read is said at once
//! as JSON, so that arguments can be told before the call is whole.
//!
//! Values are literals: strings, numbers, `True`, `False`, `None`, lists, tuples and dicts. Anything else is no call: a name, an
//! operator, another call. So that JSON's habits are forgiven, `true`, `false` and `null` are known too, and a string may have ends of
//! lines in it.

use serde_json::{Map, Number, Value};

use super::{Tool, ToolCall};

/// Bytes of a call, at most.
const MOST: usize = 1 << 20;
/// Values in values, at most: what reads JSON goes as deep.
const MOST_DEPTH: usize = 100;
/// Characters of a name or a number, at most.
const MOST_WORD: usize = 1 << 10;

/// What of a call is there.
#[derive(Debug, Default)]
pub(super) struct Call {
    text: String,
    name: Option<String>,
    /// The names of the tool's arguments, in the schema's order.
    places: Vec<String>,
    /// The arguments so far, as JSON.
    json: String,
    /// How much of that was told.
    told: usize,
    open: Vec<Open>,
    /// An argument was given by name.
    named: bool,
    at: At,
    /// The name, key or number under way.
    word: String,
    quote: Quote,
}

/// A bracket that is open.
#[derive(Debug)]
struct Open {
    kind: Kind,
    /// Items so far, the one under way included.
    count: usize,
    /// A key is there, and its value is to come.
    keyed: bool,
    /// The last item was closed by a comma.
    comma: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Call,
    List,
    Tuple,
    Dict,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Name,
    /// Before an item, or the end of the bracket.
    Item,
    /// In a word; behind it, where space followed.
    Word {
        ended: bool,
    },
    /// Behind so many quotes, which may be the beginning of three.
    Quotes(u32),
    String,
    /// Behind so many of the quotes that close a string of three.
    Closing(u32),
    Backslash,
    /// In an escape of so many further digits.
    Digits {
        base: u32,
        left: u32,
        value: u32,
    },
    /// Behind a string, which another may follow: its end is not said yet.
    BehindString,
    Behind,
}

/// How the string under way is quoted.
#[derive(Clone, Copy, Debug, Default)]
struct Quote {
    mark: char,
    is_triple: bool,
    is_raw: bool,
}

/// What follows a character.
enum Step {
    Going,
    /// The character is to be read again, in another place.
    Again,
    Whole,
    NoCall,
}

fn is_quote(c: char) -> bool {
    matches!(c, '\'' | '"')
}

pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '+' | '-')
}

impl Call {
    /// Whether a call can begin so.
    pub(super) fn begins(c: char) -> bool {
        c.is_alphabetic() || c == '_'
    }

    /// The next character: whether the call is closed by it, `None` where it can be no call.
    pub(super) fn push(&mut self, c: char, tools: &[Tool]) -> Option<bool> {
        self.text.push(c);
        if self.text.len() > MOST {
            return None;
        }
        loop {
            match self.step(c, tools) {
                Step::Going => return Some(false),
                Step::Again => {}
                Step::Whole => return Some(true),
                Step::NoCall => return None,
            }
        }
    }

    fn step(&mut self, c: char, tools: &[Tool]) -> Step {
        match self.at {
            At::Name => self.name(c, tools),
            At::Item => self.item(c),
            At::Word { ended } => self.word(c, ended),
            At::Quotes(count) => self.quotes(c, count),
            At::String | At::Closing(_) => self.string(c),
            At::Backslash => self.backslash(c),
            At::Digits { .. } => self.digits(c),
            At::BehindString if is_quote(c) => self.begin(c, false),
            At::BehindString if c.is_whitespace() => Step::Going,
            At::BehindString => {
                self.json.push('"');
                self.at = At::Behind;
                Step::Again
            }
            At::Behind => self.behind(c),
        }
    }

    fn name(&mut self, c: char, tools: &[Tool]) -> Step {
        if c != '(' {
            let fits = if self.word.is_empty() { Self::begins(c) } else { is_word(c) && c != '+' };
            self.word.push(c);
            return if fits && self.word.len() <= MOST_WORD { Step::Going } else { Step::NoCall };
        }
        let name = std::mem::take(&mut self.word);
        if name.is_empty() {
            return Step::NoCall;
        }
        let find = |name: &str| tools.iter().find(|tool| tool.name == name);
        // As Llama 3.1's template says the calls of tools that its makers have built in.
        let shorter = name.strip_suffix(".call").filter(|shorter| find(shorter).is_some());
        let name = shorter.filter(|_| find(&name).is_none()).unwrap_or(&name).to_owned();
        let properties = find(&name).and_then(|tool| tool.parameters.get("properties")?.as_object());
        self.places = properties.map_or_else(Vec::new, |properties| properties.keys().cloned().collect());
        self.name = Some(name);
        self.enter(Kind::Call)
    }

    fn enter(&mut self, kind: Kind) -> Step {
        if self.open.len() >= MOST_DEPTH {
            return Step::NoCall;
        }
        self.json.push(if matches!(kind, Kind::Call | Kind::Dict) { '{' } else { '[' });
        self.open.push(Open { kind, count: 0, keyed: false, comma: true });
        self.at = At::Item;
        Step::Going
    }

    fn item(&mut self, c: char) -> Step {
        if c.is_whitespace() {
            return Step::Going;
        }
        let Some(open) = self.open.last() else { return Step::NoCall };
        let is_key = open.kind == Kind::Dict && !open.keyed;
        match c {
            ')' | ']' | '}' if !open.keyed => self.leave(c),
            _ if is_quote(c) => match self.place() {
                true => {
                    self.json.push('"');
                    self.begin(c, false)
                }
                false => Step::NoCall,
            },
            '[' | '(' | '{' if !is_key && self.place() => self.enter(match c {
                '[' => Kind::List,
                '(' => Kind::Tuple,
                _ => Kind::Dict,
            }),
            _ if is_word(c) => {
                self.word.clear();
                self.word.push(c);
                self.at = At::Word { ended: false };
                Step::Going
            }
            _ => Step::NoCall,
        }
    }

    /// Begins an item: whether one may stand here without a key, of which an argument by place has its own.
    fn place(&mut self) -> bool {
        let Some(open) = self.open.last_mut() else { return false };
        if open.keyed {
            return true;
        }
        if open.count > 0 {
            self.json.push(',');
        }
        open.count += 1;
        open.comma = false;
        if open.kind != Kind::Call {
            return true;
        }
        // Those by place stand before those by name.
        let place = (open.count <= self.places.len()).then(|| &self.places[open.count - 1]);
        let place = place.filter(|_| !self.named);
        let Some(place) = place else { return false };
        self.json += &Value::from(place.as_str()).to_string();
        self.json.push(':');
        open.keyed = true;
        true
    }

    fn word(&mut self, c: char, ended: bool) -> Step {
        if !ended && is_word(c) {
            self.word.push(c);
            return if self.word.len() <= MOST_WORD { Step::Going } else { Step::NoCall };
        }
        if c.is_whitespace() {
            self.at = At::Word { ended: true };
            return Step::Going;
        }
        let Some(open) = self.open.last_mut() else { return Step::NoCall };
        if is_quote(c) {
            let is_raw = matches!(self.word.as_str(), "r" | "R");
            let is_text = !ended && (is_raw || matches!(self.word.as_str(), "u" | "U"));
            if !is_text || !self.place() {
                return Step::NoCall;
            }
            self.json.push('"');
            return self.begin(c, is_raw);
        }
        if c == '=' && open.kind == Kind::Call && !open.keyed {
            if !self.word.starts_with(Self::begins) {
                return Step::NoCall;
            }
            if open.count > 0 {
                self.json.push(',');
            }
            (open.count, open.keyed, open.comma) = (open.count + 1, true, false);
            self.named = true;
            self.json += &Value::from(self.word.as_str()).to_string();
            self.json.push(':');
            self.at = At::Item;
            return Step::Going;
        }
        if open.kind == Kind::Dict && !open.keyed {
            return Step::NoCall;
        }
        let Some(value) = literal(&self.word).filter(|_| self.place()) else { return Step::NoCall };
        self.json += &value;
        self.at = At::Behind;
        Step::Again
    }

    fn behind(&mut self, c: char) -> Step {
        let Some(open) = self.open.last_mut() else { return Step::NoCall };
        let is_key = open.kind == Kind::Dict && !open.keyed;
        match c {
            _ if c.is_whitespace() => Step::Going,
            ':' if is_key => {
                self.json.push(':');
                open.keyed = true;
                self.at = At::Item;
                Step::Going
            }
            _ if is_key => Step::NoCall,
            ',' => {
                (open.keyed, open.comma) = (false, true);
                self.at = At::Item;
                Step::Going
            }
            ')' | ']' | '}' => self.leave(c),
            _ => Step::NoCall,
        }
    }

    fn leave(&mut self, c: char) -> Step {
        let Some(open) = self.open.pop() else { return Step::NoCall };
        let (due, json) = match open.kind {
            Kind::Call => (')', '}'),
            Kind::List => (']', ']'),
            Kind::Tuple => (')', ']'),
            Kind::Dict => ('}', '}'),
        };
        // One value in parentheses is no tuple.
        if c != due || (open.kind == Kind::Tuple && open.count == 1 && !open.comma) {
            return Step::NoCall;
        }
        self.json.push(json);
        self.at = At::Behind;
        if self.open.is_empty() { Step::Whole } else { Step::Going }
    }

    fn begin(&mut self, mark: char, is_raw: bool) -> Step {
        self.quote = Quote { mark, is_triple: false, is_raw };
        self.at = At::Quotes(1);
        Step::Going
    }

    fn quotes(&mut self, c: char, count: u32) -> Step {
        let is_one = c == self.quote.mark;
        self.at = match (count, is_one) {
            (1, true) => At::Quotes(2),
            (1, false) => At::String,
            (_, true) => At::String,
            (_, false) => At::BehindString,
        };
        self.quote.is_triple = count == 2 && is_one;
        if is_one { Step::Going } else { Step::Again }
    }

    fn string(&mut self, c: char) -> Step {
        let quote = self.quote;
        let closing = if let At::Closing(count) = self.at { count } else { 0 };
        if c == quote.mark {
            self.at = match (quote.is_triple, closing) {
                (false, _) | (true, 2) => At::BehindString,
                (true, count) => At::Closing(count + 1),
            };
            return Step::Going;
        }
        for _ in 0..closing {
            self.say(quote.mark);
        }
        self.at = if c == '\\' { At::Backslash } else { At::String };
        if c != '\\' {
            self.say(c);
        }
        Step::Going
    }

    fn backslash(&mut self, c: char) -> Step {
        self.at = At::String;
        if self.quote.is_raw {
            self.say('\\');
            self.say(c);
            return Step::Going;
        }
        let digits = |base, left| At::Digits { base, left, value: 0 };
        match c {
            '\n' => {}
            '\\' | '\'' | '"' => self.say(c),
            'a' => self.say('\u{7}'),
            'b' => self.say('\u{8}'),
            'f' => self.say('\u{c}'),
            'n' => self.say('\n'),
            'r' => self.say('\r'),
            't' => self.say('\t'),
            'v' => self.say('\u{b}'),
            'x' => self.at = digits(16, 2),
            'u' => self.at = digits(16, 4),
            'U' => self.at = digits(16, 8),
            '0'..='7' => {
                self.at = digits(8, 3);
                return Step::Again;
            }
            // A character by its name, of which there are too many.
            'N' => return Step::NoCall,
            _ => {
                self.say('\\');
                self.say(c);
            }
        }
        Step::Going
    }

    fn digits(&mut self, c: char) -> Step {
        let At::Digits { base, left, value } = self.at else { return Step::NoCall };
        let Some(digit) = c.to_digit(base) else {
            // Octal digits may be fewer.
            return if base == 8 && self.code(value) { Step::Again } else { Step::NoCall };
        };
        let value = value.wrapping_mul(base) | digit;
        if left > 1 {
            self.at = At::Digits { base, left: left - 1, value };
            return Step::Going;
        }
        if self.code(value) { Step::Going } else { Step::NoCall }
    }

    /// A character by its number.
    fn code(&mut self, value: u32) -> bool {
        self.at = At::String;
        match char::from_u32(value) {
            Some(c) => self.say(c),
            // Half of one, as JSON says characters beyond the first plane; who has no other half is found out by JSON's reader.
            None if value < 0x1_0000 => self.json += &format!("\\u{value:04x}"),
            None => return false,
        }
        true
    }

    /// A character of a string, as JSON has it.
    fn say(&mut self, c: char) {
        match c {
            '"' | '\\' => self.json.extend(['\\', c]),
            '\0'..='\u{1f}' => self.json += &format!("\\u{:04x}", u32::from(c)),
            _ => self.json.push(c),
        }
    }

    /// The tool's name and more of its arguments as JSON, where that is known.
    pub(super) fn more(&mut self) -> Option<(String, String)> {
        let name = self.name.clone()?;
        let more = self.json.get(self.told..).filter(|more| !more.is_empty())?.to_owned();
        self.told = self.json.len();
        Some((name, more))
    }

    /// Name and arguments of a call that is closed; `None` where it is none after all.
    pub(super) fn read(&self) -> Option<(String, Map<String, Value>)> {
        Some((self.name.clone()?, serde_json::from_str(&self.json).ok()?))
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// A call as Python writes it.
pub(super) fn say(call: &ToolCall) -> String {
    let arguments = call.arguments.iter().map(|(key, value)| format!("{key}={}", said(value)));
    format!("{}({})", call.name, arguments.collect::<Vec<_>>().join(", "))
}

fn said(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        // Python reads a text of JSON as JSON does.
        Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(said).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members =
                members.iter().map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), said(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A word that is a value, as JSON.
fn literal(word: &str) -> Option<String> {
    match word {
        "True" | "true" => return Some("true".into()),
        "False" | "false" => return Some("false".into()),
        "None" | "null" => return Some("null".into()),
        _ => {}
    }
    let digit = |c: &char| c.is_ascii_alphanumeric();
    let chars: Vec<char> = word.chars().collect();
    let lone = |at: usize| {
        chars[at] == '_' && !(at > 0 && digit(&chars[at - 1]) && chars.get(at + 1).is_some_and(digit))
    };
    if (0..chars.len()).any(lone) {
        return None;
    }
    let plain: String = chars.into_iter().filter(|&c| c != '_').collect();
    let (sign, size) = match plain.strip_prefix('-') {
        Some(size) => ("-", size),
        None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let bases = [("0x", 16), ("0o", 8), ("0b", 2)];
    let lower = size.to_ascii_lowercase();
    let based = bases.iter().find_map(|&(prefix, base)| Some((lower.strip_prefix(prefix)?, base)));
    if let Some((digits, base)) = based {
        let is_sound = digits.chars().all(|c| c.is_digit(base));
        let value = u64::from_str_radix(digits, base).ok().filter(|_| is_sound)?;
        return Some(format!("{sign}{value}"));
    }
    // `1.`, `.5` and `1.e3` are numbers in Python.
    let mut whole = size.to_owned();
    if let Some(point) = size.find('.') {
        let is_digit = |at: usize| size.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        let (before, after) = (point > 0 && is_digit(point - 1), is_digit(point + 1));
        if !before && !after {
            return None;
        }
        let zero = |is_there: bool| if is_there { "" } else { "0" };
        whole = format!("{}{}.{}{}", &size[..point], zero(before), zero(after), &size[point + 1..]);
    }
    let number: Number = serde_json::from_str(&format!("{sign}{whole}")).ok()?;
    Some(number.to_string())
}

#[cfg(test)]
mod tests;
