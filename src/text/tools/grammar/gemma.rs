//! Arguments in the notation of the Gemma family, which is not JSON: `{key:<escape>text<escape>,list:[1,true]}`, the keys in
//! alphabetical order, as the template has them.

use std::collections::HashMap;

use serde_json::Value;

use super::super::Tool;
use super::{Members, Text, quoted, sequence, unkept, without};
use crate::error::{Error, Result};
use crate::text::constraint::checked;

/// Schemas in schemas, at most: what reads calls goes as deep.
const MOST_DEPTH: usize = 60;
/// What is said of values elsewhere, and cannot be here.
const REFUSED: &[&str] = &[
    "additionalItems",
    "allOf",
    "maxProperties",
    "minProperties",
    "oneOf",
    "patternProperties",
    "prefixItems",
];
/// What may stand beside an `anyOf` or a `$ref`, and says nothing of a value.
const SILENT: &[&str] = &["$comment", "default", "deprecated", "description", "examples", "title"];

/// What stands around text.
pub(super) struct Escape {
    mark: String,
    /// In a grammar.
    lark: String,
    is_token: bool,
}

impl Escape {
    pub(super) fn new(mark: &str, known: &[(&str, u32)]) -> Self {
        let token = known.iter().find(|(name, _)| *name == mark).map(|&(_, token)| token);
        Self {
            mark: mark.to_owned(),
            lark: token.map_or_else(|| quoted(mark), |token| format!("<[{token}]>")),
            is_token: token.is_some(),
        }
    }

    fn one(&self, text: &str) -> Result<String> {
        if text.contains(&self.mark) {
            return Err(Error::unsupported(format!(
                "a text with {} in it cannot be told from its end",
                self.mark
            )));
        }
        Ok(match text {
            "" => format!("{} {}", self.lark, self.lark),
            text => format!("{} {} {}", self.lark, quoted(text), self.lark),
        })
    }

    /// A text of so many of these characters, without end where `most` is empty.
    fn text(&self, char: &str, least: u64, most: &str) -> String {
        let (lark, one) = (&self.lark, least.max(1));
        match (self.is_token, least, most) {
            (_, 0, "0") => format!("{lark} {lark}"),
            (true, 0, _) => format!("{lark} (/{char}{{{one},{most}}}/)? {lark}"),
            (true, ..) => format!("{lark} /{char}{{{least},{most}}}/ {lark}"),
            // What closes it is of the same lexeme, which would not give back what it has begun to read as text.
            (false, ..) => format!("{lark} /{char}{{{least},{most}}}{}/", self.mark.replace('|', "\\|")),
        }
    }
}

/// The rules of a call.
pub(super) fn rules(tool: &Tool, i: usize, escape: &Escape) -> Result<String> {
    let members = Members::of(tool)?;
    let mut notes = Notes {
        escape,
        root: members.root,
        rule: format!("call{i}"),
        count: 0,
        refs: HashMap::new(),
        due: Vec::new(),
        text: String::new(),
    };
    let open = quoted(&format!("call:{}{{", tool.name));
    let rule = notes.rule.clone();
    let call =
        match members.list.is_empty() && members.root.get("additionalProperties") != Some(&false.into()) {
            true => format!("{rule}: {open} {} \"}}\"\n", notes.any_members()),
            false => {
                let list = notes.members(&rule, members, 0)?;
                format!("{rule}: {open} {rule}f0 \"}}\"\n{list}")
            }
        };
    while let Some((name, pointer)) = notes.due.pop() {
        let root = notes.root;
        let schema = pointer.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        let schema =
            schema.ok_or_else(|| Error::invalid(format!("the JSON schema has no {pointer}")).at("$ref"))?;
        let value = notes.value(schema, &pointer, 0)?;
        notes.text.push_str(&format!("{name}: {value}\n"));
    }
    Ok(call + &notes.text)
}

struct Notes<'a> {
    escape: &'a Escape,
    root: &'a Value,
    rule: String,
    count: usize,
    /// The rules of schemas that others refer to, those of them that are yet to be said, and what was said.
    refs: HashMap<String, String>,
    due: Vec<(String, String)>,
    text: String,
}

impl<'a> Notes<'a> {
    fn fresh(&mut self) -> String {
        self.count += 1;
        format!("{}x{}", self.rule, self.count)
    }

    fn members(&mut self, rule: &str, mut members: Members<'a>, depth: usize) -> Result<String> {
        members.list.sort_by_key(|(key, ..)| key.to_lowercase());
        sequence(rule, "\",\"", &members, |_, key, schema| {
            let is_plain =
                !key.contains([':', ',', '{', '}', '[', ']', '<']) && key.trim() == key && !key.is_empty();
            let key = if is_plain { quoted(key) } else { self.escape.one(key)? };
            Ok(format!("{key} \":\" {}", self.value(schema, &key, depth + 1)?))
        })
    }

    /// An expression of the values that are valid by a schema.
    fn value(&mut self, schema: &'a Value, at: &str, depth: usize) -> Result<String> {
        let Value::Object(map) = schema else {
            return match schema {
                Value::Bool(true) => Ok(self.any()),
                _ => Err(Error::unsupported("nothing is valid by a schema that is false").at(at)),
            };
        };
        if depth > MOST_DEPTH {
            return Err(Error::unsupported("the JSON schema is nested too deep").at(at));
        }
        if let Some(name) = REFUSED.iter().find(|&&name| map.contains_key(name)) {
            return Err(unkept(name, at));
        }
        let alone = |name: &str| match map.keys().find(|key| *key != name && !SILENT.contains(&key.as_str()))
        {
            Some(_) => Err(unkept(name, at)),
            None => Ok(()),
        };
        if let Some(Value::String(pointer)) = map.get("$ref") {
            alone("$ref")?;
            return Ok(self.refer(pointer));
        }
        if let Some(Value::Array(schemas)) = map.get("anyOf") {
            alone("anyOf")?;
            let values: Result<Vec<String>> =
                schemas.iter().map(|schema| self.value(schema, at, depth + 1)).collect();
            return Ok(format!("({})", values?.join(" | ")));
        }
        let kinds: Vec<&str> = match map.get("type") {
            Some(Value::String(kind)) => vec![kind],
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            _ if map.contains_key("properties") => vec!["object"],
            _ if map.contains_key("items") => vec!["array"],
            _ => Vec::new(),
        };
        if let Some(listed) = map
            .get("const")
            .map(std::slice::from_ref)
            .or_else(|| map.get("enum")?.as_array().map(Vec::as_slice))
        {
            let of_kind = |value: &&Value| {
                kinds.is_empty()
                    || kinds.contains(&kind_of(value))
                    || (value.is_number() && kinds.contains(&"number"))
            };
            let values: Result<Vec<String>> =
                listed.iter().filter(of_kind).map(|value| self.one(value, at)).collect();
            let values = values?;
            return match values.is_empty() {
                true => Err(Error::unsupported("no value is valid by the JSON schema").at(at)),
                false => Ok(format!("({})", values.join(" | "))),
            };
        }
        if kinds.is_empty() {
            return match map.keys().find(|key| !SILENT.contains(&key.as_str())) {
                Some(name) if name != "x-guidance" => Err(unkept(name, at)),
                _ => Ok(self.any()),
            };
        }
        let values: Result<Vec<String>> =
            kinds.iter().map(|kind| self.kind(kind, schema, at, depth)).collect();
        Ok(format!("({})", values?.join(" | ")))
    }

    fn kind(&mut self, kind: &str, schema: &'a Value, at: &str, depth: usize) -> Result<String> {
        match kind {
            "string" => match Text::of(&string_of(schema))? {
                Some(Text::Long(least, most)) => Ok(self.escape.text("[^<]", least, &most)),
                _ => Ok(self.any_text()),
            },
            "boolean" => Ok("(\"true\" | \"false\")".into()),
            "null" => Ok("\"null\"".into()),
            "integer" | "number" => {
                let mut number = serde_json::json!({"type": kind});
                for key in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"] {
                    if let Some(value) = schema.get(key) {
                        number[key] = value.clone();
                    }
                }
                let rule = self.fresh();
                let number = checked(&number)?;
                self.text.push_str(&format!("{rule}: %json {number}\n"));
                Ok(rule)
            }
            "array" => self.list(schema, at, depth),
            "object" => {
                let members = Members::within(schema, self.root)?;
                let rule = self.fresh();
                if members.list.is_empty() && schema.get("additionalProperties") != Some(&false.into()) {
                    let members = self.any_members();
                    return Ok(format!("(\"{{\" {members} \"}}\")"));
                }
                let list = self.members(&rule, members, depth)?;
                self.text.push_str(&list);
                Ok(format!("(\"{{\" {rule}f0 \"}}\")"))
            }
            kind => Err(Error::invalid(format!("{kind:?} is no type of JSON")).at(at.to_owned())),
        }
    }

    fn list(&mut self, schema: &'a Value, at: &str, depth: usize) -> Result<String> {
        let item = match schema.get("items") {
            None => self.any(),
            Some(Value::Array(_)) => return Err(unkept("items", at)),
            Some(items) => self.value(items, at, depth + 1)?,
        };
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        let (least, most) = (bound("minItems").unwrap_or(0), bound("maxItems"));
        if most.is_some_and(|most| most < least) {
            return Err(Error::unsupported(
                "no list has fewer items than `minItems` and more than `maxItems`",
            )
            .at(at));
        }
        if most == Some(0) {
            return Ok("\"[]\"".into());
        }
        let more = format!(
            "(\",\" {item}){{{},{}}}",
            least.max(1) - 1,
            most.map_or_else(String::new, |most| (most - 1).to_string())
        );
        let all = format!("{item} {more}");
        Ok(match least {
            0 => format!("(\"[\" ({all})? \"]\")"),
            _ => format!("(\"[\" {all} \"]\")"),
        })
    }

    /// A value that the schema lists.
    fn one(&self, value: &Value, at: &str) -> Result<String> {
        match value {
            Value::String(text) => self.escape.one(text),
            Value::Array(_) | Value::Object(_) => Err(unkept("enum", at)),
            value => Ok(quoted(&value.to_string())),
        }
    }

    fn refer(&mut self, pointer: &str) -> String {
        if let Some(rule) = self.refs.get(pointer) {
            return rule.clone();
        }
        let rule = self.fresh();
        self.refs.insert(pointer.to_owned(), rule.clone());
        self.due.push((rule.clone(), pointer.to_owned()));
        rule
    }

    fn any_text(&self) -> String {
        self.escape.text(&without(&self.escape.mark), 0, "")
    }

    /// Any value; the rules for it are written when it is first asked for.
    fn any(&mut self) -> String {
        let rule = format!("{}any", self.rule);
        if self.refs.insert(rule.clone(), rule.clone()).is_none() {
            let text = self.any_text();
            let members = format!("({rule}k \":\" {rule} (\",\" {rule}k \":\" {rule})*)?");
            self.text.push_str(&format!(
                "{rule}: {text} | {rule}n | \"true\" | \"false\" | \"null\" | \"[\" ({rule} (\",\" {rule})*)? \"]\" | \"{{\" {members} \"}}\"\n\
                 {rule}k: /[A-Za-z_][A-Za-z0-9_]*/\n\
                 {rule}n: %json {{\"type\": \"number\"}}\n"
            ));
        }
        rule
    }

    fn any_members(&mut self) -> String {
        let rule = self.any();
        format!("({rule}k \":\" {rule} (\",\" {rule}k \":\" {rule})*)?")
    }
}

/// What a schema of several types says of texts.
fn string_of(schema: &Value) -> Value {
    let mut schema = schema.clone();
    schema["type"] = "string".into();
    schema
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
