//! llama.cpp's grammars (`grammars/README.md` there) said in Lark's syntax as llguidance knows it.
//!
//! GBNF matches characters, and llguidance lexemes that are as long as they can be. So a rule that does not come back to itself
//! becomes one lexeme, a terminal, within which every way to match counts; only what is recursive becomes a rule.

use std::collections::HashMap;
use std::fmt::Write;

use crate::error::{Error, Result};

/// A count in braces, at most.
const MOST_REPEATED: u32 = 10_000;

/// What a rule may be.
#[derive(Debug)]
enum Node {
    /// One of these.
    Any(Vec<Node>),
    /// All of these, in order.
    All(Vec<Node>),
    /// A text.
    Text(String),
    /// A regular expression for one character.
    Class(String),
    /// The rule of this number.
    Rule(usize),
    /// So often: at least, at most.
    Repeat(Box<Node>, u32, Option<u32>),
}

/// The grammar in Lark's syntax.
pub(super) fn to_lark(grammar: &str) -> Result<String> {
    let mut parser = Parser { rest: grammar, line: 1, names: HashMap::new(), rules: Vec::new() };
    parser.grammar()?;
    let Parser { names, rules, .. } = parser;
    let mut bodies = Vec::with_capacity(rules.len());
    for (name, rule) in rules {
        let missing = || Error::invalid(format!("the grammar has no rule {name:?}"));
        bodies.push(rule.ok_or_else(missing)?);
    }
    let root = names.get("root").copied();
    let root = root.ok_or_else(|| Error::invalid("the grammar has no rule \"root\""))?;
    let recursive = recursive(&bodies);
    let name = |rule: usize| if recursive[rule] { format!("r{rule}") } else { format!("T{rule}") };
    let mut lark = format!("start: {}\n", name(root));
    for (i, body) in bodies.iter().enumerate() {
        let _infallible = write!(lark, "{}: ", name(i));
        say(body, &name, &mut lark);
        lark.push('\n');
    }
    Ok(lark)
}

/// Which rules come back to themselves, or go to one that does.
fn recursive(bodies: &[Node]) -> Vec<bool> {
    let mut all: Vec<Vec<usize>> = vec![Vec::new(); bodies.len()];
    for (i, body) in bodies.iter().enumerate() {
        body.uses(&mut all[i]);
        all[i].sort_unstable();
        all[i].dedup();
    }
    // A rule all of whose rules are plain is plain; in turn, until nothing changes.
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); bodies.len()];
    let mut open: Vec<usize> = all.iter().map(Vec::len).collect();
    for (i, used) in all.iter().enumerate() {
        used.iter().for_each(|&rule| users[rule].push(i));
    }
    let mut recursive = vec![true; bodies.len()];
    let mut plain: Vec<usize> = (0..bodies.len()).filter(|&i| open[i] == 0).collect();
    while let Some(i) = plain.pop() {
        recursive[i] = false;
        for &user in &users[i] {
            open[user] -= 1;
            if open[user] == 0 {
                plain.push(user);
            }
        }
    }
    recursive
}

fn say(node: &Node, name: &dyn Fn(usize) -> String, lark: &mut String) {
    match node {
        Node::Any(nodes) => {
            lark.push('(');
            for (i, node) in nodes.iter().enumerate() {
                lark.push_str(if i == 0 { "" } else { " | " });
                say(node, name, lark);
            }
            lark.push(')');
        }
        Node::All(nodes) if nodes.is_empty() => lark.push_str("\"\""),
        Node::All(nodes) => {
            for (i, node) in nodes.iter().enumerate() {
                lark.push_str(if i == 0 { "" } else { " " });
                say(node, name, lark);
            }
        }
        Node::Text(text) => lark.push_str(&serde_json::Value::from(text.as_str()).to_string()),
        Node::Class(regex) => {
            let _infallible = write!(lark, "/{regex}/");
        }
        Node::Rule(rule) => lark.push_str(&name(*rule)),
        Node::Repeat(node, least, most) => {
            lark.push('(');
            say(node, name, lark);
            let _infallible = match (least, most) {
                (0, None) => write!(lark, ")*"),
                (1, None) => write!(lark, ")+"),
                (0, Some(1)) => write!(lark, ")?"),
                (least, None) => write!(lark, "){{{least},}}"),
                (least, Some(most)) => write!(lark, "){{{least},{most}}}"),
            };
        }
    }
}

impl Node {
    fn uses(&self, rules: &mut Vec<usize>) {
        match self {
            Self::Any(nodes) | Self::All(nodes) => nodes.iter().for_each(|node| node.uses(rules)),
            Self::Rule(rule) => rules.push(*rule),
            Self::Repeat(node, ..) => node.uses(rules),
            Self::Text(_) | Self::Class(_) => {}
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
    names: HashMap<String, usize>,
    rules: Vec<(String, Option<Node>)>,
}

impl Parser<'_> {
    fn grammar(&mut self) -> Result<()> {
        self.space(true);
        while !self.rest.is_empty() {
            let name = self.name()?;
            self.space(false);
            if !self.take("::=") {
                return self.refuse("a rule is NAME ::= …");
            }
            let body = self.any(false)?;
            let rule = self.rule(&name);
            if self.rules[rule].1.replace(body).is_some() {
                return self.refuse(&format!("there is a rule {name:?} already"));
            }
            self.space(true);
        }
        Ok(())
    }

    /// Alternatives; within brackets they go over lines.
    fn any(&mut self, nested: bool) -> Result<Node> {
        let mut any = vec![self.all(nested)?];
        while self.take("|") {
            any.push(self.all(nested)?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Node::Any(any) })
    }

    fn all(&mut self, nested: bool) -> Result<Node> {
        let mut all: Vec<Node> = Vec::new();
        // Behind ::= and | a line may end anywhere.
        self.space(true);
        loop {
            let node = match self.rest.chars().next() {
                Some('"') => Node::Text(self.text()?),
                Some('[') => Node::Class(self.class()?),
                Some('.') => {
                    self.take(".");
                    Node::Class("(?s:.)".into())
                }
                Some('(') => {
                    self.take("(");
                    let node = self.any(true)?;
                    self.space(true);
                    if !self.take(")") {
                        return self.refuse("a bracket is not closed");
                    }
                    node
                }
                Some(c) if is_name(c) && !self.begins_rule() => {
                    let name = self.name()?;
                    Node::Rule(self.rule(&name))
                }
                Some('<' | '!') => {
                    let what = format!("line {} of the grammar names tokens", self.line);
                    return Err(Error::unsupported(what).hint("characters would work"));
                }
                _ => return Ok(Node::All(all)),
            };
            let node = self.repeated(node)?;
            all.push(node);
            self.space(nested);
            // A rule ends with its line, unless the next one goes on with an alternative.
            if !nested {
                let (rest, line) = (self.rest, self.line);
                self.space(true);
                if !self.rest.starts_with('|') && self.line != line {
                    (self.rest, self.line) = (rest, line);
                    return Ok(Node::All(all));
                }
            }
        }
    }

    fn repeated(&mut self, mut node: Node) -> Result<Node> {
        loop {
            let (least, most) = match self.rest.chars().next() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => {
                    let Some(end) = self.rest.find('}') else { return self.refuse("a brace is not closed") };
                    let inner = &self.rest[1..end];
                    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|&n| n <= MOST_REPEATED);
                    let counts = match inner.split_once(',') {
                        None => number(inner).map(|n| (n, Some(n))),
                        Some((least, "")) => number(least).map(|n| (n, None)),
                        Some((least, most)) => {
                            let least = if least.trim().is_empty() { Some(0) } else { number(least) };
                            least.zip(number(most)).map(|(least, most)| (least, Some(most)))
                        }
                    };
                    let Some(counts) = counts.filter(|(least, most)| most.is_none_or(|most| *least <= most))
                    else {
                        return self.refuse(&format!("{{{inner}}} is no count up to {MOST_REPEATED}"));
                    };
                    self.rest = &self.rest[end..];
                    counts
                }
                _ => return Ok(node),
            };
            self.rest = &self.rest[1..];
            node = Node::Repeat(Box::new(node), least, most);
        }
    }

    /// A text in quotes.
    fn text(&mut self) -> Result<String> {
        self.take("\"");
        let mut text = String::new();
        loop {
            match self.character()? {
                (true, '"') => return Ok(text),
                (_, c) => text.push(c),
            }
        }
    }

    /// `[a-z]` or `[^a-z]`, as a regular expression.
    fn class(&mut self) -> Result<String> {
        self.take("[");
        let mut regex = String::from(if self.take("^") { "[^" } else { "[" });
        let mut is_empty = true;
        loop {
            let first = match self.character()? {
                (true, ']') => break,
                (_, c) => c,
            };
            is_empty = false;
            let mut last = first;
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.take("-");
                last = self.character()?.1;
            }
            if last < first {
                return self.refuse(&format!("{first:?} comes after {last:?}"));
            }
            let _infallible = write!(regex, "\\u{{{:x}}}-\\u{{{:x}}}", u32::from(first), u32::from(last));
        }
        match (is_empty, regex.as_str()) {
            (true, "[^") => Ok("(?s:.)".into()),
            (true, _) => self.refuse("no character is in []"),
            _ => Ok(regex + "]"),
        }
    }

    /// The next character of a text or a class, and whether it stands there as it is.
    fn character(&mut self) -> Result<(bool, char)> {
        let Some(c) = self.step() else { return self.refuse("a text or a class is not closed") };
        if c != '\\' {
            return Ok((true, c));
        }
        let Some(c) = self.step() else { return self.refuse("nothing is behind \\") };
        let digits = match c {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            'n' => return Ok((false, '\n')),
            'r' => return Ok((false, '\r')),
            't' => return Ok((false, '\t')),
            '"' | '\\' | '[' | ']' | '-' | '^' | '/' => return Ok((false, c)),
            _ => return self.refuse(&format!("\\{c} is no character")),
        };
        let code = self.rest.get(..digits).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let Some(c) = code.and_then(char::from_u32) else {
            return self.refuse("a \\x, \\u or \\U is no character");
        };
        self.rest = &self.rest[digits..];
        Ok((false, c))
    }

    fn step(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.line += usize::from(c == '\n');
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn rule(&mut self, name: &str) -> usize {
        if let Some(&rule) = self.names.get(name) {
            return rule;
        }
        self.names.insert(name.to_owned(), self.rules.len());
        self.rules.push((name.to_owned(), None));
        self.rules.len() - 1
    }

    fn name(&mut self) -> Result<String> {
        let end = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return self.refuse("a name is due");
        }
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(name.to_owned())
    }

    /// Whether a name is the beginning of the next rule.
    fn begins_rule(&self) -> bool {
        self.rest.trim_start_matches(is_name).trim_start().starts_with("::=")
    }

    /// Passes over space and comments, and with `lines` over the ends of lines.
    fn space(&mut self, lines: bool) {
        while let Some(c) = self.rest.chars().next() {
            match c {
                '#' => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                }
                '\n' if !lines => return,
                c if c.is_ascii_whitespace() => {
                    self.step();
                }
                _ => return,
            }
        }
    }

    fn take(&mut self, what: &str) -> bool {
        let rest = self.rest.strip_prefix(what);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn refuse<T>(&self, what: &str) -> Result<T> {
        Err(Error::invalid(format!("the grammar is no GBNF: {what}")).at(format!("line {}", self.line)))
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}
