//! Tools that a model may call: how they are told to it, and how its calls are read out of what it writes.
//!
//! A chat template that knows tools says them in its model's own words. For one that does not, [`brief`] says them as Hermes'
//! models read them. Models write calls in a few manners, and the template tells which, or where it does not the vocabulary.

mod brief;
mod call;
mod coder;
mod gemma;
mod grammar;
mod python;
mod reader;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

use super::Tokenizer;

pub use brief::{brief, shown};
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
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2.5 and 3, SmolLM3, Granite 4 (Hermes Function Calling,
    /// and their templates).
    Hermes,
    /// `{"name": …, "parameters": {…}}`, which may stand behind `<|python_tag|>`: Llama 3.1 to 3.3 (its model card and template);
    /// or `[name(key='text', …), …]`, which the small models of 3.2 write (llama-models, `llama3_2/text_prompt_format.md`), and
    /// `<|python_tag|>name.call(key="text")` (the template of 3.1).
    Llama,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]` or `[TOOL_CALLS]name[ARGS]{…}`: Mistral (mistral-common).
    Mistral,
    /// `<start_function_call>call:name{key:<escape>text<escape>, …}<end_function_call>`: FunctionGemma (its page of formatting).
    Gemma,
    /// `<|tool_call>call:name{key:<|"|>text<|"|>, …}<tool_call|>`: Gemma 4 (its template).
    Gemma4,
    /// `<|tool_call|>[{"name": …, "arguments": {…}}, …]<|/tool_call|>`: Phi-4-mini (its own template says
    /// tools in `<|tool|>`, and llama.cpp's and Ollama's templates for it calls in these marks).
    Phi,
    /// The same without an end: Granite 3 (its template).
    Granite,
    /// `<|tool_call_start|>[name(key='text', …), …]<|tool_call_end|>`: LFM2 and 2.5 (their template, and Liquid's page of tool use,
    /// by which there may be JSON in it).
    Lfm,
    /// `<tool_call><function=name><parameter=key>text</parameter></function></tool_call>`: Qwen3-Coder (its template).
    Coder,
}

/// Tokens that stand around calls, in whatever manner, and the manner of a vocabulary that has one, where that is sure: Llama's
/// is in the vocabulary of models that were taught another manner since.
const MARKS: &[(&str, Option<Manner>)] = &[
    ("<tool_call>", None),
    ("</tool_call>", None),
    ("<|python_tag|>", None),
    ("[TOOL_CALLS]", Some(Manner::Mistral)),
    ("[CALL_ID]", None),
    ("[ARGS]", None),
    ("<start_function_call>", Some(Manner::Gemma)),
    ("<end_function_call>", None),
    ("<escape>", None),
    ("<|tool_call>", Some(Manner::Gemma4)),
    ("<tool_call|>", None),
    ("<|\"|>", None),
    ("<|/tool_call|>", Some(Manner::Phi)),
    ("<|tool_call|>", Some(Manner::Granite)),
    ("<|tool_call_start|>", Some(Manner::Lfm)),
    ("<|tool_call_end|>", None),
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
    /// That of a template that knows tools, where it shows one.
    pub fn of(template: &str) -> Option<Self> {
        let has = |mark: &str| template.contains(mark);
        if has("<tool_call>") && has("<function=") && has("<parameter=") {
            return Some(Self::Coder);
        }
        let marks = [
            ("<start_function_call>", Self::Gemma),
            ("<|tool_call>", Self::Gemma4),
            ("[TOOL_CALLS]", Self::Mistral),
            ("<|tool_call_start|>", Self::Lfm),
            ("<|tool_list_start|>", Self::Lfm),
            ("<tool_call>", Self::Hermes),
            // Phi's, which shows how tools are said and not how they are called.
            ("<|tool|>", Self::Phi),
            ("<|tool_call|>", Self::Granite),
            ("<|python_tag|>", Self::Llama),
            ("\"parameters\": ", Self::Llama),
        ];
        marks.iter().find(|(mark, _)| has(mark)).map(|&(_, manner)| manner)
    }

    /// That of a vocabulary, where the template does not show it: LFM2.5's tells the model of tools in plain words.
    pub fn of_vocabulary(tokenizer: &Tokenizer) -> Option<Self> {
        let is_there =
            |&&(mark, manner): &&(&str, Option<Self>)| manner.is_some() && token(tokenizer, mark).is_some();
        MARKS.iter().find(is_there).and_then(|&(_, manner)| manner)
    }
}

/// The marks that are special tokens of a vocabulary, which a text would not show.
pub fn marks(tokenizer: &Tokenizer) -> Vec<(&'static str, u32)> {
    MARKS.iter().filter_map(|&(mark, _)| Some((mark, token(tokenizer, mark)?))).collect()
}

/// The special token that a mark is.
fn token(tokenizer: &Tokenizer, mark: &str) -> Option<u32> {
    match tokenizer.encode(mark, super::Special::Parse).as_deref() {
        Ok(&[token]) if tokenizer.is_special(token) => Some(token),
        _ => None,
    }
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
    fn the_manner_is_what_the_template_shows() {
        let manners = [
            ("{{ tools }} <tool_call>", Some(Manner::Hermes)),
            ("<tools> <tool_call>\n<function=f>\n<parameter=a>", Some(Manner::Coder)),
            ("'<|python_tag|>' ~ '\"parameters\": '", Some(Manner::Llama)),
            ("followed by <|tool_call|> and a list", Some(Manner::Granite)),
            ("'<|tool|>' + message['tools'] + '<|/tool|>'", Some(Manner::Phi)),
            ("List of tools: <|tool_list_start|>", Some(Manner::Lfm)),
            ("'<|tool_call>call:'", Some(Manner::Gemma4)),
            ("<start_function_call>", Some(Manner::Gemma)),
            ("[TOOL_CALLS]", Some(Manner::Mistral)),
            ("List of tools: [", None),
        ];
        for (template, manner) in manners {
            assert_eq!(Manner::of(template), manner, "{template}");
        }
    }
}
