//! What a call that has to be made must be, in each manner: a grammar in Lark's syntax of one call of one of some tools, with
//! arguments that are valid.

mod gemma;

use serde_json::{Map, Value, json};

use super::{Manner, Tool, coder, marks, python};
use crate::error::{Error, Result};
use crate::text::Tokenizer;
use crate::text::constraint::checked;

/// What schemas say beside the properties, and those refer to.
const KEPT: &[&str] = &["$schema", "$defs", "definitions"];

impl Manner {
    /// A grammar in Lark's syntax of one call of one of these tools, with arguments that are valid.
    ///
    /// # Errors
    /// [`crate::Kind::Unsupported`] where what a schema says cannot be kept in this manner.
    pub fn grammar(self, tools: &[&Tool], tokenizer: &Tokenizer) -> Result<String> {
        let known = marks(tokenizer);
        let mark = |mark: &str| match known.iter().find(|(name, _)| *name == mark) {
            Some((_, token)) => format!("<[{token}]>"),
            None => quoted(mark),
        };
        let (open, close) = self.marks();
        let (before, after) = match self {
            Self::Hermes | Self::Coder => {
                (format!("{} \"\\n\"", mark(open)), format!("\"\\n\" {}", mark(close)))
            }
            // As its template has the model write them: Python's notation is for prompts that ask for it.
            Self::Llama => (String::new(), String::new()),
            Self::Mistral | Self::Granite => (format!("{} \"[\"", mark(open)), "\"]\"".into()),
            Self::Phi | Self::Lfm => (format!("{} \"[\"", mark(open)), format!("\"]\" {}", mark(close))),
            Self::Gemma | Self::Gemma4 => (mark(open), mark(close)),
        };
        let calls: Vec<String> = (0..tools.len()).map(|i| format!("call{i}")).collect();
        let mut lark = format!("start: {before} ({}) {after}\n", calls.join(" | "));
        for (i, tool) in tools.iter().enumerate() {
            let rules = match self {
                Self::Hermes | Self::Llama | Self::Mistral | Self::Phi | Self::Granite => {
                    checked(&self.json(tool)).map(|schema| format!("call{i}: %json {schema}\n"))
                }
                Self::Gemma => gemma::rules(tool, i, &gemma::Escape::new("<escape>", &known)),
                Self::Gemma4 => gemma::rules(tool, i, &gemma::Escape::new("<|\"|>", &known)),
                Self::Lfm => in_python(tool, i),
                Self::Coder => in_tags(tool, i),
            };
            lark.push_str(&rules.map_err(|error| error.at(tool.name.clone()))?);
        }
        Ok(lark)
    }

    /// The schema of a call as a JSON object.
    fn json(self, tool: &Tool) -> Value {
        let key = if self == Self::Llama { "parameters" } else { "arguments" };
        let mut parameters = tool.parameters.clone();
        let mut call = json!({
            "type": "object",
            "properties": {"name": {"const": tool.name}},
            "required": ["name", key],
            "additionalProperties": false
        });
        // What is referred to from the root stands there still.
        for &kept in KEPT {
            if let Some(value) = parameters.as_object_mut().and_then(|map| map.shift_remove(kept)) {
                call[kept] = value;
            }
        }
        call["properties"][key] = parameters;
        call
    }
}

/// A text as it stands in a grammar.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// An expression of one character of a text without `mark`, which begins with its only `<`; or of a few, where the mark seems to begin.
fn without(mark: &str) -> String {
    let chars: Vec<char> = mark.chars().collect();
    let plain = |c: &char| if matches!(c, '|' | '/') { format!("\\{c}") } else { c.to_string() };
    let begun: Vec<String> = (1..chars.len()).map(|at| chars[..at].iter().map(plain).collect()).collect();
    let other = |at: usize| format!("{}[^{}<]", begun[at - 1], plain(&chars[at]));
    let others: Vec<String> = (1..chars.len()).map(other).collect();
    format!("([^<]|({})*({}))", begun.join("|"), others.join("|"))
}

/// `name(key=…, …)`, with values as JSON writes them but for `True`, `False` and `None`.
fn in_python(tool: &Tool, i: usize) -> Result<String> {
    let members = Members::of(tool)?;
    let mut rules = format!("call{i}: {} call{i}f0 \")\"\n", quoted(&format!("{}(", tool.name)));
    let mut values = String::new();
    let value = |at: usize, key: &str, schema: &Value| {
        if !key.starts_with(python::Call::begins) || !key.chars().all(python::is_word) {
            return Err(Error::unsupported(format!(
                "{key:?} is no name of an argument in Python's notation"
            )));
        }
        let rule = format!("call{i}v{at}");
        let literal = match schema.get("type").and_then(Value::as_str) {
            Some("boolean") if !says_more(schema) => "\"True\" | \"False\"".to_owned(),
            Some("null") => "\"None\"".to_owned(),
            _ => format!("%json {}", checked(&members.whole(schema))?),
        };
        values.push_str(&format!("{rule}: {literal}\n"));
        Ok(format!("{} {rule}", quoted(&format!("{key}="))))
    };
    rules.push_str(&sequence(&format!("call{i}"), "\", \"", &members, value)?);
    Ok(rules + &values)
}

/// `<function=name>`, and each argument in a tag: text as it is, and other values as JSON.
fn in_tags(tool: &Tool, i: usize) -> Result<String> {
    let members = Members::of(tool)?;
    let open = quoted(&format!("<function={}>\n", tool.name));
    let mut rules = format!("call{i}: {open} call{i}f0 \"</function>\"\n");
    let mut values = String::new();
    let value = |at: usize, key: &str, schema: &Value| {
        if key.contains('>') {
            return Err(Error::unsupported(format!("{key:?} is no name of an argument in tags")));
        }
        let (rule, close) = (format!("call{i}v{at}"), "\"\\n</parameter>\\n\"");
        // What closes it is of the same lexeme, which would not give back what it has begun to read as text.
        let behind = r"\n<\/parameter>\n/";
        let value = match Text::of(schema)?.filter(|_| coder::is_text(schema)) {
            Some(Text::Any) => format!("/{}*{behind}", without("</parameter>")),
            Some(Text::Long(least, most)) => format!("/[^<]{{{least},{most}}}{behind}"),
            Some(Text::OneOf(texts)) => {
                if texts.iter().any(|text| text.contains("</parameter>")) {
                    return Err(Error::unsupported(
                        "a text with </parameter> in it cannot be told from its end",
                    ));
                }
                format!("({}) {close}", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(" | "))
            }
            None => {
                values.push_str(&format!("{rule}j: %json {}\n", checked(&members.whole(schema))?));
                format!("{rule}j {close}")
            }
        };
        values.push_str(&format!("{rule}: {value}\n"));
        Ok(format!("{} {rule}", quoted(&format!("<parameter={key}>\n"))))
    };
    rules.push_str(&sequence(&format!("call{i}"), "", &members, value)?);
    Ok(rules + &values)
}

/// The arguments of a tool.
struct Members<'a> {
    list: Vec<(&'a str, &'a Value, bool)>,
    /// What their schemas may refer to.
    root: &'a Value,
}

impl<'a> Members<'a> {
    fn of(tool: &'a Tool) -> Result<Self> {
        // What no manner keeps.
        checked(&tool.parameters)?;
        let root = &tool.parameters;
        for name in ["anyOf", "allOf", "oneOf", "$ref", "minProperties", "maxProperties", "patternProperties"]
        {
            if root.get(name).is_some() {
                return Err(unkept(name, "#"));
            }
        }
        Self::within(root, root)
    }

    /// Of a schema of an object.
    fn within(schema: &'a Value, root: &'a Value) -> Result<Self> {
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let properties = schema.get("properties").and_then(Value::as_object);
        let properties = properties.into_iter().flatten();
        let list: Vec<_> = properties
            .map(|(key, schema)| (key.as_str(), schema, required.contains(&key.as_str())))
            .collect();
        if let Some(key) = required.iter().find(|&&key| list.iter().all(|(name, ..)| *name != key)) {
            return Err(Error::unsupported(format!("{key:?} is required, and nothing is said of it"))
                .hint("list it in `properties`"));
        }
        Ok(Self { list, root })
    }

    /// The schema of a value, by itself.
    fn whole(&self, schema: &Value) -> Value {
        let Value::Object(map) = schema else { return schema.clone() };
        let mut map: Map<String, Value> = map.clone();
        for &kept in KEPT {
            if let Some(value) = self.root.get(kept) {
                map.insert(kept.into(), value.clone());
            }
        }
        map.into()
    }
}

/// Rules of the members in their order, those that need not be there left out or not: `f0` of all of them, where none stands
/// before, and `m1` of those from the second on, where one does.
fn sequence<'a>(
    rule: &str,
    separator: &str,
    members: &Members<'a>,
    mut value: impl FnMut(usize, &'a str, &'a Value) -> Result<String>,
) -> Result<String> {
    let mut rules = String::new();
    for (at, &(key, schema, is_required)) in members.list.iter().enumerate() {
        let (value, next) = (value(at, key, schema)?, at + 1);
        let (no_first, no_more) = match is_required {
            true => (String::new(), String::new()),
            false => (format!(" | {rule}f{next}"), format!(" | {rule}m{next}")),
        };
        rules.push_str(&format!("{rule}f{at}: {value} {rule}m{next}{no_first}\n"));
        rules.push_str(&format!("{rule}m{at}: {separator} {value} {rule}m{next}{no_more}\n"));
    }
    let end = members.list.len();
    rules.push_str(&format!("{rule}f{end}: \"\"\n{rule}m{end}: \"\"\n"));
    Ok(rules)
}

/// What a schema asks of a text that stands without quotes.
enum Text {
    Any,
    /// So many characters at least, and at most, empty where that is open.
    Long(u64, String),
    OneOf(Vec<String>),
}

impl Text {
    /// `None` where the schema is of other values than texts.
    fn of(schema: &Value) -> Result<Option<Self>> {
        let listed = match (schema.get("const"), schema.get("enum")) {
            (Some(one), _) => Some(vec![one.clone()]),
            (None, Some(Value::Array(values))) => Some(values.clone()),
            _ => None,
        };
        if let Some(values) = listed {
            let texts: Option<Vec<_>> =
                values.iter().map(|value| value.as_str().map(str::to_owned)).collect();
            return Ok(texts.map(Self::OneOf));
        }
        if schema.get("type").is_some() && !coder::is_text(schema) {
            return Ok(None);
        }
        for name in ["pattern", "format"] {
            if schema.get(name).is_some() {
                return Err(unkept(name, "a text"));
            }
        }
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        Ok(Some(match (bound("minLength"), bound("maxLength")) {
            (None, None) => Self::Any,
            (least, most) => {
                Self::Long(least.unwrap_or(0), most.map_or_else(String::new, |most| most.to_string()))
            }
        }))
    }
}

/// Whether more than the type is said of a value.
fn says_more(schema: &Value) -> bool {
    ["const", "enum"].iter().any(|key| schema.get(key).is_some())
}

fn unkept(name: &str, at: &str) -> Error {
    let what =
        format!("the JSON schema's keyword `{name}` cannot be kept in the notation of this model's calls");
    Error::unsupported(what).at(at).hint("leave the choice to the model, or do without the keyword")
}

#[cfg(test)]
mod tests;
