//! Calls of every manner, however the answer is cut into pieces.

use serde_json::json;

use super::*;

/// The text outside calls, and the calls: name, arguments, and what was streamed of them.
fn read(manner: Manner, answer: &str, size: usize) -> (String, Vec<(String, Value, String)>) {
    let mut reader = Reader::new(manner, vec!["add".into(), "now".into()], 5);
    let chars: Vec<char> = answer.chars().collect();
    let mut news: Vec<News> =
        chars.chunks(size).flat_map(|piece| reader.push(&piece.iter().collect::<String>())).collect();
    news.extend(reader.finish());
    let (mut text, mut calls, mut streamed) = (String::new(), Vec::new(), std::collections::HashMap::new());
    for news in news {
        match news {
            News::Text(piece) => text += &piece,
            News::Arguments { id, text, .. } => *streamed.entry(id).or_insert_with(String::new) += &text,
            News::Call(ToolCall { id, name, arguments }) => {
                assert_eq!(id.len(), 9);
                calls.push((name, Value::Object(arguments), streamed.remove(&id).unwrap_or_default()));
            }
        }
    }
    (text, calls)
}

fn all(manner: Manner, answer: &str, text: &str, calls: &[(&str, Value)]) {
    for size in [1, 2, 3, 7, 1000] {
        let (said, found) = read(manner, answer, size);
        assert_eq!(said, text, "{answer:?} by {size}");
        let due: Vec<(String, Value)> =
            calls.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let names: Vec<(String, Value)> =
            found.iter().map(|(name, value, _)| (name.clone(), value.clone())).collect();
        assert_eq!(names, due, "{answer:?} by {size}");
        for (_, value, streamed) in found {
            let streamed: Value =
                serde_json::from_str(&streamed).unwrap_or_else(|_| panic!("{streamed:?} was streamed"));
            assert!(streamed == value || streamed == Value::String(value.to_string()), "{streamed}");
        }
    }
}

#[test]
fn hermes() {
    let call = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": \"}{\\\"\"}}\n</tool_call>";
    let due = ("add", json!({"a": 1, "b": "}{\""}));
    all(Manner::Hermes, call, "", std::slice::from_ref(&due));
    all(
        Manner::Hermes,
        &format!("I look. {call}\n{call} Done"),
        "I look. \n Done",
        &[due.clone(), due.clone()],
    );
    all(
        Manner::Hermes,
        "<tool_call>{\"arguments\": {}, \"name\": \"now\"}</tool_call>",
        "",
        &[("now", json!({}))],
    );
    let list = "<tool_call>[{\"name\": \"now\", \"arguments\": {}}, {\"name\": \"add\", \"arguments\": {\"a\": [1, {}]}}]</tool_call>";
    all(Manner::Hermes, list, "", &[("now", json!({})), ("add", json!({"a": [1, {}]}))]);
    all(Manner::Hermes, "a < b <tool", "a < b <tool", &[]);
}

#[test]
fn what_is_no_call_is_text() {
    for text in [
        "<tool_call>nonsense</tool_call>",
        "<tool_call>\n{\"name\": 3}\n</tool_call>",
        "<tool_call>{\"a\": [}",
        "<tool_call>",
    ] {
        for size in [1, 5, 100] {
            let (said, calls) = read(Manner::Hermes, text, size);
            assert!(calls.is_empty() && said == text, "{said:?}, not {text:?} by {size}");
        }
    }
}

#[test]
fn llama() {
    let call = "{\"name\": \"add\", \"parameters\": {\"a\": \"1\"}}";
    let due = ("add", json!({"a": "1"}));
    all(Manner::Llama, call, "", std::slice::from_ref(&due));
    all(Manner::Llama, &format!("<|python_tag|>{call}"), "", std::slice::from_ref(&due));
    all(Manner::Llama, &format!("{call}; {call}"), "", &[due.clone(), due]);
    // Other JSON is text, and so is JSON behind text.
    all(
        Manner::Llama,
        "{\"name\": \"Ann\", \"age\": 3} is her",
        "{\"name\": \"Ann\", \"age\": 3} is her",
        &[],
    );
    all(Manner::Llama, &format!("See: {call}"), &format!("See: {call}"), &[]);
}

#[test]
fn mistral() {
    let list = "[TOOL_CALLS] [{\"name\": \"add\", \"arguments\": {\"a\": 1}, \"id\": \"x\"}, {\"name\": \"now\", \"arguments\": {}}]";
    all(Manner::Mistral, list, "", &[("add", json!({"a": 1})), ("now", json!({}))]);
    let named = "Well.[TOOL_CALLS]add[ARGS]{\"a\": {\"b\": 2}}[TOOL_CALLS]now[CALL_ID]abc[ARGS]{}";
    all(Manner::Mistral, named, "Well.", &[("add", json!({"a": {"b": 2}})), ("now", json!({}))]);
    all(Manner::Mistral, "[TOOL", "[TOOL", &[]);
}

#[test]
fn gemma() {
    let call = "<start_function_call>call:add{a:1,b:<escape>x<escape>}<end_function_call>";
    all(
        Manner::Gemma,
        &format!("{call}{call}!"),
        "!",
        &[("add", json!({"a": 1, "b": "x"})), ("add", json!({"a": 1, "b": "x"}))],
    );
    all(
        Manner::Gemma,
        "<start_function_call>hm<end_function_call>",
        "<start_function_call>hm<end_function_call>",
        &[],
    );
}

#[test]
fn arguments_stream_before_the_call_is_whole() {
    let mut reader = Reader::new(Manner::Hermes, vec![], 0);
    assert_eq!(
        reader.push("<tool_call>{\"name\": \"add\", \"arguments\": {\"a\""),
        [News::Arguments { id: "c00000000".into(), name: "add".into(), text: "{\"a\"".into() }]
    );
    assert_eq!(
        reader.push(": 12"),
        [News::Arguments { id: "c00000000".into(), name: "add".into(), text: ": 12".into() }]
    );
    assert_eq!(reader.push("}}").len(), 2);
}
