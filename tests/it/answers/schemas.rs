//! JSON schemas from the field, with instances that are valid and that are not, and texts made of random tokens under the
//! mask, judged by another validator.

use std::io::{BufRead, BufReader};
use std::sync::Arc;

use flate2::read::GzDecoder;
use pocketlm::format::{Checkpoint, Dialect};
use pocketlm::text::{Constraint, Guide, Lexicon, Special, Tokenizer};
use pocketlm::{Error, Kind};
use serde_json::{Value, json};

use crate::data::{fixture, real_model, shared};

struct Case {
    name: String,
    schema: Value,
    tests: Vec<(bool, Value)>,
}

fn cases() -> Vec<Case> {
    let file = std::fs::File::open(shared("jsonschema/cases.jsonl.gz")).unwrap();
    let lines = BufReader::new(GzDecoder::new(file)).lines();
    let case = |line: std::io::Result<String>| {
        let case: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let test = |test: &Value| (test["valid"].as_bool().unwrap(), test["data"].clone());
        Case {
            name: case["name"].as_str().unwrap().to_owned(),
            schema: case["schema"].clone(),
            tests: case["tests"].as_array().unwrap().iter().map(test).collect(),
        }
    };
    lines.map(case).collect()
}

pub(super) fn tokenizer(path: &std::path::Path) -> Arc<Tokenizer> {
    match Checkpoint::open(path).unwrap().dialect {
        Dialect::Gguf(metadata) => Tokenizer::from_gguf(&metadata).unwrap().into(),
        _ => panic!("a GGUF was expected"),
    }
}

pub(super) fn stories() -> Arc<Tokenizer> {
    tokenizer(&fixture("stories260k/stories260K-f32.gguf"))
}

fn guide(lexicon: &Lexicon, schema: &Value) -> Result<Guide, Error> {
    lexicon.guide(&Constraint::JsonSchema(schema.clone()), false)
}

/// Compact, as Python writes it, and over lines.
fn spellings(value: &Value) -> [String; 3] {
    let mut spaced = Vec::new();
    let mut out = serde_json::Serializer::with_formatter(&mut spaced, Spaced);
    serde::Serialize::serialize(value, &mut out).unwrap();
    [value.to_string(), String::from_utf8(spaced).unwrap(), serde_json::to_string_pretty(value).unwrap()]
}

struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[test]
fn instances_are_told_apart() {
    let lexicon = Lexicon::new(&stories()).unwrap();
    let (mut kept, mut refused, mut wrong) = (0, Vec::new(), Vec::new());
    for case in cases() {
        let mut guide = match guide(&lexicon, &case.schema) {
            Ok(guide) => guide,
            Err(error) => {
                assert_eq!(error.kind(), Kind::Unsupported, "{}: {error}", case.name);
                refused.push(format!("{}: {error}", case.name));
                continue;
            }
        };
        kept += 1;
        for (valid, data) in &case.tests {
            for text in spellings(data) {
                if guide.accepts(text.as_bytes()).unwrap() != *valid {
                    wrong.push(format!("{}: {text} is valid: {valid}", case.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {kept}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused.len() * 20 < kept, "{kept} kept, refused:\n{}", refused.join("\n"));
}

/// A text of random tokens under the mask, or `None` where it does not end.
fn random(
    guide: &mut Guide,
    tokenizer: &Tokenizer,
    seed: &mut pocketlm::base::Seed,
    most: usize,
) -> Option<String> {
    let mut decoder = tokenizer.decoder(None, false).as_spelled();
    let mut text = String::new();
    for _ in 0..most {
        let words = guide.allowed().unwrap();
        let allowed: Vec<u32> =
            (0..32 * words.len() as u32).filter(|&t| words[t as usize / 32] >> (t % 32) & 1 == 1).collect();
        let end = allowed.iter().find(|&&token| tokenizer.is_end(token));
        if end.is_some() && seed.below(3) == 0 {
            return Some(text + &decoder.finish());
        }
        let token = allowed[seed.below(allowed.len() as u64) as usize];
        if tokenizer.is_end(token) {
            return Some(text + &decoder.finish());
        }
        text += &decoder.push(token);
        if guide.push(token).unwrap() {
            return Some(text + &decoder.finish());
        }
    }
    None
}

#[test]
fn random_tokens_under_the_mask_are_valid() {
    let tokenizer = stories();
    let lexicon = Lexicon::new(&tokenizer).unwrap();
    let mut seed = pocketlm::base::Seed::new(11);
    let (mut ended, mut cut, mut wrong) = (0, 0, Vec::new());
    let own = own().into_iter().map(|schema| ("own".to_owned(), schema));
    for (name, schema) in cases().into_iter().map(|case| (case.name, case.schema)).chain(own) {
        let Ok(guide) = guide(&lexicon, &schema) else { continue };
        let validator = jsonschema::validator_for(&schema).unwrap();
        drop(guide);
        for _ in 0..3 {
            let mut guide = self::guide(&lexicon, &schema).unwrap();
            let Some(text) = random(&mut guide, &tokenizer, &mut seed, 150) else {
                cut += 1;
                continue;
            };
            ended += 1;
            match serde_json::from_str::<Value>(&text) {
                Ok(value) if validator.is_valid(&value) => {}
                outcome => wrong.push(format!("{name}: {text}: {outcome:?} by {schema}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {ended}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(ended > 100, "{ended} ended, {cut} were cut");
}

/// Schemas with what the others lack.
fn own() -> Vec<Value> {
    vec![
        json!({"type": "number"}),
        json!({"type": "integer", "minimum": -5, "exclusiveMaximum": 300}),
        json!({"type": "number", "minimum": 0.5, "maximum": 2.25}),
        json!({"type": "integer", "multipleOf": 7}),
        json!({"type": "integer", "minimum": i64::MIN, "maximum": u64::MAX}),
        json!({"type": "number", "multipleOf": 0.25}),
        json!({"const": {"a": [1, null, "x"]}}),
        json!({"enum": ["a", 2, 2.5, null, true, {"b": 1}]}),
        json!({"type": "string", "pattern": "^[a-c]{2,4}\\d$"}),
        json!({"type": "string", "pattern": "b+"}),
        json!({"type": "string", "minLength": 2, "maxLength": 3}),
        json!({"type": "string", "format": "date"}),
        json!({"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3}),
        json!({"type": "array", "prefixItems": [{"type": "null"}, {"type": "integer"}], "items": false}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1}),
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}}}),
        json!({"type": "object", "patternProperties": {"^x": {"type": "null"}}, "additionalProperties": false}),
        json!({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#"}}]}),
        json!({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 40}]}),
        json!({"oneOf": [{"type": "integer"}, {"type": "string"}]}),
        json!({"type": ["null", "boolean"]}),
        json!(true),
    ]
}

#[test]
fn a_mask_that_lets_all_through_is_seen() {
    let tokenizer = stories();
    let schema = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}});
    let validator = jsonschema::validator_for(&schema).unwrap();
    // The guide of another schema: what the judge of the tests above has to find.
    let lexicon = Lexicon::new(&tokenizer).unwrap();
    let mut seed = pocketlm::base::Seed::new(5);
    let texts = (0..20)
        .filter_map(|_| random(&mut guide(&lexicon, &json!(true)).unwrap(), &tokenizer, &mut seed, 40));
    let wrong =
        texts.filter(|text| serde_json::from_str(text).is_ok_and(|value| !validator.is_valid(&value)));
    assert!(wrong.count() > 5);
}

#[test]
fn real_vocabularies_cut_otherwise_and_accept_the_same() {
    let tokenizer = tokenizer(&real_model());
    let lexicon = Lexicon::new(&tokenizer).unwrap();
    let mut seed = pocketlm::base::Seed::new(12);
    for schema in own() {
        let validator = jsonschema::validator_for(&schema).unwrap();
        for _ in 0..2 {
            let mut guide = guide(&lexicon, &schema).unwrap();
            let Some(text) = random(&mut guide, &tokenizer, &mut seed, 60) else { continue };
            let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(validator.is_valid(&value), "{text} by {schema}");
            assert!(guide.accepts(text.as_bytes()).unwrap(), "{text} by {schema}");
            assert!(!guide.accepts((text + "}").as_bytes()).unwrap());
        }
    }
}

#[test]
fn what_is_forced_is_all_that_is_allowed() {
    let tokenizer = tokenizer(&real_model());
    let lexicon = Lexicon::new(&tokenizer).unwrap();
    let schema = json!({"type": "object", "required": ["first_name", "colour"], "properties": {
        "first_name": {"type": "string", "maxLength": 5},
        "colour": {"enum": ["red", "crème brûlée"]}}});
    let text = "{\"first_name\": \"Ada\", \"colour\": \"crème brûlée\"}";
    let tokens = tokenizer.encode(text, Special::Plain).unwrap();
    let (mut told, mut held) = (guide(&lexicon, &schema).unwrap(), guide(&lexicon, &schema).unwrap());
    let (mut forced, mut at) = (0, 0);
    while at < tokens.len() {
        let run = told.forced();
        // The very tokens that the model learnt, not any that spell the same.
        assert_eq!(run, tokens[at..at + run.len()], "{text} from {at} on");
        forced += run.len();
        for &token in if run.is_empty() { &tokens[at..at + 1] } else { &run[..] } {
            let allowed: Vec<u32> = mask(&mut held);
            assert!(allowed.contains(&token));
            assert!(run.is_empty() || allowed == [token], "{token} is not forced: {allowed:?}");
            told.push(token).unwrap();
            held.push(token).unwrap();
            at += 1;
        }
    }
    assert!(told.is_complete().unwrap());
    assert!(forced > tokens.len() / 3, "{forced} of {} tokens", tokens.len());
}

fn mask(guide: &mut Guide) -> Vec<u32> {
    let words = guide.allowed().unwrap();
    (0..words.len() as u32 * 32)
        .filter(|token| words[*token as usize / 32] >> (token % 32) & 1 == 1)
        .collect()
}
