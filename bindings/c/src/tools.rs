//! Tools that a model may ask its host to call, as C says them.

use pocketlm::{Error, Tool, ToolCall, ToolChoice};
use serde_json::{Map, Value, json};

use crate::input::{list, text};
use crate::options::plm_generate_options;
use crate::prompt::plm_text;
use crate::status::{Outcome, Refusal};

/// Something that a model may ask its host to do.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_tool {
    /// What the model calls it by: up to 64 letters, digits, `_`, `-` and `.`.
    pub name: plm_text,
    /// What it does, for the model to read.
    pub description: plm_text,
    /// The JSON schema of its arguments, an object; empty for any object.
    pub parameters: plm_text,
}

/// Whether a model may call tools.
#[repr(u32)]
pub enum plm_tool_choice {
    /// As it thinks best.
    PLM_TOOL_CHOICE_AUTO = 0,
    /// It is told of none.
    PLM_TOOL_CHOICE_NONE = 1,
    /// It has to call one, with arguments that are valid by the schema.
    PLM_TOOL_CHOICE_REQUIRED = 2,
    /// It has to call the one with the name `tool_name`.
    PLM_TOOL_CHOICE_NAMED = 3,
}

/// A model's wish that a tool be called.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_tool_call {
    /// Names the call, for its result; others for each call of a session.
    pub id: plm_text,
    /// The tool's name, which need not be one that there is.
    pub name: plm_text,
    /// A JSON object, as the model said it: valid by the tool's schema only where it had to be.
    pub arguments: plm_text,
}

impl plm_generate_options {
    /// # Safety
    /// What it points to is there.
    pub(crate) unsafe fn tools(&self) -> Outcome<Vec<Tool>> {
        // SAFETY: as the caller promised.
        let tools = unsafe { list(self.tools, self.tool_count, "tools")? };
        // SAFETY: as the caller promised.
        tools.iter().map(|tool| unsafe { tool.meant() }).collect()
    }

    /// # Safety
    /// What it points to is there.
    pub(crate) unsafe fn tool_choice(&self) -> Outcome<ToolChoice> {
        Ok(match self.tool_choice {
            0 => ToolChoice::Auto,
            1 => ToolChoice::None,
            2 => ToolChoice::Required,
            // SAFETY: as the caller promised.
            3 => ToolChoice::Named(unsafe { text(self.tool_name, "name of a tool")? }.to_owned()),
            choice => return Err(Refusal::invalid(&format!("{choice} is no plm_tool_choice"))),
        })
    }
}

impl plm_tool {
    /// # Safety
    /// What it points to is there.
    unsafe fn meant(&self) -> Outcome<Tool> {
        // SAFETY: as the caller promised, for all of it.
        let (name, description, parameters) = unsafe {
            let name = text(self.name, "name of a tool")?;
            (name, text(self.description, "description")?, text(self.parameters, "schema")?)
        };
        let parameters = match parameters {
            "" => json!({"type": "object"}),
            schema => serde_json::from_str(schema).map_err(|error| {
                Error::invalid(format!("the schema of its arguments is no JSON: {error}")).at(name.to_owned())
            })?,
        };
        Ok(Tool { name: name.to_owned(), description: description.to_owned(), parameters })
    }
}

impl plm_tool_call {
    /// # Safety
    /// What it points to is there.
    pub(crate) unsafe fn meant(&self) -> Outcome<ToolCall> {
        // SAFETY: as the caller promised, for all of it.
        let (id, name, arguments) = unsafe {
            let id = text(self.id, "id of a call")?;
            (id, text(self.name, "name of a tool")?, text(self.arguments, "arguments of a call")?)
        };
        let arguments = match arguments {
            "" => Map::new(),
            arguments => serde_json::from_str(arguments).map_err(|error| {
                Error::invalid(format!("the arguments of a call are no JSON object: {error}"))
            })?,
        };
        Ok(ToolCall { id: id.to_owned(), name: name.to_owned(), arguments })
    }
}

/// The arguments of a call as text.
pub(crate) fn arguments(call: &ToolCall) -> String {
    Value::Object(call.arguments.clone()).to_string()
}
