//! Tools that a model may call: how they are told to it, and how its calls are read out of what it writes.
//!
//! A chat template that knows tools says them in its model's own words. For one that does not, [`brief`] says them as Hermes'
//! models read them. Models write calls in a few manners, and the template or the vocabulary tells which.

mod brief;
mod call;
mod gemma;
mod reader;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

use super::Tokenizer;

pub use brief::brief;
pub use reader::{News, Reader};

/// Something that a model may ask its host to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// What the model calls it by: letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// What it does, for the model to read.
    pub description: String,
    /// The JSON schema of its arguments, an object.
    pub parameters: Value,
}

/// A model's wish that a tool be called.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Names the call, for its result: 9 letters and digits, others for each call of a session.
    pub id: String,
    /// The tool's name, which need not be one that there is.
    pub name: String,
    /// What it is called with, as the model said it: valid by the tool's schema only where it had to be.
    pub arguments: Map<String, Value>,
}

/// Whether a model may call tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As it thinks best.
    #[default]
    Auto,
    /// It is told of none.
    None,
    /// It has to call one, with arguments that are valid by the schema.
    Required,
    /// It has to call this one.
    Named(String),
}

/// How a model writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2.5 and 3, SmolLM3 (Hermes Function Calling).
    Hermes,
    /// `{"name": …, "parameters": {…}}`, which may stand behind `<|python_tag|>`: Llama 3.1 to 3.3 (its model card).
    Llama,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]` or `[TOOL_CALLS]name[ARGS]{…}`: Mistral (mistral-common).
    Mistral,
    /// `<start_function_call>call:name{key:<escape>text<escape>, …}<end_function_call>`: FunctionGemma (its page of formatting).
    Gemma,
}

/// Tokens that stand around calls, in whatever manner.
const MARKS: &[&str] = &[
    "<tool_call>",
    "</tool_call>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "[CALL_ID]",
    "[ARGS]",
    "<start_function_call>",
    "<end_function_call>",
    "<escape>",
];

impl Tool {
    /// From a JSON object with `name`, `description` and `parameters` (or `input_schema`), which may stand in a `function`
    /// as clients of OpenAI's API send it.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidArgument`] where it is none.
    pub fn from_json(tool: &Value) -> Result<Self> {
        let tool = tool.get("function").unwrap_or(tool);
        let name = tool.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| Error::invalid("a tool has no name"))?.to_owned();
        let description = tool.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
        let parameters = tool.get("parameters").or_else(|| tool.get("input_schema")).cloned();
        let tool = Self { name, description, parameters: parameters.unwrap_or(json!({"type": "object"})) };
        tool.check()?;
        Ok(tool)
    }

    /// Refuses a name that would not survive being said, and arguments that are no object.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidArgument`].
    pub fn check(&self) -> Result<()> {
        let is_sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(is_sound) {
            return Err(Error::invalid(format!("{:?} is no name for a tool", self.name))
                .hint("up to 64 letters, digits, _, - and . would work"));
        }
        match &self.parameters {
            Value::Object(_) => Ok(()),
            _ => {
                Err(Error::invalid("the arguments of a tool are not said by a schema").at(self.name.clone()))
            }
        }
    }

    /// As templates are given it.
    pub fn to_json(&self) -> Value {
        let Self { name, description, parameters } = self;
        let function = json!({"name": name, "description": description, "parameters": parameters});
        json!({"type": "function", "function": function})
    }
}

impl ToolCall {
    /// From an assistant's message, as [`Self::to_json`] wrote it.
    pub fn from_json(call: &Value) -> Option<Self> {
        let id = call.get("id")?.as_str()?.to_owned();
        let function = call.get("function")?;
        let name = function.get("name")?.as_str()?.to_owned();
        Some(Self { id, name, arguments: call::arguments_of(function.get("arguments")?.clone())? })
    }

    /// As templates are given it, in an assistant's message.
    pub fn to_json(&self) -> Value {
        let Self { id, name, arguments } = self;
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    }
}

impl Manner {
    /// That of a template that knows tools.
    pub fn of(template: &str) -> Self {
        let marks = [
            ("<start_function_call>", Self::Gemma),
            ("[TOOL_CALLS]", Self::Mistral),
            ("<tool_call>", Self::Hermes),
            ("<|python_tag|>", Self::Llama),
            ("\"parameters\": ", Self::Llama),
        ];
        marks.iter().find(|(mark, _)| template.contains(mark)).map_or(Self::Hermes, |&(_, manner)| manner)
    }

    /// A grammar in Lark's syntax of one call of one of these tools, with arguments that are valid.
    ///
    /// # Errors
    /// [`crate::Kind::Unsupported`] where that cannot be said in this manner.
    pub fn grammar(self, tools: &[&Tool], tokenizer: &Tokenizer) -> Result<String> {
        let key = if self == Self::Llama { "parameters" } else { "arguments" };
        let call = |tool: &&Tool| {
            let mut parameters = tool.parameters.clone();
            let mut call = json!({
                "type": "object",
                "properties": {"name": {"const": tool.name}},
                "required": ["name", key],
                "additionalProperties": false
            });
            // What is referred to from the root stands there still.
            for kept in ["$schema", "$defs", "definitions"] {
                if let Some(value) = parameters.as_object_mut().and_then(|map| map.shift_remove(kept)) {
                    call[kept] = value;
                }
            }
            call["properties"][key] = parameters;
            call
        };
        let mark = |mark: &str| match marks(tokenizer).iter().find(|(name, _)| *name == mark) {
            Some((_, token)) => format!("<[{token}]>"),
            None => json!(mark).to_string(),
        };
        let (before, after) = match self {
            Self::Hermes => {
                (format!("{} \"\\n\"", mark("<tool_call>")), format!("\"\\n\" {}", mark("</tool_call>")))
            }
            Self::Llama => (String::new(), String::new()),
            Self::Mistral => (format!("{} \"[\"", mark("[TOOL_CALLS]")), "\"]\"".into()),
            Self::Gemma => {
                return Err(Error::unsupported(
                    "a call that has to be made cannot be held to FunctionGemma's manner",
                )
                .hint("leave the choice to the model"));
            }
        };
        let mut lark = format!("start: {before} ({}) {after}\n", names(tools.len()));
        for (i, tool) in tools.iter().enumerate() {
            let schema =
                super::constraint::checked(&call(tool)).map_err(|error| error.at(tool.name.clone()))?;
            lark.push_str(&format!("call{i}: %json {schema}\n"));
        }
        Ok(lark)
    }
}

fn names(count: usize) -> String {
    (0..count).map(|i| format!("call{i}")).collect::<Vec<_>>().join(" | ")
}

/// The marks that are special tokens of a vocabulary, which a text would not show.
pub fn marks(tokenizer: &Tokenizer) -> Vec<(&'static str, u32)> {
    let token = |&mark: &&'static str| match tokenizer.encode(mark, super::Special::Parse).as_deref() {
        Ok(&[token]) if tokenizer.is_special(token) => Some((mark, token)),
        _ => None,
    };
    MARKS.iter().filter_map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_read_as_clients_send_them() {
        let plain = json!({"name": "add", "description": "Adds.", "parameters": {"type": "object"}});
        let tool = Tool::from_json(&plain).unwrap();
        assert_eq!(Tool::from_json(&json!({"type": "function", "function": plain})).unwrap(), tool);
        assert_eq!(Tool::from_json(&tool.to_json()).unwrap(), tool);
        for wrong in
            [json!({}), json!({"name": "a b"}), json!({"name": ""}), json!({"name": "a", "parameters": 3})]
        {
            assert!(Tool::from_json(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_call_that_has_to_be_made_is_held_to_the_schema() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stories260k/stories260K-f32.gguf");
        let checkpoint = crate::format::Checkpoint::open(path).unwrap();
        let tokenizer = std::sync::Arc::new(Tokenizer::of(&checkpoint.dialect).unwrap().unwrap());
        let lexicon = crate::text::Lexicon::new(&tokenizer).unwrap();
        let parameters = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {"at": {"$ref": "#/$defs/Point"}},
            "required": ["at"],
            "$defs": {"Point": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}}
        });
        let go = Tool { name: "go".into(), description: String::new(), parameters };
        let stop =
            Tool { name: "stop".into(), description: String::new(), parameters: json!({"type": "object"}) };
        let accepts = |manner: Manner, text: &str| {
            let grammar = manner.grammar(&[&go, &stop], &tokenizer).unwrap();
            let mut guide = lexicon.guide(&crate::text::Constraint::Lark(grammar), false).unwrap();
            guide.accepts(text.as_bytes()).unwrap()
        };
        let hermes = |call: &str| format!("<tool_call>\n{call}\n</tool_call>");
        let call = "{\"name\": \"go\", \"arguments\": {\"at\": [1, 2]}}";
        assert!(accepts(Manner::Hermes, &hermes(call)));
        assert!(accepts(Manner::Hermes, &hermes("{\"name\": \"stop\", \"arguments\": {}}")));
        assert!(accepts(Manner::Llama, &call.replace("arguments", "parameters")));
        assert!(accepts(Manner::Mistral, &format!("[TOOL_CALLS][{call}]")));
        for wrong in [
            call.replace("[1, 2]", "[1]"),
            call.replace("go", "run"),
            "{}".into(),
            call.replace("1", "\"1\""),
        ] {
            assert!(!accepts(Manner::Hermes, &hermes(&wrong)), "{wrong}");
        }
        assert!(!accepts(Manner::Hermes, call));
        assert!(Manner::Gemma.grammar(&[&go], &tokenizer).is_err());
    }
}
