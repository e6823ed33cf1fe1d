//! Conversations as clients send them, made into what chat templates know.

use pocketlm::{Message, ToolCall};
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// Messages, at most.
const MOST: usize = 4096;

/// The messages of a chat: texts for contents, arguments of calls as objects, and the names of tools beside their results.
pub(crate) fn read(list: &[Value], name: &str) -> Result<Vec<Message>, Refusal> {
    if list.is_empty() || list.len() > MOST {
        return Err(Refusal::invalid(name, format!("`{name}` has to hold from 1 to {MOST} messages.")));
    }
    let mut messages = Vec::with_capacity(list.len());
    let mut called: Vec<ToolCall> = Vec::new();
    for (at, message) in list.iter().enumerate() {
        let path = format!("{name}[{at}]");
        let wrong = |field: &str, due: &str| {
            Refusal::invalid(&format!("{path}{field}"), format!("`{path}{field}` has to be {due}."))
        };
        let message = message.as_object().ok_or_else(|| wrong("", "an object"))?;
        let role = match message.get("role").and_then(Value::as_str) {
            Some("developer") => "system",
            Some("function") => "tool",
            Some(role @ ("system" | "user" | "assistant" | "tool")) => role,
            _ => return Err(wrong(".role", "system, developer, user, assistant or tool")),
        };
        let calls = match message.get("tool_calls").filter(|calls| !calls.is_null()) {
            None => Vec::new(),
            Some(calls) => {
                let calls = calls
                    .as_array()
                    .map(|calls| calls.iter().map(ToolCall::from_json).collect::<Option<Vec<_>>>());
                calls.flatten().ok_or_else(|| {
                    wrong(".tool_calls", "calls of functions, whose arguments are JSON objects")
                })?
            }
        };
        let content = content(message.get("content"), &format!("{path}.content"))?;
        let is_said = content.is_some() || !calls.is_empty();
        if !is_said {
            return Err(wrong(".content", "a string, or parts of the type text"));
        }
        let mut read = Message::new(role, &content.unwrap_or_default());
        if role == "tool" {
            result(message, &called, &mut read.0);
        }
        if !calls.is_empty() {
            read.0.insert("tool_calls".into(), calls.iter().map(ToolCall::to_json).collect());
            called.extend(calls);
        }
        messages.push(read);
    }
    Ok(messages)
}

/// Says which call a result is of.
fn result(message: &Map<String, Value>, called: &[ToolCall], into: &mut Map<String, Value>) {
    let id = message.get("tool_call_id").and_then(Value::as_str);
    let call = id.and_then(|id| called.iter().rev().find(|call| call.id == id));
    let name = message.get("name").and_then(Value::as_str).or(call.map(|call| call.name.as_str()));
    if let Some(name) = name {
        into.insert("name".into(), name.into());
    }
    if let Some(id) = id {
        into.insert("tool_call_id".into(), id.into());
    }
}

/// The text of a content: a string, or parts of text. None where there is nothing.
pub(crate) fn content(content: Option<&Value>, path: &str) -> Result<Option<String>, Refusal> {
    let wrong = || Refusal::invalid(path, format!("`{path}` has to be a string, or parts of the type text."));
    match content {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(parts)) => {
            let mut text = String::new();
            for part in parts {
                match part.get("type").and_then(Value::as_str) {
                    Some("text" | "input_text" | "output_text") => {
                        text.push_str(part.get("text").and_then(Value::as_str).ok_or_else(wrong)?);
                    }
                    Some("refusal") => {
                        text.push_str(part.get("refusal").and_then(Value::as_str).ok_or_else(wrong)?)
                    }
                    Some(kind) => {
                        let message = format!(
                            "Parts of the type {kind:?} are not supported here: the model reads text alone."
                        );
                        return Err(Refusal::unsupported(path, message));
                    }
                    None => return Err(wrong()),
                }
            }
            Ok(Some(text))
        }
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_and_results_find_each_other() {
        let list = json!([
            {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Rome\"}"}}
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
        ]);
        let messages = read(list.as_array().unwrap(), "messages").unwrap();
        assert_eq!(messages[0], Message::new("system", "Be brief."));
        assert_eq!(messages[2].0["tool_calls"][0]["function"]["arguments"], json!({"city": "Rome"}));
        assert_eq!(
            (&messages[3].0["name"], &messages[3].0["tool_call_id"]),
            (&json!("weather"), &json!("c1"))
        );
    }

    #[test]
    fn what_is_no_conversation_is_refused_with_its_place() {
        for (list, param) in [
            (json!([]), "messages"),
            (json!(["hi"]), "messages[0]"),
            (json!([{"role": "king", "content": "hi"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": 3}]), "messages[0].content"),
            (
                json!([{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "image_url"}]}]),
                "messages[1].content",
            ),
            (json!([{"role": "assistant", "tool_calls": [{"id": "a"}]}]), "messages[0].tool_calls"),
            (json!([{"role": "assistant", "tool_calls": 3, "content": "a"}]), "messages[0].tool_calls"),
        ] {
            let refused = read(list.as_array().unwrap(), "messages").unwrap_err();
            assert_eq!(
                (refused.status.as_u16(), &refused.to_json()["error"]["param"]),
                (400, &json!(param)),
                "{list}"
            );
        }
    }
}
