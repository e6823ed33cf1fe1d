//! Tools for templates that know none: what the system's turn says of them, and how calls and results stand in turns.

use serde_json::Value;

use super::Tool;
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
}
