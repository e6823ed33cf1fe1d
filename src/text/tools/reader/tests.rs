//! Calls of every manner, however the answer is cut into pieces.

use serde_json::json;

use super::*;

fn tools() -> Vec<Tool> {
    let parameters =
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}});
    let tool =
        |name: &str| Tool { name: name.into(), description: String::new(), parameters: parameters.clone() };
    vec![tool("add"), tool("now"), tool("get_weather")]
}

/// An answer that comes in these pieces.
fn pieces<'a>(manner: Manner, pieces: impl Iterator<Item = &'a str>) -> Read {
    let mut reader = Reader::new(manner, tools(), 5);
    let mut news: Vec<News> = pieces.flat_map(|piece| reader.push(piece)).collect();
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

/// The text outside calls, and the calls: name, arguments, and what was streamed of them.
type Read = (String, Vec<(String, Value, String)>);

fn read(manner: Manner, answer: &str, size: usize) -> Read {
    let chars: Vec<char> = answer.chars().collect();
    let cut: Vec<String> = chars.chunks(size).map(|piece| piece.iter().collect()).collect();
    pieces(manner, cut.iter().map(String::as_str))
}

fn all(manner: Manner, answer: &str, text: &str, calls: &[(&str, Value)]) {
    // Cut at each place, and into pieces of each of some sizes.
    let cut = (0..=answer.len()).filter(|&at| answer.is_char_boundary(at)).map(|at| answer.split_at(at));
    let in_two = cut.map(|(one, other)| (one.len(), pieces(manner, [one, other].into_iter())));
    let sizes = [1, 2, 3, 7, 1000].into_iter().map(|size| (size, read(manner, answer, size)));
    for (size, (said, found)) in in_two.chain(sizes) {
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

#[test]
fn llama_in_python() {
    // As the page of Llama 3.2's format has it.
    let call = "[get_weather(city='San Francisco', metric='celsius'), get_weather(city='Seattle', metric='celsius')]";
    let due = |city: &str| ("get_weather", json!({"city": city, "metric": "celsius"}));
    let both = [due("San Francisco"), due("Seattle")];
    all(Manner::Llama, call, "", &both);
    all(Manner::Llama, &format!("<|python_tag|>{call}"), "", &both);
    all(Manner::Llama, &format!("\n {call}\n"), "", &both);
    all(Manner::Llama, &format!("{call} Done."), " Done.", &both);
    all(Manner::Llama, "<|python_tag|>add.call(a=1)", "", &[("add", json!({"a": 1}))]);
    all(
        Manner::Llama,
        "[now( ), add(\n  3,\n  b = \"x\",\n)]",
        "",
        &[("now", json!({})), ("add", json!({"a": 3, "b": "x"}))],
    );
    // And JSON in brackets, which they write too.
    let json = "[{\"name\": \"add\", \"parameters\": {\"a\": 1}}, {\"name\": \"now\", \"parameters\": {}}]";
    all(Manner::Llama, json, "", &[("add", json!({"a": 1})), ("now", json!({}))]);
    // What is none of that is text: other functions, behind text, code, lists.
    for text in [
        "[other(a=1)] is a call",
        "See [now()]",
        "[1, 2, 3]",
        "[a link](https://example.com)",
        "[now",
        "[now(",
        "[now(a='",
        "[now(x)] and so on",
        "[now(a=1 + 2)]",
        "[now(a=f(1))]",
        "[]",
        "[ ",
        "<|python_tag|>import math\nprint(math.pi)",
        "<|python_tag|>print(now())",
        "now() says the time",
        "[{\"a\": 1}, 2]",
    ] {
        all(Manner::Llama, text, text, &[]);
    }
    // A call that is whole stays one, whatever follows.
    all(Manner::Llama, "[now(), nonsense]", ", nonsense]", &[("now", json!({}))]);
    all(Manner::Llama, "[now()]; now we see", "; now we see", &[("now", json!({}))]);
}

#[test]
fn lfm() {
    let call = "<|tool_call_start|>[add(a=1, b='x'), now()]<|tool_call_end|>";
    let due = [("add", json!({"a": 1, "b": "x"})), ("now", json!({}))];
    all(Manner::Lfm, call, "", &due);
    all(Manner::Lfm, &format!("I look.{call}Then I say."), "I look.Then I say.", &due);
    all(Manner::Lfm, "<|tool_call_start|>now()<|tool_call_end|>", "", &due[1..]);
    let json =
        "<|tool_call_start|>[{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": \"x\"}}]<|tool_call_end|>";
    all(Manner::Lfm, json, "", &due[..1]);
    // A mark in a text is text, and a call of what there is none is one that is answered with an error.
    all(
        Manner::Lfm,
        "<|tool_call_start|>[other(s='<|tool_call_end|>')]<|tool_call_end|>",
        "",
        &[("other", json!({"s": "<|tool_call_end|>"}))],
    );
    for text in
        ["<|tool_call_start|>", "<|tool_call_start|>[add(a=]<|tool_call_end|>", "[add(a=1)]", "<|tool"]
    {
        all(Manner::Lfm, text, text, &[]);
    }
}

#[test]
fn phi_and_granite() {
    let list = "[{\"name\": \"add\", \"arguments\": {\"a\": 1}}, {\"name\": \"now\", \"arguments\": {}}]";
    let due = [("add", json!({"a": 1})), ("now", json!({}))];
    for manner in [Manner::Phi, Manner::Granite] {
        all(manner, &format!("<|tool_call|>{list}<|/tool_call|>"), "", &due);
        all(manner, &format!("<|tool_call|>{list}"), "", &due);
        all(manner, "<|tool_call|>{\"name\": \"now\"}<|/tool_call|>!", "!", &[("now", json!({}))]);
        for text in ["<|tool_call|>", "<|tool_call|>[", "<|tool_call|> [3]<|/tool_call|>", list] {
            all(manner, text, text, &[]);
        }
    }
}

#[test]
fn gemma_4() {
    let call = "<|tool_call>call:add{a:1,b:<|\"|>x, {y}<|\"|>}<tool_call|>";
    let due = ("add", json!({"a": 1, "b": "x, {y}"}));
    all(Manner::Gemma4, &format!("{call}\n{call}"), "\n", &[due.clone(), due]);
    for text in ["<|tool_call>hm<tool_call|>", "<|tool_call>call:add{a:1}", "<|tool_call>"] {
        all(Manner::Gemma4, text, text, &[]);
    }
}

#[test]
fn coder() {
    let call = "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\ntwo\n lines\n</parameter>\n</function>\n</tool_call>";
    let due = ("add", json!({"a": 1, "b": "two\n lines"}));
    all(Manner::Coder, &format!("I add.\n{call}\n{call}"), "I add.\n\n", &[due.clone(), due]);
    let json = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    all(Manner::Coder, json, "", &[("now", json!({}))]);
    for text in [
        "<tool_call>\n<function=add>\n</tool_call>",
        "<tool_call>",
        "<tool_call></tool_call>",
        "<function=now></function>",
    ] {
        all(Manner::Coder, text, text, &[]);
    }
}

/// What is text is not lost, whatever it begins like.
#[test]
fn nothing_is_lost_of_what_is_no_call() {
    for (manner, mark) in [
        (Manner::Hermes, "<tool_call>"),
        (Manner::Llama, "<|python_tag|>"),
        (Manner::Mistral, "[TOOL_CALLS]"),
        (Manner::Gemma, "<start_function_call>"),
        (Manner::Gemma4, "<|tool_call>"),
        (Manner::Phi, "<|tool_call|>"),
        (Manner::Granite, "<|tool_call|>"),
        (Manner::Lfm, "<|tool_call_start|>"),
        (Manner::Coder, "<tool_call>"),
    ] {
        for text in [
            "",
            " [ {",
            "[[",
            "{\"a\": [}",
            "[{\"name\": 3}]",
            "no",
            " [no",
            "[a.b(",
            "[a(b='",
            "[a(b=[{'c",
            "call:",
            ", ;",
        ] {
            let text = format!("So {mark}{text}");
            all(manner, &text, &text, &[]);
        }
        // Within bounds, and quickly.
        for hostile in [
            "[".repeat(200_000),
            "a(".repeat(100_000),
            format!("[a(b={}", "[".repeat(200_000)),
            format!("[now({}", "1".repeat(300_000)),
        ] {
            let text = format!("{mark}{hostile}");
            let (said, calls) = read(manner, &text, 1000);
            assert!(said == text && calls.is_empty(), "{manner:?} {:.40}", text);
        }
    }
}

#[test]
fn arguments_in_python_stream_as_json() {
    let mut reader = Reader::new(Manner::Llama, tools(), 0);
    let mut told = |text: &str| match reader.push(text).as_slice() {
        [] => String::new(),
        [News::Arguments { name, text, .. }] => {
            assert_eq!(name, "add");
            text.clone()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(told("[add"), "");
    assert_eq!(told("(b='it\\'s "), "{\"b\":\"it's ");
    assert_eq!(told("\"it\"', a"), "\\\"it\\\"\"");
    assert_eq!(told("=12"), ",\"a\":");
    assert_eq!(told(", c=[True"), "12,\"c\":[");
    assert_eq!(told(", None"), "true");
    assert_eq!(told("]"), ",null]");
}
