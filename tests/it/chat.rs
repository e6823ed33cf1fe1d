//! Chat templates against Jinja2's renderings, and against templates that mean harm.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use flate2::read::GzDecoder;
use pocketlm::format::{Checkpoint, Dialect};
use pocketlm::text::{ChatRequest, ChatTemplate, Message, Special, Tokenizer};
use pocketlm::{Error, Kind};

use crate::data;

#[derive(serde::Deserialize)]
struct TemplateCases {
    name: String,
    template: String,
    bos_token: String,
    eos_token: String,
    cases: Vec<TemplateCase>,
}

#[derive(serde::Deserialize)]
struct TemplateCase {
    conversation: String,
    add_generation_prompt: bool,
    messages: Vec<serde_json::Map<String, serde_json::Value>>,
    tools: Option<serde_json::Value>,
    expected: Option<String>,
    error: Option<TemplateError>,
}

#[derive(serde::Deserialize)]
struct TemplateError {
    kind: String,
    message: String,
}

fn template_cases() -> Vec<TemplateCases> {
    let file = fs::File::open(data::shared("templates/cases.jsonl.gz")).expect("cases.jsonl.gz");
    let lines = BufReader::new(GzDecoder::new(file));
    lines.lines().map(|line| serde_json::from_str(&line.expect("UTF-8")).expect("a template")).collect()
}

/// 2026-07-04 12:00:00 UTC.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_783_166_400)
}

/// What is wrong with the rendering of one case.
fn judge(template: &ChatTemplate, case: &TemplateCase) -> Result<(), String> {
    let messages: Vec<Message> = case.messages.iter().cloned().map(Message).collect();
    let mut request = ChatRequest::new(&messages, noon());
    request.tools = case.tools.clone();
    request.add_generation_prompt = case.add_generation_prompt;
    match (template.render(&request), &case.expected, &case.error) {
        (Ok(text), Some(expected), _) if text == *expected => Ok(()),
        (Ok(text), Some(expected), _) => {
            let at = text.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
            let from = |text: &str| {
                String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(40)..])
                    .chars()
                    .take(120)
                    .collect::<String>()
            };
            Err(format!("byte {at}: {:?}, not {:?}", from(&text), from(expected)))
        }
        (Err(error), Some(_), _) => Err(format!("{error}")),
        (Ok(_), _, Some(error)) if error.kind == "raised" => {
            Err(format!("renders, but refuses with {}", error.message))
        }
        (Ok(_), ..) => Ok(()),
        (Err(error), _, expected) => {
            let raised = expected.as_ref().filter(|expected| expected.kind == "raised");
            let says = raised.is_none_or(|expected| error.to_string().contains(&expected.message));
            if error.kind() == Kind::Template && says { Ok(()) } else { Err(format!("{error:?}")) }
        }
    }
}

#[test]
fn chat_templates_render_as_jinja2_does() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for cases in template_cases() {
        let template = ChatTemplate::new(&cases.template, &cases.bos_token, &cases.eos_token)
            .unwrap_or_else(|error| panic!("{}: {error}", cases.name));
        for case in &cases.cases {
            count += 1;
            if let Err(what) = judge(&template, case) {
                wrong.push(format!(
                    "{} {} {}: {what}",
                    cases.name, case.conversation, case.add_generation_prompt
                ));
            }
        }
    }
    assert_eq!(count, 420);
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

/// The tokenizer and the template of a GGUF.
fn model(path: &Path) -> (Tokenizer, String) {
    let checkpoint = Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"));
    let Dialect::Gguf(metadata) = checkpoint.dialect else { panic!("{} is no GGUF", path.display()) };
    let source = metadata.text("tokenizer.chat_template").expect("a text").expect("a template");
    (Tokenizer::from_gguf(&metadata).expect("a tokenizer"), source.to_owned())
}

fn chat(template: &str) -> Result<String, Error> {
    let messages = [Message::new("user", "Hello"), Message::new("assistant", "Hi")];
    ChatTemplate::new(template, "<s>", "</s>")?.render(&ChatRequest::new(&messages, noon()))
}

#[test]
fn templates_without_end_or_measure_are_stopped() {
    let many = |unit: &str, times: usize| unit.repeat(times);
    let hostile = [
        // Steps.
        "{% for i in range(1000000000000) %}x{% endfor %}".to_owned(),
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}".to_owned(),
        "{% for i in [[]] recursive %}{{ loop([[]]) }}{% endfor %}".to_owned(),
        // Text.
        "{{ 'x' * 1000000000000 }}".to_owned(),
        "{{ 'x' * 90000000 * 90000000 }}".to_owned(),
        many("{{ ('x' * 99999999)|length }}", 40),
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}".to_owned(),
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}".to_owned(),
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set t %}{{ n.s }}{{ n.s }}{% endset %}{% set n.s = t %}{% endfor %}"
            .to_owned(),
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = n.s|replace('x', n.s) %}{% endfor %}"
            .to_owned(),
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = n.s.replace('x', n.s) %}{% endfor %}"
            .to_owned(),
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = n.s.join([n.s, n.s]) %}{% endfor %}"
            .to_owned(),
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = [n.s, n.s]|join(n.s) %}{% endfor %}"
            .to_owned(),
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = [n.s, n.s]|tojson %}{% endfor %}"
            .to_owned(),
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = '%s%s'|format(n.s, n.s) %}{% endfor %}"
            .to_owned(),
        "{{ '%9999999999d'|format(1) }}".to_owned(),
        "{{ '{:>9999999999}'.format(1) }}".to_owned(),
        "{{ 'x'|indent(9999999999, true) }}".to_owned(),
        "{{ 'x'|indent(width=9999999999, first=true) }}".to_owned(),
        "{{ [1]|tojson(indent=9999999999) }}".to_owned(),
        "{% set s = 'x' * 1000 %}{{ range(100000)|tojson(separators=(s * 100, s)) }}".to_owned(),
        "{{ [1]|slice(9999999999)|list }}{{ [1]|batch(9999999999, 0)|list }}".to_owned(),
        "{{ ([0] * 99999999 * 99999999)|length }}".to_owned(),
        format!("{{% for i in range(100000) %}}{}{{% endfor %}}", many("raw text ", 20_000)),
        format!("{{% set s %}}{{% for i in range(100000) %}}{}{{% endfor %}}{{% endset %}}", many("raw text ", 20_000)),
        // Nesting and sharing.
        "{% set n = namespace(x=[]) %}{% for i in range(100000) %}{% set n.x = [n.x] %}{% endfor %}".to_owned(),
        "{% set n = namespace(x=[]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}".to_owned(),
        "{% set n = namespace(x=[]) %}{% for i in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}"
            .to_owned(),
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}".to_owned(),
        "{% set n = namespace() %}{% set n.n = n %}{{ n }}".to_owned(),
        "{% set n = namespace() %}{% set n.n = [{'a': n}] %}{{ n }}".to_owned(),
        "{% set n = namespace(l=0) %}{% for i in [1] %}{% set n.l = loop %}{% endfor %}".to_owned(),
        "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{{ s == s ~ '' }}{% endfor %}".to_owned(),
        "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{{ 'y' in s }}{% endfor %}".to_owned(),
        "{% set s = 'x' * 9999999 %}{{ s|trim('y' * 999999 ~ 'x') }}".to_owned(),
        "{% set s = 'x' * 9999999 %}{{ ([s ~ 'a', s ~ 'b'] * 99999)|sort|length }}".to_owned(),
        // Source.
        many("x", 300_000),
        many("\n", 250_000) + "{{ raise_exception('end') }}",
        "{% for m in messages %}{{ m.content ".to_owned(),
        "{% block a %}{% endblock %}".to_owned(),
        "{% include 'a' %}".to_owned(),
        "{{ f(*messages) }}".to_owned(),
    ];
    for template in hostile {
        let short: String = template.chars().take(100).collect();
        match timed(&template) {
            Ok(text) => panic!("{short}: {} bytes", text.len()),
            Err(error) => assert_eq!(error.kind(), Kind::Template, "{short}: {error:?}"),
        }
    }
}

/// Generous: no template takes more than two seconds on a slow machine.
fn timed(template: &str) -> Result<String, Error> {
    let start = Instant::now();
    let rendered = chat(template);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{}: {took:?}", template.chars().take(100).collect::<String>());
    rendered
}

#[test]
fn deeply_nested_templates_are_rendered_or_refused() {
    let many = |unit: &str, times: usize| unit.repeat(times);
    let mut templates = vec![many("\n", 65_535), many("-", 65_535), many("{{'*'*'", 9_000)];
    for times in [90, 300, 900, 10_000] {
        templates.extend([
            format!("{{{{ {}1 }}}}", many("1 + ", times)),
            format!("{{{{ {}b }}}}", many("1 + ", times)),
            format!("{{{{ {}1{} }}}}", many("(", times), many(")", times)),
            format!("{{{{ {}1{} }}}}", many("[", times), many("]", times)),
            format!("{{{{ {}1{} }}}}", many("{'a': ", times), many("}", times)),
            format!("{{{{ {}'a' }}}}", many("'a' ~ ", times)),
            format!("{{{{ messages{} }}}}", many("[0]", times)),
            format!("{{{{ messages{} }}}}", many(".a", times)),
            format!("{{{{ 1{} }}}}", many("|string", times)),
            format!("{{{{ {}1 }}}}", many("not ", times)),
            format!("{{{{ {}1 }}}}", many("-", times)),
            format!("{{{{ 1{} }}}}", many(" if 1 else 1", times)),
            format!("{{{{ {}b }}}}", many("a and ", times)),
            format!("{{{{ {}b }}}}", many("1 < ", times)),
            format!("{{{{ {}2 }}}}", many("2 ** ", times)),
            format!("{{{{ {}2 }}}}", many("2 * ", times)),
            format!("{{% if a %}}{}{{% endif %}}", many("{% elif a %}", times)),
            many("{% if true %}", times) + &many("{% endif %}", times),
            many("{% for a in messages %}", times) + &many("{% endfor %}", times),
            many("{% macro f() %}", times) + &many("{% endmacro %}", times),
            many("{% set a = 1 %}", times),
            many("\n{{ a }}", times),
            many("{#", times),
        ]);
    }
    for template in templates {
        if let Err(error) = timed(&template) {
            let short: String = template.chars().take(100).collect();
            assert_eq!(error.kind(), Kind::Template, "{short}: {error:?}");
        }
    }
}

#[test]
fn limits_leave_room_for_long_conversations() {
    let text = "A long answer with </think> some words. ".repeat(50);
    let messages: Vec<Message> =
        (0..1000).map(|i| Message::new(if i % 2 == 0 { "user" } else { "assistant" }, &text)).collect();
    for cases in template_cases() {
        let template =
            ChatTemplate::new(&cases.template, &cases.bos_token, &cases.eos_token).expect("compiles");
        let short = template.render(&ChatRequest::new(&messages[..2], noon()));
        let long = template.render(&ChatRequest::new(&messages, noon()));
        match (short, long) {
            (Ok(short), Ok(long)) => assert!(long.len() > short.len(), "{}", cases.name),
            (Err(_), Err(_)) => {}
            (short, long) => panic!("{}: {short:?} {long:?}", cases.name),
        }
    }
}

#[test]
fn templates_see_what_pythons_see() {
    for (template, expected) in [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>Hello</s>"),
        (
            "{{ add_generation_prompt }} {{ tools }} {{ tools is defined }} {{ nothing is defined }}",
            "True None True False",
        ),
        (
            "{% for m in messages %}\n  {% if loop.last %}\n{{ m.role }}\n  {% endif %}\n{% endfor %}",
            "assistant\n",
        ),
        ("a{% generation %}b{% endgeneration %}c", "abc"),
        (
            "{{ {'b': 1, 'a': [1.0, true, none, 'é\\n\"<']} | tojson }}",
            r#"{"b": 1, "a": [1.0, true, null, "é\n\"<"]}"#,
        ),
        ("{{ {'b': 1, 'a': []} | tojson(indent=2, sort_keys=true) }}", "{\n  \"a\": [],\n  \"b\": 1\n}"),
        ("{{ [1, {'a': 2}] | tojson(separators=(',', ':')) }}", r#"[1,{"a":2}]"#),
        ("{{ 'é🦙' | tojson(ensure_ascii=true) }}", r#""\u00e9\ud83e\udd99""#),
        (
            "{{ 1.0 }} {{ true }} {{ none }} {{ [1, 'a', none] }} {{ {'a': 0.5} }}",
            "1.0 True None [1, 'a', None] {'a': 0.5}",
        ),
        ("{{ strftime_now('%d %b %Y') }}", "04 Jul 2026"),
        ("{{ ' a '.strip() }}|{{ 'a,b'.split(',')[-1] }}|{{ 'ab'.startswith('a') }}", "a|b|True"),
        ("{{ 'a' * 3 }}{{ 2 * 3 }}{{ [1] * 2 }}{{ 2 * 3 * 'b' }}", "aaa6[1, 1]bbbbbb"),
        (
            "{{ messages[::-1][0].content }}{{ messages[1:]|length }}{{ messages|map(attribute='role')|join(',') }}",
            "Hi1user,assistant",
        ),
        // A fuzzer found that minijinja's own slices panic where nothing is to be reversed.
        ("{{ [][::-1] }}{{ ''[::-1] }}{{ nothing[::-1] }}{{ [][::-1][::-1] }}", "[][][]"),
        ("{{ [1, 2, 3, 4][::-1] }}{{ 'abcd'[2:0:-1] }}{{ (1, 2, 3)[-2::-1] }}", "[4, 3, 2, 1]cb(2, 1)"),
        ("{{ [1, 2, 3][1:3:-1] }}{{ 'abc'[::-9223372036854775808] }}{{ [1, 2, 3][5:-9:-2] }}", "[]c[3, 1]"),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% if loop.first %}{% continue %}{% endif %}{{ ns.n }}{% break %}{% endfor %}",
            "2",
        ),
        (
            "{% set d = {'items': 5} %}{{ d['items'] }}{{ d.items is defined }}{% for k, v in d.items() %}{{ k }}{{ v }}{% endfor %}",
            "5Trueitems5",
        ),
        (
            "{{ none is iterable }}{{ 'a' is sequence }}{{ {} is mapping }}{{ [] is mapping }}",
            "FalseTrueTrueFalse",
        ),
        ("{% macro f(a, b='x') %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, b=2) }}", "1x12"),
    ] {
        assert_eq!(
            chat(template).unwrap_or_else(|error| panic!("{template}: {error}")),
            expected,
            "{template}"
        );
    }
}

#[test]
fn a_template_speaks_for_itself_when_it_refuses() {
    let error = chat("{{ raise_exception('Roles must alternate') }}").expect_err("a refusal");
    assert_eq!(error.kind(), Kind::Template);
    assert_eq!(error.to_string(), "the chat template refuses the conversation: Roles must alternate");
    let error = chat("line\n{{ a.b.c }}").expect_err("undefined");
    assert!(error.to_string().contains("line 2"), "{error}");
}

#[test]
fn malformed_template_files_load_and_chat_ends_in_an_error() {
    for (file, says) in [
        ("template_huge_range.gguf", "range has too many elements"),
        ("template_nested_loops.gguf", "range has too many elements"),
        ("template_recursion.gguf", "recursion limit"),
        ("template_syntax.gguf", "syntax error"),
    ] {
        let (tokenizer, source) = model(&data::shared("badgguf").join(file));
        assert_eq!(tokenizer.vocab_size(), 300);
        let start = Instant::now();
        let rendered = chat(&source);
        let error = rendered.expect_err(file);
        assert!(start.elapsed() < Duration::from_secs(2), "{file} took {:?}", start.elapsed());
        assert!(error.kind() == Kind::Template && error.to_string().contains(says), "{file}: {error:?}");
    }
}

#[test]
fn the_real_models_template() {
    let (tokenizer, source) = model(&data::real_model());
    let template = ChatTemplate::new(&source, "<|im_start|>", "<|im_end|>").expect("compiles");
    let messages = [Message::new("user", "Hi")];
    let text = template.render(&ChatRequest::new(&messages, noon())).expect("a prompt");
    assert_eq!(
        text,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    let ids = tokenizer.encode(&text, Special::Parse).expect("tokens");
    assert_eq!((ids[0], &ids[ids.len() - 4..]), (1, &[1, 520, 9531, 198][..]));
    assert_eq!(tokenizer.decode(&ids, true), text);
}

#[test]
fn a_wrong_rendering_is_noticed() {
    let cases = template_cases();
    let of = |name: &str| cases.iter().find(|cases| cases.name == name).expect("a template");
    let qwen = of("Qwen-Qwen2.5-7B-Instruct");
    let other = of("Qwen-Qwen3-0.6B");
    let template = ChatTemplate::new(&other.template, &other.bos_token, &other.eos_token).expect("compiles");
    assert!(qwen.cases.iter().any(|case| judge(&template, case).is_err()));
    let llama = of("meta-llama-Llama-3.1-8B-Instruct");
    let template = ChatTemplate::new(&llama.template, "<wrong>", &llama.eos_token).expect("compiles");
    assert!(llama.cases.iter().all(|case| judge(&template, case).is_err()));
}
