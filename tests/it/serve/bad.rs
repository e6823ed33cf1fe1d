//! What makes no sense: its status, and an error object that OpenAI's clients understand. The server is none the worse.

use serde_json::{Value, json};

use super::http::{Reply, Served, chat};

const CHAT: &str = "/v1/chat/completions";

/// That a reply is a refusal with this status, about this field.
fn refused(reply: Reply, status: u16, param: Option<&str>, what: &str) {
    let seen = reply.status;
    assert_eq!(reply.header("content-type"), Some("application/json"), "{what}");
    let body = reply.json();
    let error = &body["error"];
    assert_eq!((seen, error["param"].as_str()), (status, param), "{what}: {body}");
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{what}: {body}");
    assert!(error["type"].is_string() && error.get("code").is_some(), "{what}: {body}");
}

#[test]
fn nonsense_is_refused_and_nothing_else_happens() {
    let served = Served::start(&["--max-body", "64"]);
    for body in [
        "",
        "{",
        "nonsense",
        "[]",
        "3",
        "null",
        "{\"messages\": 1e999}",
        "{\"messages\": \"\u{7}\"}",
        &"[".repeat(2000),
    ] {
        refused(served.send("POST", CHAT, &[], body.as_bytes()), 400, None, body);
    }
    refused(served.send("POST", CHAT, &[], b"{\"messages\": \"\xff\xfe\"}"), 400, None, "no UTF-8");
    let chats: &[(Value, u16, &str)] = &[
        (json!({"model": "gpt-4o"}), 404, "model"),
        (json!({"model": 3}), 400, "model"),
        (json!({"messages": null}), 400, "messages"),
        (json!({"messages": []}), 400, "messages"),
        (json!({"messages": "hi"}), 400, "messages"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
            400,
            "messages[0].content",
        ),
        (json!({"temperature": -1}), 400, "temperature"),
        (json!({"temperature": "hot"}), 400, "temperature"),
        (json!({"temperature": 1e30}), 400, "temperature"),
        (json!({"top_p": 1.5}), 400, "top_p"),
        (json!({"top_k": -3}), 400, "top_k"),
        (json!({"max_tokens": 0}), 400, "max_tokens"),
        (json!({"max_tokens": -7}), 400, "max_tokens"),
        (json!({"max_completion_tokens": 1.5}), 400, "max_completion_tokens"),
        (json!({"n": 0}), 400, "n"),
        (json!({"n": 1000000}), 400, "n"),
        (json!({"seed": "x"}), 400, "seed"),
        (json!({"stop": ""}), 400, "stop"),
        (json!({"stop": [3]}), 400, "stop"),
        (json!({"stop": vec!["a"; 500]}), 400, "stop"),
        (json!({"stream": "yes"}), 400, "stream"),
        (json!({"stream_options": 3}), 400, "stream_options"),
        (json!({"logprobs": 5}), 400, "logprobs"),
        (json!({"top_logprobs": 5}), 400, "logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), 400, "top_logprobs"),
        (json!({"logit_bias": {"1000000": 5}}), 400, "logit_bias"),
        (json!({"logit_bias": {"5": 500}}), 400, "logit_bias"),
        (json!({"logit_bias": [1]}), 400, "logit_bias"),
        (json!({"presence_penalty": 1000}), 400, "presence_penalty"),
        (json!({"mirostat": 1}), 400, "mirostat"),
        (json!({"response_format": "json"}), 400, "response_format"),
        (json!({"response_format": {"type": "xml"}}), 400, "response_format.type"),
        (json!({"response_format": {"type": "json_schema"}}), 400, "response_format.json_schema"),
        (json!({"response_format": {"type": "json_object"}, "grammar": "root ::= \"a\""}), 400, "grammar"),
        (json!({"tools": "all"}), 400, "tools"),
        (json!({"tools": [{"type": "web_search"}]}), 400, "tools[0]"),
        (json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}), 400, "tools[0]"),
        (json!({"tool_choice": "required"}), 400, "tool_choice"),
        (json!({"tool_choice": {"type": "function", "function": {"name": "nobody"}}}), 400, "tool_choice"),
        (json!({"functions": [{"name": "a"}]}), 400, "functions"),
        (json!({"audio": {"voice": "x"}}), 400, "audio"),
        (json!({"modalities": ["text", "audio"]}), 400, "modalities"),
        (json!({"messages": [{"role": "user", "content": "story ".repeat(2000)}]}), 400, "messages"),
    ];
    for (more, status, param) in chats {
        refused(served.post(CHAT, &chat("hi", more.clone())), *status, Some(param), &more.to_string());
    }
    // What only the engine can tell.
    for more in [
        json!({"grammar": "root ::= \"a"}),
        json!({"grammar": "root ::= other"}),
        json!({"json_schema": {"type": "object", "unevaluatedItems": {"not": {}}, "if": {}}}),
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}}),
    ] {
        refused(served.post(CHAT, &chat("hi", more.clone())), 400, None, &more.to_string());
    }
    let others: &[(&str, Value, u16, Option<&str>)] = &[
        ("/v1/completions", json!({}), 400, Some("prompt")),
        ("/v1/completions", json!({"prompt": []}), 400, Some("prompt")),
        ("/v1/completions", json!({"prompt": [1.5]}), 400, Some("prompt")),
        ("/v1/completions", json!({"prompt": [[1], 3]}), 400, Some("prompt")),
        ("/v1/completions", json!({"prompt": [99999]}), 400, None),
        ("/v1/completions", json!({"prompt": "a", "suffix": "b"}), 400, Some("suffix")),
        ("/v1/completions", json!({"prompt": "a", "best_of": 3}), 400, Some("best_of")),
        ("/v1/completions", json!({"prompt": vec!["a"; 100], "n": 2}), 400, Some("n")),
        ("/v1/completions", json!({"prompt": "a", "logprobs": 100}), 400, Some("logprobs")),
        ("/v1/completions", json!({"prompt": "a", "echo": true, "logprobs": 1}), 400, Some("echo")),
        ("/v1/responses", json!({}), 400, Some("input")),
        (
            "/v1/responses",
            json!({"input": "a", "previous_response_id": "resp_1"}),
            400,
            Some("previous_response_id"),
        ),
        ("/v1/responses", json!({"input": "a", "background": true}), 400, Some("background")),
        ("/v1/responses", json!({"input": [{"type": "item_reference", "id": "x"}]}), 400, Some("input[0]")),
        (
            "/v1/responses",
            json!({"input": "a", "text": {"format": {"type": "json_schema"}}}),
            400,
            Some("text.format.schema"),
        ),
        ("/v1/embeddings", json!({}), 400, Some("input")),
        ("/v1/embeddings", json!({"input": [[]]}), 400, None),
        ("/v1/embeddings", json!({"input": "a", "encoding_format": "int8"}), 400, Some("encoding_format")),
        ("/v1/embeddings", json!({"input": "a", "dimensions": 3}), 400, Some("dimensions")),
        ("/v1/embeddings", json!({"input": "a", "pooling": "max"}), 400, Some("pooling")),
        ("/v1/embeddings", json!({"input": "story ".repeat(2000)}), 400, Some("input")),
        ("/tokenize", json!({}), 400, Some("content")),
        ("/detokenize", json!({"tokens": [1, 2, 999999]}), 400, Some("tokens")),
        ("/detokenize", json!({"tokens": "x"}), 400, Some("tokens")),
    ];
    for (path, body, status, param) in others {
        refused(served.post(path, body), *status, *param, &format!("{path} {body}"));
    }
    refused(served.get("/v1/nothing"), 404, None, "no such path");
    refused(served.get(CHAT), 405, None, "GET");
    refused(served.post("/health", &json!({})), 405, None, "POST");
    let huge = format!("{{\"messages\": \"{}\"}}", "a".repeat(70 << 10));
    refused(served.send("POST", CHAT, &[], huge.as_bytes()), 413, None, "too large");
    let chunked = [("transfer-encoding", "chunked")];
    let mut body: Vec<u8> = Vec::new();
    for _ in 0..70 {
        body.extend(format!("400\r\n{}\r\n", "a".repeat(1024)).bytes());
    }
    refused(served.send("POST", CHAT, &chunked, &body), 413, None, "too large, and not told so before");
    let long = "x".repeat(100 << 10);
    let status = served.send("GET", "/health", &[("x-long", &long)], b"").status;
    assert!(status == 431 || status == 400, "{status}");

    // Nothing of it was computed, and what makes sense is answered.
    assert_eq!(served.metric("tokens_predicted_total"), 0.0);
    assert_eq!(served.metric("requests_failed_total"), 0.0);
    assert!(served.metric("requests_refused_total") > 80.0);
    assert_eq!(
        served.ask(CHAT, &chat("hi", json!({"max_tokens": 1000000000000u64})))["choices"][0]["finish_reason"],
        "length"
    );
}
