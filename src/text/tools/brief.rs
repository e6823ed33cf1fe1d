//! Tools for templates that know none: what the system's turn says of them, and how calls and results stand in turns. And for
//! those that know them by half.

use std::borrow::Cow;

use serde_json::Value;

use super::{Manner, Tool, ToolCall};
use crate::text::Message;

/// The conversation with the tools told in its first turn, and with calls and results as text.
pub fn brief(messages: &[Message], tools: &[Tool]) -> Vec<Message> {
    let mut told: Vec<Message> = messages.iter().map(plain).collect();
    if tools.is_empty() {
        return told;
    }
    let list: Vec<String> = tools.iter().map(|tool| tool.to_json().to_string()).collect();
    let what = format!(
        "You may call functions to help with the user's question. The functions, each with the JSON schema of its arguments:\n\
         <tools>\n{}\n</tools>\n\
         To call one, answer with a JSON object that has its name and its arguments, in <tool_call></tool_call>:\n\
         <tool_call>\n{{\"name\": \"…\", \"arguments\": {{…}}}}\n</tool_call>",
        list.join("\n")
    );
    match told.first_mut().filter(|first| role(first) == "system") {
        Some(system) => {
            let text = format!("{}\n\n{what}", content(system));
            system.0.insert("content".into(), text.into());
        }
        None => told.insert(0, Message::new("system", &what)),
    }
    told
}

/// The conversation as a template that knows tools is to see it. One that shows no calls (LFM2's, Granite 3's, SmolLM3's) has them
/// as the text that the model wrote, and one that takes tools out of the system's turn (Phi-4-mini's) has them there.
pub fn shown<'a>(
    messages: &'a [Message],
    tools: &[Tool],
    template: &str,
    manner: Manner,
) -> Cow<'a, [Message]> {
    let hides_calls = !template.contains("tool_calls");
    let in_system = !tools.is_empty() && template.contains("message['tools']");
    if !hides_calls && !in_system {
        return messages.into();
    }
    let mut shown = messages.to_vec();
    for message in shown.iter_mut().filter(|_| hides_calls) {
        let calls = message.0.get("tool_calls").and_then(Value::as_array);
        let calls: Vec<ToolCall> = calls.into_iter().flatten().filter_map(ToolCall::from_json).collect();
        if let Some(calls) = manner.say(&calls) {
            let text = format!("{}{calls}", content(message));
            message.0.insert("content".into(), text.into());
        }
    }
    if in_system {
        let list: Value = tools.iter().map(|tool| tool.to_json()["function"].take()).collect();
        if shown.first().is_none_or(|first| role(first) != "system") {
            shown.insert(0, Message::new("system", ""));
        }
        if let Some(system) = shown.first_mut() {
            system.0.insert("tools".into(), list.to_string().into());
        }
    }
    shown.into()
}

impl Manner {
    /// Calls as the model writes them; `None` without any, and in manners whose templates all show calls.
    fn say(self, calls: &[ToolCall]) -> Option<String> {
        if calls.is_empty() {
            return None;
        }
        let json = |call: &ToolCall| call.to_json()["function"].to_string();
        let list = |say: &dyn Fn(&ToolCall) -> String| calls.iter().map(say).collect::<Vec<_>>().join(", ");
        let (open, close) = self.marks();
        match self {
            Self::Hermes => {
                let said = calls.iter().map(|call| format!("{open}\n{}\n{close}", json(call)));
                Some(said.collect::<Vec<_>>().join("\n"))
            }
            Self::Granite => Some(format!("{open}[{}]", list(&json))),
            Self::Phi => Some(format!("{open}[{}]{close}", list(&json))),
            Self::Lfm => Some(format!("{open}[{}]{close}", list(&super::python::say))),
            Self::Llama | Self::Mistral | Self::Gemma | Self::Gemma4 | Self::Coder => None,
        }
    }
}

/// A turn of the kinds that every template knows.
fn plain(message: &Message) -> Message {
    let calls = message.0.get("tool_calls").and_then(Value::as_array);
    if let Some(calls) = calls {
        let call = |call: &Value| {
            let function = call.get("function").unwrap_or(call);
            format!("<tool_call>\n{function}\n</tool_call>")
        };
        let calls: Vec<String> = calls.iter().map(call).collect();
        let text = [content(message), calls.join("\n")].into_iter().filter(|part| !part.is_empty());
        return Message::new(role(message), &text.collect::<Vec<_>>().join("\n"));
    }
    match role(message) {
        "tool" => Message::new("user", &format!("<tool_response>\n{}\n</tool_response>", content(message))),
        _ => message.clone(),
    }
}

fn role(message: &Message) -> &str {
    message.0.get("role").and_then(Value::as_str).unwrap_or_default()
}

fn content(message: &Message) -> String {
    message.0.get("content").and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_turn_is_one_that_templates_know() {
        let tool =
            Tool { name: "add".into(), description: String::new(), parameters: json!({"type": "object"}) };
        let call = json!({"role": "assistant", "content": "", "tool_calls": [{"id": "1", "function": {"name": "add", "arguments": {"a": 1}}}]});
        let Value::Object(call) = call else { panic!("an object") };
        let messages = [
            Message::new("system", "Be kind."),
            Message::new("user", "1?"),
            Message(call),
            Message::new("tool", "2"),
        ];
        let told = brief(&messages, &[tool]);
        let texts: Vec<String> = told.iter().map(content).collect();
        assert!(
            texts[0].starts_with("Be kind.\n\n") && texts[0].contains("\"name\":\"add\""),
            "{}",
            texts[0]
        );
        assert_eq!(texts[2], "<tool_call>\n{\"name\":\"add\",\"arguments\":{\"a\":1}}\n</tool_call>");
        assert_eq!((role(&told[3]), texts[3].as_str()), ("user", "<tool_response>\n2\n</tool_response>"));
        assert_eq!(brief(&messages[..2], &[]), messages[..2]);
    }

    #[test]
    fn a_template_that_knows_tools_by_half_is_helped() {
        let arguments = json!({"a": "it's \"1\"\n", "b": [true, null, {"c": 1.5}]});
        let Value::Object(arguments) = arguments else { panic!("an object") };
        let call = ToolCall { id: "1".into(), name: "add".into(), arguments };
        let mut said = Message::new("assistant", "I add.");
        said.0.insert("tool_calls".into(), json!([call.to_json(), call.to_json()]));
        let messages = [Message::new("user", "1?"), said];
        let tool =
            Tool { name: "add".into(), description: String::new(), parameters: json!({"type": "object"}) };
        let tools = std::slice::from_ref(&tool);
        // One that shows them has them as they are.
        assert_eq!(*shown(&messages, tools, "{{ message.tool_calls }}", Manner::Lfm), messages);
        for manner in [Manner::Hermes, Manner::Phi, Manner::Granite, Manner::Lfm] {
            let shown = shown(&messages, tools, "{{ tools }}", manner);
            // What is shown is what the model would have written.
            let mut reader = crate::text::Reader::new(manner, vec![tool.clone()], 0);
            let mut news = reader.push(&content(&shown[1]));
            news.extend(reader.finish());
            let calls = news.iter().filter_map(|news| match news {
                crate::text::News::Call(call) => Some(call.arguments.clone()),
                _ => None,
            });
            assert_eq!(calls.collect::<Vec<_>>(), [call.arguments.clone(), call.arguments.clone()]);
            assert!(content(&shown[1]).starts_with("I add.<"));
        }
        let phi = "{% if 'tools' in message %}{{ message['tools'] }}{% endif %}";
        let shown = shown(&messages[..1], tools, phi, Manner::Phi);
        assert_eq!((role(&shown[0]), shown.len()), ("system", 2));
        let list: Value = serde_json::from_str(shown[0].0["tools"].as_str().unwrap()).unwrap();
        assert_eq!(list[0]["name"], "add");
    }
}
