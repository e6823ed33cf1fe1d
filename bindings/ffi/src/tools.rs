//! Tools that a model may ask its app to call.

use serde_json::{Map, Value, json};

use crate::error::{Result, invalid};

/// Something that a model may ask its app to do.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Tool {
    /// What the model calls it by: up to 64 letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// What it does, for the model to read.
    pub description: String,
    /// The JSON schema of its arguments, an object; nothing allows any object.
    #[uniffi(default = None)]
    pub parameters: Option<String>,
}

/// Whether a model may call tools.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum ToolChoice {
    /// As it thinks best.
    Auto,
    /// It is told of none.
    Never,
    /// It has to call one, with arguments that are valid by the schema.
    Required,
    /// It has to call this one.
    Named { name: String },
}

/// A model's wish that a tool be called.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct ToolCall {
    /// Names the call, for its result; others for each call of a session.
    pub id: String,
    /// The tool's name, which need not be one that there is.
    pub name: String,
    /// A JSON object, as the model said it: valid by the tool's schema only where it had to be.
    pub arguments: String,
}

impl Tool {
    pub(crate) fn meant(self) -> Result<pocketlm::Tool> {
        let Self { name, description, parameters } = self;
        let parameters = match parameters {
            None => json!({"type": "object"}),
            Some(schema) => serde_json::from_str(&schema)
                .map_err(|error| invalid(&format!("the schema of {name:?} is no JSON: {error}")))?,
        };
        Ok(pocketlm::Tool { name, description, parameters })
    }
}

impl ToolChoice {
    pub(crate) fn meant(self) -> pocketlm::ToolChoice {
        match self {
            Self::Auto => pocketlm::ToolChoice::Auto,
            Self::Never => pocketlm::ToolChoice::None,
            Self::Required => pocketlm::ToolChoice::Required,
            Self::Named { name } => pocketlm::ToolChoice::Named(name),
        }
    }
}

impl ToolCall {
    pub(crate) fn meant(self) -> Result<pocketlm::ToolCall> {
        let Self { id, name, arguments } = self;
        let arguments = serde_json::from_str::<Map<_, _>>(&arguments)
            .map_err(|error| invalid(&format!("the arguments of a call are no JSON object: {error}")))?;
        Ok(pocketlm::ToolCall { id, name, arguments })
    }
}

impl From<pocketlm::ToolCall> for ToolCall {
    fn from(call: pocketlm::ToolCall) -> Self {
        let pocketlm::ToolCall { id, name, arguments } = call;
        Self { id, name, arguments: Value::Object(arguments).to_string() }
    }
}
