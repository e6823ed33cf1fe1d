//! llama.cpp's grammars (`grammars/README.md` there) said in Lark's syntax as llguidance knows it.
//!
//! GBNF matches characters, and llguidance lexemes that are as long as they can be. So a rule becomes a lexeme, within which
//! every way to match counts, only where that is the same ([`lexemes`]); a grammar that never comes back to itself is one.

mod lexemes;
mod parse;
mod set;

use std::fmt::Write;

use crate::error::Result;
use parse::Parser;
use set::Set;

/// What a rule may be.
#[derive(Debug)]
enum Node {
    /// One of these.
    Any(Vec<Node>),
    /// All of these, in order.
    All(Vec<Node>),
    /// A text.
    Text(String),
    /// One of these characters.
    Class(Set),
    /// The rule of this number.
    Rule(usize),
    /// So often: at least, at most.
    Repeat(Box<Node>, u32, Option<u32>),
}

/// The grammar in Lark's syntax.
pub(super) fn to_lark(grammar: &str) -> Result<String> {
    let (bodies, root) = Parser::new(grammar).read()?;
    let is_lexeme = lexemes::lexemes(&bodies, root);
    // Within a lexeme are only lexemes.
    let mut within: Vec<usize> = (0..bodies.len()).filter(|&rule| is_lexeme[rule]).collect();
    let mut inner = vec![false; bodies.len()];
    while let Some(rule) = within.pop() {
        let mut used = Vec::new();
        bodies[rule].uses(&mut used);
        within.extend(used.into_iter().filter(|&used| !std::mem::replace(&mut inner[used], true)));
    }
    let mut lark = format!("start: {}\n", name(root, is_lexeme[root]));
    for (rule, body) in bodies.iter().enumerate() {
        let forms = [(true, is_lexeme[rule] || inner[rule]), (false, !is_lexeme[rule])];
        for (as_lexeme, _) in forms.into_iter().filter(|form| form.1) {
            let _infallible = write!(lark, "{}: ", name(rule, as_lexeme));
            say(body, &|rule| name(rule, as_lexeme || is_lexeme[rule]), &mut lark);
            lark.push('\n');
        }
    }
    Ok(lark)
}

/// Rules of lexemes are written in capitals.
fn name(rule: usize, is_lexeme: bool) -> String {
    format!("{}{rule}", if is_lexeme { 'T' } else { 'r' })
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
        Node::Class(set) => {
            let _infallible = write!(lark, "/{}/", set.regex());
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
