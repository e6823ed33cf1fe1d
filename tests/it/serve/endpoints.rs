//! What is answered, and in which form.

use serde_json::{Value, json};

use super::http::{Served, chat};

const CHAT: &str = "/v1/chat/completions";
/// More tokens than a page of keys and values has.
const LONG: &str =
    "Tell me of Tom, who had a big red ball and a dog, and went to the park to play in the sun with Lily";

/// A bias against space between words, of which the small model cannot get enough.
fn dense(served: &Served) -> Value {
    let tokens = served.ask("/tokenize", &json!({"content": " \n  \t\r\n"}))["tokens"].clone();
    tokens
        .as_array()
        .unwrap()
        .iter()
        .map(|token| (token.to_string(), json!(-60)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn chunks(events: &[(Option<String>, String)]) -> Vec<Value> {
    let (last, chunks) = events.split_last().expect("events");
    assert_eq!(last.1, "[DONE]");
    chunks.iter().map(|(_, data)| serde_json::from_str(data).expect("JSON")).collect()
}

#[test]
fn a_chat_is_the_same_whole_and_as_a_stream() {
    let served = Served::start(&[]);
    let whole = served.ask(CHAT, &chat(LONG, json!({})));
    let choice = &whole["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap();
    assert!(whole["id"].as_str().unwrap().starts_with("chatcmpl-") && whole["object"] == "chat.completion");
    assert!(
        !text.is_empty() && choice["finish_reason"] == "length" && choice["message"]["role"] == "assistant"
    );
    let usage = &whole["usage"];
    assert_eq!(usage["completion_tokens"], 24);
    let sum = usage["prompt_tokens"].as_u64().unwrap() + 24;
    assert_eq!((usage["total_tokens"].as_u64(), whole["model"].as_str()), (Some(sum), Some("stories")));

    let body = chat(LONG, json!({"stream": true, "stream_options": {"include_usage": true}}));
    let chunks = chunks(&served.stream(CHAT, &body));
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == chunks[0]["id"])
    );
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let deltas: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(deltas, text);
    let [.., end, last] = &chunks[..] else { panic!("{chunks:?}") };
    assert_eq!(
        (&end["choices"][0]["delta"], &end["choices"][0]["finish_reason"]),
        (&json!({}), &json!("length"))
    );
    assert!(end["usage"].is_null() && last["choices"] == json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 24);
    // The second time the prompt was there but for its last token.
    let cached = last["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(cached + 1, usage["prompt_tokens"].as_u64().unwrap());
    let without = served.stream(CHAT, &chat(LONG, json!({"stream": true})));
    assert!(without.iter().all(|(_, data)| !data.contains("usage")), "nobody asked for it");
}

#[test]
fn answers_differ_by_seed_and_number_and_end_where_they_should() {
    let served = Served::start(&[]);
    let drawn = |more: Value| {
        let mut body = chat("Tell me of Lily", json!({"temperature": 1.5, "seed": 7}));
        body.as_object_mut().unwrap().append(&mut more.as_object().cloned().unwrap());
        let answer = served.ask(CHAT, &body);
        answer["choices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|choice| choice["message"]["content"].to_string())
            .collect::<Vec<_>>()
    };
    let one = drawn(json!({}));
    assert_eq!(one, drawn(json!({})));
    assert_ne!(one, drawn(json!({"seed": 8})));
    let three = drawn(json!({"n": 3}));
    assert_eq!((three.len(), &three[0]), (3, &one[0]));
    assert_ne!(three[0], three[1]);
    assert_eq!(drawn(json!({"seed": 8})), three[1..2], "the second of several is drawn by the next seed");
    // Passed over, null, and written as others do.
    let same = json!({"user": "me", "store": true, "top_logprobs": null, "metadata": {"a": "b"}, "max_tokens": 24.0});
    assert_eq!(drawn(same), one);

    let whole = served.ask(CHAT, &chat("Tell me of Tom", json!({})))["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    let stop = whole.split_whitespace().nth(4).unwrap();
    let cut = served.ask(CHAT, &chat("Tell me of Tom", json!({"stop": [stop, "zzz"]})));
    assert_eq!(cut["choices"][0]["finish_reason"], "stop");
    let text = cut["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(whole.starts_with(text) && !text.contains(stop), "{text:?} of {whole:?} before {stop:?}");

    let several = json!({"n": 2, "stream": true, "stream_options": {"include_usage": true}});
    let chunks = chunks(&served.stream(CHAT, &chat("Tell me of Tom", several)));
    for number in 0..2 {
        let own = || {
            chunks
                .iter()
                .flat_map(|chunk| chunk["choices"].as_array().unwrap())
                .filter(|choice| choice["index"] == number)
        };
        assert_eq!(own().filter_map(|choice| choice["delta"]["content"].as_str()).collect::<String>(), whole);
        assert_eq!(own().next_back().unwrap()["finish_reason"], "length");
    }
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 48);
}

#[test]
fn what_was_likely_is_told() {
    let served = Served::start(&[]);
    let answer = served
        .ask(CHAT, &chat("Tell me of Tom", json!({"logprobs": true, "top_logprobs": 3, "max_tokens": 12})));
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let odds = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let bytes: Vec<u8> = odds
        .iter()
        .flat_map(|one| one["bytes"].as_array().unwrap())
        .map(|byte| byte.as_u64().unwrap() as u8)
        .collect();
    assert_eq!(String::from_utf8(bytes).unwrap().trim_start(), text.trim_start());
    for one in odds {
        let top = one["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["token"]), (3, &one["token"]), "the likeliest was taken");
        assert!(
            one["logprob"].as_f64().unwrap() <= 0.0
                && top[0]["logprob"].as_f64() >= top[1]["logprob"].as_f64()
        );
    }
    let streamed = served
        .stream(CHAT, &chat("Tell me of Tom", json!({"logprobs": true, "max_tokens": 12, "stream": true})));
    let told: usize = chunks(&streamed)
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
        .map(Vec::len)
        .sum();
    assert_eq!(told, odds.len());
    let old = served.ask(
        "/v1/completions",
        &json!({"prompt": "Once upon", "max_tokens": 6, "temperature": 0, "logprobs": 2}),
    );
    let odds = &old["choices"][0]["logprobs"];
    assert_eq!(odds["tokens"].as_array().unwrap().len(), odds["text_offset"].as_array().unwrap().len());
    assert_eq!(odds["top_logprobs"][0].as_object().unwrap().len(), 2);
}

#[test]
fn forms_are_kept() {
    let served = Served::start(&[]);
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": false
    });
    let validator = jsonschema::validator_for(&schema).unwrap();
    let nested =
        json!({"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": schema}});
    for more in [
        json!({"response_format": nested}),
        json!({"json_schema": schema}),
        json!({"response_format": {"type": "json_object", "schema": schema}}),
    ] {
        let mut more = more;
        more["max_tokens"] = 100.into();
        more["logit_bias"] = dense(&served);
        let answer = served.ask(CHAT, &chat("Who is Tom?", more));
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        assert!(validator.is_valid(&value), "{text}");
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
    let grammar = r#"root ::= "yes" | "no""#;
    for path in [CHAT, "/v1/completions"] {
        let mut body = chat("Is Tom good?", json!({"grammar": grammar}));
        body["prompt"] = "Is Tom good?".into();
        let answer = served.ask(path, &body);
        let text =
            answer["choices"][0]["message"]["content"].as_str().or(answer["choices"][0]["text"].as_str());
        assert!(matches!(text, Some("yes" | "no")), "{answer}");
    }
}

#[test]
fn tools_are_called_and_answered() {
    let served = Served::start(&[]);
    let tool = json!({"type": "function", "function": {"name": "weather", "description": "d", "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"], "additionalProperties": false
    }}});
    let forced = |more: Value| {
        let mut body = chat(
            "Weather?",
            json!({"tools": [tool], "tool_choice": "required", "max_tokens": 120, "logit_bias": dense(&served)}),
        );
        body.as_object_mut().unwrap().append(&mut more.as_object().cloned().unwrap());
        body
    };
    let answer = served.ask(CHAT, &forced(json!({})));
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null)
    );
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("weather")));
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(matches!(arguments["city"].as_str(), Some("Rome" | "Oslo")), "{arguments}");

    let named = json!({"stream": true, "tool_choice": {"type": "function", "function": {"name": "weather"}}});
    let chunks = chunks(&served.stream(CHAT, &forced(named)));
    let deltas: Vec<&Value> =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0)).collect();
    assert_eq!((&deltas[0]["index"], &deltas[0]["function"]["name"]), (&json!(0), &json!("weather")));
    assert!(deltas[0]["id"].is_string() && deltas[1..].iter().all(|delta| delta.get("id").is_none()));
    let streamed: String =
        deltas.iter().map(|delta| delta["function"]["arguments"].as_str().unwrap()).collect();
    assert_eq!(serde_json::from_str::<Value>(&streamed).unwrap(), arguments);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");

    // The result goes back.
    let mut body = forced(json!({"tool_choice": "auto"}));
    body["max_tokens"] = 8.into();
    let said = body["messages"].as_array_mut().unwrap();
    said.push(choice["message"].clone());
    said.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "sunny"}));
    assert!(
        served.ask(CHAT, &body)["usage"]["prompt_tokens"].as_u64()
            > answer["usage"]["prompt_tokens"].as_u64()
    );
}

#[test]
fn completions_take_texts_and_tokens() {
    let served = Served::start(&[]);
    let ask = |body: Value| {
        let mut body = body;
        body["temperature"] = 0.into();
        body["max_tokens"] = 10.into();
        served.ask("/v1/completions", &body)
    };
    let one = ask(json!({"prompt": "Once upon a time"}));
    let text = one["choices"][0]["text"].as_str().unwrap().to_owned();
    assert_eq!(
        (&one["object"], &one["choices"][0]["finish_reason"]),
        (&json!("text_completion"), &json!("length"))
    );
    let tokens =
        served.ask("/tokenize", &json!({"content": "Once upon a time", "add_special": true}))["tokens"]
            .clone();
    let both = ask(json!({"prompt": [tokens.clone(), "Once upon a time"], "n": 2}));
    assert!(
        both["choices"].as_array().unwrap().iter().all(|choice| choice["text"] == text.as_str()),
        "{both}"
    );
    assert_eq!(both["choices"][3]["index"], 3);
    assert_eq!(both["usage"]["prompt_tokens"].as_u64(), Some(2 * tokens.as_array().unwrap().len() as u64));
    assert_eq!(ask(json!({"prompt": tokens}))["choices"][0]["text"], text.as_str());
    let echoed = ask(json!({"prompt": "Once upon a time", "echo": true}))["choices"][0]["text"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(echoed.trim_start(), format!("Once upon a time{text}"));
    let streamed = served.stream(
        "/v1/completions",
        &json!({"prompt": "Once upon a time", "temperature": 0, "max_tokens": 10, "stream": true}),
    );
    let streamed: String =
        chunks(&streamed).iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(streamed, text);
}

#[test]
fn responses_stream_by_the_names_of_their_events() {
    let served = Served::start(&[]);
    let body = |more: Value| {
        let mut body = json!({"model": "stories", "input": "Tell me of Tom", "temperature": 0, "max_output_tokens": 12, "instructions": "Be brief."});
        body.as_object_mut().unwrap().append(&mut more.as_object().cloned().unwrap());
        body
    };
    let whole = served.ask("/v1/responses", &body(json!({})));
    assert_eq!((&whole["object"], &whole["status"]), (&json!("response"), &json!("incomplete")));
    assert_eq!(whole["incomplete_details"]["reason"], "max_output_tokens");
    let text = whole["output"][0]["content"][0]["text"].as_str().unwrap();
    assert!(!text.is_empty() && whole["usage"]["output_tokens"] == 12);

    let events = served.stream("/v1/responses", &body(json!({"stream": true})));
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_deref().unwrap()).collect();
    let data: Vec<Value> = events.iter().map(|(_, data)| serde_json::from_str(data).unwrap()).collect();
    for (number, (name, data)) in names.iter().zip(&data).enumerate() {
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(number)));
    }
    assert_eq!(
        names[..4],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added"
        ]
    );
    let end = [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ];
    assert_eq!(names[names.len() - 4..], end);
    assert!(names[4..names.len() - 4].iter().all(|name| *name == "response.output_text.delta"));
    let deltas: String = data.iter().filter_map(|data| data["delta"].as_str()).collect();
    assert_eq!(
        (deltas.as_str(), &data.last().unwrap()["response"]["output"][0]["content"]),
        (text, &whole["output"][0]["content"])
    );

    let tool = json!({"type": "function", "name": "go", "parameters": {
        "type": "object", "properties": {"to": {"enum": ["left", "right"]}}, "required": ["to"], "additionalProperties": false
    }});
    let called = body(
        json!({"tools": [tool], "tool_choice": "required", "max_output_tokens": 120, "logit_bias": dense(&served), "stream": true}),
    );
    let events = served.stream("/v1/responses", &called);
    let last: Value = serde_json::from_str(&events.last().unwrap().1).unwrap();
    let call = &last["response"]["output"][0];
    assert_eq!(
        (&call["type"], &call["name"], &call["status"]),
        (&json!("function_call"), &json!("go"), &json!("completed"))
    );
    let deltas: String = events
        .iter()
        .filter(|(name, _)| name.as_deref() == Some("response.function_call_arguments.delta"))
        .map(|(_, data)| serde_json::from_str::<Value>(data).unwrap()["delta"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(call["arguments"], deltas.as_str());
    let input = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "Where?"}]},
        {"type": "function_call", "call_id": call["call_id"], "name": "go", "arguments": call["arguments"]},
        {"type": "function_call_output", "call_id": call["call_id"], "output": "there"}
    ]);
    assert_eq!(served.ask("/v1/responses", &body(json!({"input": input})))["usage"]["output_tokens"], 12);
    let format = json!({"format": {"type": "json_schema", "name": "x", "schema": {"enum": ["a", "b"]}}});
    let held = served.ask("/v1/responses", &body(json!({"text": format})));
    assert!(matches!(held["output"][0]["content"][0]["text"].as_str(), Some("\"a\"" | "\"b\"")), "{held}");
    assert_eq!(held["status"], "completed");
}

#[test]
fn embeddings_are_the_same_in_both_codings() {
    let served = Served::start(&[]);
    let ask = |more: Value| {
        let mut body = json!({"model": "stories", "input": ["Tom ran", "Lily sang a song"]});
        body.as_object_mut().unwrap().append(&mut more.as_object().cloned().unwrap());
        served.ask("/v1/embeddings", &body)
    };
    let numbers = |value: &Value| {
        value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap() as f32).collect::<Vec<f32>>()
    };
    let plain = ask(json!({}));
    let coded = ask(json!({"encoding_format": "base64"}));
    for at in 0..2 {
        let one = numbers(&plain["data"][at]["embedding"]);
        assert!((one.iter().map(|n| n * n).sum::<f32>() - 1.0).abs() < 1e-4);
        assert_eq!(coded["data"][at]["embedding"].as_str().unwrap().len(), (4 * one.len()).div_ceil(3) * 4);
        assert_eq!(plain["data"][at]["index"], at);
    }
    assert_ne!(plain["data"][0]["embedding"], ask(json!({"pooling": "last"}))["data"][0]["embedding"]);
    let tokens =
        served.ask("/tokenize", &json!({"content": "Tom ran", "add_special": true}))["tokens"].clone();
    assert_eq!(ask(json!({"input": tokens}))["data"][0], plain["data"][0]);
    assert!(plain["usage"]["prompt_tokens"].as_u64().unwrap() > 4);
}

#[test]
fn what_it_is_and_how_it_fares_is_told() {
    let served = Served::start(&["--alias", "one", "--alias", "org/two", "--alias", "stories"]);
    let list = served.get("/v1/models").json();
    assert_eq!(
        list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["one", "org/two", "stories"]
    );
    assert_eq!(served.get("/v1/models/org/two").json()["id"], "org/two");
    assert_eq!(served.get("/v1/models/three").status, 404);
    assert_eq!(served.ask(CHAT, &chat("Hi", json!({"model": "org/two", "max_tokens": 1})))["model"], "one");
    assert_eq!(served.get("/health").json(), json!({"status": "ok"}));
    let props = served.get("/props").json();
    assert_eq!(
        (&props["total_slots"], &props["default_generation_settings"]["n_ctx"]),
        (&json!(4), &json!(512))
    );
    let text = "Tom’s dog — ünïcödé 🐶";
    let tokens = served.ask("/tokenize", &json!({"content": text, "with_pieces": true}))["tokens"].clone();
    let ids: Vec<&Value> = tokens.as_array().unwrap().iter().map(|token| &token["id"]).collect();
    let back = served.ask("/detokenize", &json!({"tokens": ids}));
    assert_eq!(back["content"].as_str().unwrap().trim_start(), text);
    assert_eq!(served.metric("tokens_predicted_total"), 1.0);
    assert!(served.metric("prompt_tokens_total") > 0.0 && served.metric("requests_total") >= 6.0);
}

#[test]
fn the_page_may_do_nothing_but_ask_this_server() {
    let served = Served::start(&[]);
    let reply = served.get("/");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = reply.header("content-security-policy").unwrap().to_owned();
    for part in [
        "default-src 'none'",
        "script-src 'sha256-",
        "style-src 'sha256-",
        "connect-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let page = reply.text();
    for outside in ["src=", "@import", "url(", "innerHTML", "insertAdjacentHTML", "document.write", "eval("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn a_conversation_that_goes_on_is_not_computed_again() {
    let served = Served::start(&["--parallel", "2"]);
    let mut said = vec![
        json!({"role": "system", "content": "You tell stories to children who like dogs and the sun. ".repeat(3)}),
    ];
    let mut cached = Vec::new();
    for (turn, question) in ["Who is Tom?", "And Lily?", "What then?"].into_iter().enumerate() {
        said.push(json!({"role": "user", "content": question}));
        let answer = served.ask(CHAT, &json!({"messages": said, "temperature": 0, "max_tokens": 40}));
        said.push(answer["choices"][0]["message"].clone());
        cached.push(answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap());
        // Another conversation in between, with the same instructions: it takes nothing away.
        let other = json!({"messages": [said[0], {"role": "user", "content": format!("Sing! {turn}")}], "max_tokens": 4});
        let other = served.ask(CHAT, &other);
        let shared = other["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        assert!(shared >= 32, "the instructions are there: {shared}");
    }
    assert!(cached[0] == 0 && cached[1] > 60 && cached[2] > cached[1], "{cached:?}");
}
