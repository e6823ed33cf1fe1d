//! How long it takes to find out which tokens may follow.

#![allow(clippy::print_stdout, reason = "the figures are what it is for")]

use std::time::{Duration, Instant};

use pocketlm::text::{Constraint, Lexicon, Special};
use serde_json::json;

use super::schemas::tokenizer;
use crate::data::real_model;

/// Texts with their constraints, cut by the model's own tokenizer: a mask for each token.
#[test]
#[ignore = "a measurement, for a release build"]
fn how_long_masks_take() {
    let tokenizer = tokenizer(&real_model());
    let begun = Instant::now();
    let lexicon = Lexicon::new(&tokenizer).unwrap();
    println!("{lexicon:?}: made in {:?}", begun.elapsed());
    let person = json!({"type": "object", "required": ["name", "age", "tags"], "properties": {
        "name": {"type": "string"}, "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}}}});
    let json_grammar = "root ::= value\nvalue ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n\
        object ::= \"{\" ws (string \":\" ws value (\",\" ws string \":\" ws value)*)? \"}\" ws\n\
        array ::= \"[\" ws (value (\",\" ws value)*)? \"]\" ws\n\
        string ::= \"\\\"\" ([^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" [\"\\\\bfnrt])* \"\\\"\" ws\n\
        number ::= \"-\"? [0-9]+ (\".\" [0-9]+)? ws\nws ::= [ \\t\\n]*";
    let text = "{\"name\": \"Alice Liddell of Wonderland\", \"age\": 31, \"tags\": [\"red\", \"blue\"]}";
    let prose = "A regular expression holds a long text, which has words, commas and points. It goes on like this for a while.";
    for (what, constraint, text) in [
        ("a schema", Constraint::JsonSchema(person), text),
        ("any object", Constraint::JsonObject, text),
        ("JSON in GBNF", Constraint::Gbnf(json_grammar.into()), text),
        ("an expression", Constraint::Regex("([A-Z][a-z, ]+\\. ?)+".into()), prose),
    ] {
        let begun = Instant::now();
        let mut guide = lexicon.guide(&constraint, false).unwrap();
        let compiled = begun.elapsed();
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..20 {
            for token in tokenizer.encode(text, Special::Plain).unwrap() {
                let begun = Instant::now();
                guide.prepare().unwrap();
                times.push(begun.elapsed());
                guide.push(token).unwrap();
            }
            assert!(guide.is_complete().unwrap(), "{what}");
            assert!(!guide.accepts(b"").unwrap());
        }
        let first = times.len() / 20;
        let worst = times.iter().max().copied().unwrap_or_default();
        let mut fresh = times[..first].to_vec();
        fresh.sort();
        times.sort();
        println!(
            "{what}: compiled in {compiled:?}; a mask takes {:?} (median of {}), {:?} in the first answer; at most {worst:?}",
            times[times.len() / 2],
            times.len(),
            fresh[fresh.len() / 2],
        );
    }
}
