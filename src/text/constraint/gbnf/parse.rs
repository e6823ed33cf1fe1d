//! The grammar's text as rules.

use std::collections::HashMap;

use super::Node;
use super::set::Set;
use crate::error::{Error, Result};

/// Rules, at most: what follows each is found out by going through all of them again and again.
const MOST_RULES: usize = 2000;
/// A count in braces, at most.
const MOST_REPEATED: u32 = 10_000;

/// Reads a grammar.
pub(super) struct Parser<'a> {
    rest: &'a str,
    line: usize,
    names: HashMap<String, usize>,
    rules: Vec<(String, Option<Node>)>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(grammar: &'a str) -> Self {
        Self { rest: grammar, line: 1, names: HashMap::new(), rules: Vec::new() }
    }

    /// The rules, and which of them is the root.
    pub(super) fn read(mut self) -> Result<(Vec<Node>, usize)> {
        self.grammar()?;
        let root = self.names.get("root").copied();
        let root = root.ok_or_else(|| Error::invalid("the grammar has no rule \"root\""))?;
        if self.rules.len() > MOST_RULES {
            let what = format!("the grammar has {} rules", self.rules.len());
            return Err(Error::invalid(what).hint(format!("{MOST_RULES} are the most that works")));
        }
        let body = |(name, body): (String, Option<Node>)| {
            body.ok_or_else(|| Error::invalid(format!("the grammar has no rule {name:?}")))
        };
        Ok((self.rules.into_iter().map(body).collect::<Result<_>>()?, root))
    }

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
                    Node::Class(Set::all())
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

    /// `[a-z]` or `[^a-z]`.
    fn class(&mut self) -> Result<Set> {
        self.take("[");
        let negated = self.take("^");
        let mut ranges = Vec::new();
        loop {
            let first = match self.character()? {
                (true, ']') => break,
                (_, c) => c,
            };
            let mut last = first;
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.take("-");
                last = self.character()?.1;
            }
            if last < first {
                return self.refuse(&format!("{first:?} comes after {last:?}"));
            }
            ranges.push((u32::from(first), u32::from(last)));
        }
        let set = Set::of(ranges);
        let set = if negated { set.others() } else { set };
        if set.is_empty() { self.refuse("no character is in a class") } else { Ok(set) }
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
