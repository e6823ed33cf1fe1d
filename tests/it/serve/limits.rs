//! Who may ask, how much, and for how long; clients that leave, do not read, or come in crowds; and the end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{Reply, Served, chat, until};
use crate::data::Scratch;
use crate::program::{End, pocketlm};

const CHAT: &str = "/v1/chat/completions";
/// So that an answer takes as long as its tokens say.
const SLOWLY: [&str; 2] = ["--sustain", "40"];

/// A chat whose answer takes seconds.
fn long(more: Value) -> Value {
    let mut body = chat("Tell me of Tom", json!({"stream": true, "max_tokens": 400, "ignore_eos": true}));
    body.as_object_mut().unwrap().append(&mut more.as_object().cloned().unwrap());
    body
}

fn code(reply: Reply) -> (u16, String) {
    let status = reply.status;
    (status, reply.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn nobody_else_may_ask_without_a_key() {
    let cache = Scratch::new();
    for host in ["0.0.0.0", "::", "192.0.2.1"] {
        let words = ["serve", "--port", "0", "--host", host];
        End::of(&pocketlm(&cache, &words).output().unwrap()).fails(2, &["key", "--api-key"]);
    }
    let empty = ["serve", "--port", "0", "--api-key", ""];
    End::of(&pocketlm(&cache, &empty).output().unwrap()).fails(2, &["empty"]);
    let file = cache.join("keys");
    std::fs::write(&file, "first\n\nsecond\n").unwrap();
    let mut served = Served::start(&["--api-key-file", file.to_str().unwrap(), "--host", "0.0.0.0"]);
    served.address = served.address.replace("0.0.0.0", "127.0.0.1");
    for headers in [
        &[][..],
        &[("authorization", "Bearer third")],
        &[("authorization", "Basic first")],
        &[("x-api-key", "firs")],
    ] {
        let reply = served.send("GET", "/v1/models", headers, b"");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        assert_eq!(code(reply), (401, "invalid_api_key".into()), "{headers:?}");
        assert_eq!(code(served.send("POST", CHAT, headers, b"nonsense")).0, 401, "before anything is read");
    }
    for headers in
        [("authorization", "Bearer first"), ("Authorization", "bearer second"), ("x-api-key", "second")]
    {
        assert_eq!(served.send("GET", "/v1/models", &[headers], b"").status, 200);
    }
    assert_eq!(
        (served.get("/health").status, served.get("/").status, served.get("/metrics").status),
        (200, 200, 401)
    );
}

#[test]
fn strange_pages_are_kept_out() {
    let served = Served::start(&["--cors", "https://friend.example/"]);
    let own = format!("http://{}", served.address);
    let body = chat("hi", json!({"max_tokens": 1})).to_string();
    let ask = |headers: &[(&str, &str)]| served.send("POST", CHAT, headers, body.as_bytes());
    for origin in
        ["https://evil.example", "null", "http://127.0.0.1:1", "https://friend.example.evil.example"]
    {
        let reply = ask(&[("origin", origin)]);
        assert_eq!(reply.header("access-control-allow-origin"), None);
        assert_eq!(code(reply), (403, "forbidden".into()), "{origin}");
    }
    // A name of a stranger's that points here.
    assert_eq!(code(ask(&[("host", "evil.example:8080"), ("origin", "http://evil.example:8080")])).0, 403);
    assert_eq!(code(served.send("GET", "/", &[("host", "evil.example")], b"")).0, 403);
    assert_eq!(ask(&[("origin", &own)]).status, 200);
    assert_eq!(
        ask(&[("host", "localhost:1234"), ("origin", "http://localhost:1234")]).status,
        200,
        "through a tunnel"
    );
    let reply = ask(&[("origin", "https://friend.example")]);
    assert_eq!(
        (reply.status, reply.header("access-control-allow-origin")),
        (200, Some("https://friend.example"))
    );
    let asks = [
        ("origin", "https://friend.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let reply = served.send("OPTIONS", CHAT, &asks, b"");
    assert_eq!((reply.status, reply.header("access-control-allow-headers")), (204, Some("authorization")));
    assert_eq!(code(served.send("OPTIONS", CHAT, &[("origin", "https://evil.example")], b"")).0, 403);
    let closed = Served::start(&[]);
    let reply = closed.send("OPTIONS", CHAT, &[("origin", "https://friend.example")], b"");
    assert_eq!(
        (reply.status, reply.header("access-control-allow-origin")),
        (403, None),
        "by default nobody's"
    );
}

#[test]
fn who_leaves_is_not_computed_for() {
    let served = Served::start(&[&SLOWLY[..], &["--parallel", "2"]].concat());
    // While it streams, while it waits for a whole answer, and while it waits for a slot.
    let mut events = served.post(CHAT, &long(json!({}))).events();
    assert!(events.nth(3).is_some());
    let whole = long(json!({"stream": false})).to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{whole}",
        served.address,
        whole.len()
    );
    let mut waits: Vec<TcpStream> = (0..2).map(|_| served.connect()).collect();
    waits.iter_mut().for_each(|stream| stream.write_all(head.as_bytes()).unwrap());
    served.until("requests_deferred", |waiting| waiting == 1.0);
    assert_eq!(served.metric("requests_processing"), 2.0);
    drop(waits.pop());
    drop(waits);
    served.until("requests_processing", |count| count == 1.0);
    assert_eq!(served.metric("requests_deferred"), 0.0);
    drop(events);
    served.until("requests_processing", |count| count == 0.0);
    assert_eq!(served.metric("answers_cancelled_total"), 2.0);
    // 400 tokens at 40 a second would be ten.
    assert!(served.metric("tokens_predicted_total") < 390.0);
    let told = served.metric("tokens_predicted_total");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(served.metric("tokens_predicted_total"), told, "it stands still");

    // At once, not when the next token would have found nobody: that is ten seconds away.
    let served = Served::start(&["--sustain", "0.1"]);
    let mut events = served.post(CHAT, &long(json!({}))).events();
    assert!(events.nth(1).is_some());
    let left = Instant::now();
    drop(events);
    served.until("requests_processing", |count| count == 0.0);
    assert!(left.elapsed() < Duration::from_secs(5), "{:?}", left.elapsed());
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let served = Served::start(&[&SLOWLY[..], &["--parallel", "1", "--queue", "2"]].concat());
    let mut streams: Vec<_> = vec![served.post(CHAT, &long(json!({}))).events()];
    assert!(streams[0].next().is_some());
    let body = long(json!({"max_tokens": 4})).to_string();
    thread::scope(|scope| {
        let waits: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| served.send("POST", CHAT, &[], body.as_bytes()).events().count()))
            .collect();
        served.until("requests_deferred", |waiting| waiting == 2.0);
        let reply = served.send("POST", CHAT, &[], body.as_bytes());
        assert_eq!(reply.header("retry-after"), Some("2"));
        assert_eq!(code(reply), (429, "queue_full".into()));
        // Whoever waits is answered when the slot is free.
        streams.clear();
        for wait in waits {
            assert!(wait.join().unwrap() >= 3);
        }
    });
    let none = Served::start(&[&SLOWLY[..], &["--parallel", "1", "--queue", "0"]].concat());
    let mut events = none.post(CHAT, &long(json!({}))).events();
    assert!(events.next().is_some());
    assert_eq!(code(none.post(CHAT, &long(json!({})))).0, 429);
}

#[test]
fn who_asks_much_does_not_keep_others_waiting() {
    let served = Served::start(
        &[&SLOWLY[..], &["--parallel", "1", "--api-key", "greedy", "--api-key", "modest"]].concat(),
    );
    let ask = |key: &str| {
        served.send(
            "POST",
            CHAT,
            &[("authorization", &format!("Bearer {key}"))],
            long(json!({"max_tokens": 20})).to_string().as_bytes(),
        )
    };
    let deferred = || {
        let text = served.send("GET", "/metrics", &[("x-api-key", "modest")], b"").text();
        text.lines().find_map(|line| line.strip_prefix("pocketlm:requests_deferred ")).unwrap().to_owned()
    };
    thread::scope(|scope| {
        let many: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    ask("greedy").events().count();
                    Instant::now()
                })
            })
            .collect();
        until(|| deferred() == "5");
        ask("modest").events().count();
        let done = Instant::now();
        let before = many.into_iter().filter(|thread| thread.is_finished()).count();
        assert!(before <= 3, "{before} of 6 that had come earlier were answered first, at {done:?}");
    });
}

#[test]
fn who_does_not_read_is_given_up_and_others_do_not_notice() {
    let served = Served::start(&["--parallel", "1", "--write-timeout", "1"]);
    // Much for each token, so that what systems keep for a reader does not hold it.
    let flood = long(json!({"logprobs": true, "top_logprobs": 20, "n": 128, "max_tokens": 100})).to_string();
    let mut stream = served.connect();
    write!(
        stream,
        "POST {CHAT} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{flood}",
        served.address,
        flood.len()
    )
    .unwrap();
    served.until("requests_processing", |count| count == 1.0);
    let begun = Instant::now();
    served.until("requests_processing", |count| count == 0.0);
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
    assert!(served.metric("tokens_predicted_total") < 12_800.0, "it was not told to the end");
    assert_eq!(served.ask(CHAT, &chat("hi", json!({})))["choices"][0]["finish_reason"], "length");
    drop(stream);
}

#[test]
fn crowds_and_dawdlers_are_bounded() {
    let served = Served::start(&["--connections", "40", "--read-timeout", "1"]);
    // Who sends nothing, half a head, or half a body, is hung up on, the last with a word.
    let mut idle = served.connect();
    let mut half = served.connect();
    half.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: loc").unwrap();
    let mut slow = served.connect();
    write!(slow, "POST {CHAT} HTTP/1.1\r\nhost: {}\r\ncontent-length: 100\r\n\r\n{{", served.address)
        .unwrap();
    assert_eq!(code(Reply::read(slow)), (408, "request_timeout".into()));
    let mut rest = Vec::new();
    let _hung_up = idle.read_to_end(&mut rest);
    let _hung_up = half.read_to_end(&mut rest);
    let crowd: Vec<TcpStream> = (0..200).map(|_| served.connect()).collect();
    // The first of those that are too many; at some point they are not told any more.
    let full = crowd[50].try_clone().unwrap();
    let reply = Reply::read(full);
    assert_eq!(reply.header("retry-after"), Some("2"));
    assert_eq!(code(reply), (503, "connections_full".into()));
    // They idle, and are hung up on; then there is room again.
    until(|| {
        let mut stream = served.connect();
        let mut said = String::new();
        let asked =
            write!(stream, "GET /health HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", served.address);
        let _hung_up = asked.and_then(|()| stream.read_to_string(&mut said).map(|_| ()));
        said.starts_with("HTTP/1.1 200")
    });
    drop(crowd);
    served.until("connections", |count| count <= 2.0);
}

#[test]
fn an_answer_that_takes_too_long_ends_with_an_error() {
    let served = Served::start(&[&SLOWLY[..], &["--timeout", "0.5"]].concat());
    let events: Vec<_> = served.post(CHAT, &long(json!({}))).events().collect();
    assert!(events.len() > 3);
    let last: Value = serde_json::from_str(&events.last().unwrap().1).unwrap();
    assert_eq!(last["error"]["code"], "timeout");
    let reply = served.post(CHAT, &long(json!({"stream": false})));
    assert_eq!(reply.header("x-should-retry"), Some("false"), "another try would take as long");
    assert_eq!(code(reply), (504, "timeout".into()));
    let responses =
        served.stream("/v1/responses", &json!({"input": "Tom", "stream": true, "ignore_eos": true}));
    let (name, last) = responses.last().unwrap();
    assert_eq!((name.as_deref(), last.contains("\"status\":\"failed\"")), (Some("response.failed"), true));
    served.until("requests_processing", |count| count == 0.0);
}

#[test]
#[cfg(unix)]
fn the_end_lets_answers_finish_within_bounds() {
    // Short ones finish, and who comes late is told so.
    let mut served = Served::start(&[&SLOWLY[..], &["--parallel", "1"]].concat());
    let mut kept = served.connect();
    write!(kept, "GET /health HTTP/1.1\r\nhost: {}\r\n\r\n", served.address).unwrap();
    kept.read_exact(&mut [0; 12]).unwrap();
    let mut events = served.post(CHAT, &long(json!({"max_tokens": 40}))).events();
    assert!(events.next().is_some());
    let waiting = long(json!({})).to_string();
    thread::scope(|scope| {
        let waits = scope.spawn(|| code(served.send("POST", CHAT, &[], waiting.as_bytes())));
        served.until("requests_deferred", |count| count == 1.0);
        served.signal("-TERM");
        assert_eq!(waits.join().unwrap(), (503, "shutting_down".into()));
    });
    assert_eq!(events.last().unwrap().1, "[DONE]");
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
    assert!(TcpStream::connect(&served.address).is_err());

    // Long ones are stopped.
    let mut served = Served::start(&[&SLOWLY[..], &["--grace", "0.3"]].concat());
    let mut events = served.post(CHAT, &long(json!({}))).events();
    assert!(events.next().is_some());
    let begun = Instant::now();
    served.signal("-INT");
    let last: Value = serde_json::from_str(&events.last().unwrap().1).unwrap();
    assert_eq!(last["error"]["code"], "shutting_down");
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());

    // Twice is at once.
    let mut served = Served::start(&SLOWLY);
    let mut events = served.post(CHAT, &long(json!({}))).events();
    assert!(events.next().is_some());
    served.signal("-INT");
    thread::sleep(Duration::from_millis(300));
    served.signal("-INT");
    assert_eq!(served.child.wait().unwrap().code(), Some(130));
}
