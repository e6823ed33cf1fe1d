//! Python's literals, and what is none.

use serde_json::json;

use super::*;

fn read(text: &str) -> Option<(String, Value)> {
    let parameters = json!({"properties": {"a": {}, "b": {}, "c": {}}});
    let tools = [Tool { name: "f".into(), description: String::new(), parameters }];
    let mut call = Call::default();
    let mut chars = text.chars();
    loop {
        if call.push(chars.next()?, &tools)? {
            let (name, arguments) = call.read()?;
            return chars.next().is_none().then_some((name, arguments.into()));
        }
    }
}

#[test]
fn literals_are_read_as_python_does() {
    for (text, due) in [
        ("f()", json!({})),
        ("f( )", json!({})),
        ("f(a=1)", json!({"a": 1})),
        ("f(a=1,)", json!({"a": 1})),
        ("f(\n\ta = 1 ,\n\tb = 2\n)", json!({"a": 1, "b": 2})),
        ("f(1, 'x', d=2)", json!({"a": 1, "b": "x", "d": 2})),
        ("f([1], {}, (2,))", json!({"a": [1], "b": {}, "c": [2]})),
        ("f(a=True, b=False, c=None)", json!({"a": true, "b": false, "c": null})),
        ("f(a=true, b=false, c=null)", json!({"a": true, "b": false, "c": null})),
        ("f(a=-1, b=+2, c=1_000)", json!({"a": -1, "b": 2, "c": 1000})),
        ("f(a=1.5, b=.5, c=1.)", json!({"a": 1.5, "b": 0.5, "c": 1.0})),
        ("f(a=1e3, b=1.E-2, c=-.5e1)", json!({"a": 1e3, "b": 0.01, "c": -5.0})),
        ("f(a=0x1F, b=0b101, c=-0o17)", json!({"a": 31, "b": 5, "c": -15})),
        ("f(a='', b=\"\")", json!({"a": "", "b": ""})),
        ("f(a='x' 'y' \"z\")", json!({"a": "xyz"})),
        ("f(a='it\\'s \"so\"', b=\"it's\")", json!({"a": "it's \"so\"", "b": "it's"})),
        ("f(a='\\\\ \\n\\t\\r\\a\\b\\f\\v\\q\\\n!')", json!({"a": "\\ \n\t\r\u{7}\u{8}\u{c}\u{b}\\q!"})),
        ("f(a='\\x41\\u00e9\\U0001F600\\101\\0\\18')", json!({"a": "Aé😀A\0\u{1}8"})),
        ("f(a='\\ud83d\\ude00')", json!({"a": "😀"})),
        ("f(a=r'\\d+\\'', b=u'x')", json!({"a": "\\d+\\'", "b": "x"})),
        ("f(a='''a 'b' ''c\n\"''', b=\"\"\"\"\"\")", json!({"a": "a 'b' ''c\n\"", "b": ""})),
        ("f(a='a\nb')", json!({"a": "a\nb"})),
        ("f(a='[(,)]={}#')", json!({"a": "[(,)]={}#"})),
        ("f(a=[1, [2, []], (3, 4), ()])", json!({"a": [1, [2, []], [3, 4], []]})),
        ("f(a={'b': {'c': [1]}, \"d\" 'e': 2,})", json!({"a": {"b": {"c": [1]}, "de": 2}})),
        ("f(a='São Paulo 北京')", json!({"a": "São Paulo 北京"})),
        ("g.h-i(größe=1)", json!({"größe": 1})),
        ("f.call(1)", json!({"a": 1})),
    ] {
        let (name, arguments) = read(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(arguments, due, "{text}");
        assert_eq!(name, if text.starts_with('g') { "g.h-i" } else { "f" });
    }
}

#[test]
fn what_is_no_literal_is_no_call() {
    for text in [
        "",
        "f",
        "f(",
        "(",
        "()",
        "1(",
        "f x()",
        "f(a)",
        "f(a=)",
        "f(=1)",
        "f(,)",
        "f(a=1,,)",
        "f(a=1 b=2)",
        "f(a==1)",
        "f(1=2)",
        "f(a=1)x",
        "f(a=b)",
        "f(a=f())",
        "f(a=1+2)",
        "f(a=1 + 2)",
        "f(a=not True)",
        "f(*a)",
        "f(**{})",
        "f(a=[1)",
        "f(a=(1])",
        "f(a={1})",
        "f(a={1: 2})",
        "f(a={'b'})",
        "f(a={'b':})",
        "f(a={b: 1})",
        "f(a=[,])",
        "f(a=(1))",
        "f(a='x)",
        "f(a='x' y)",
        "f(a=f'x')",
        "f(a=b'x')",
        "f(a='\\N{DASH}')",
        "f(a='\\xg0')",
        "f(a='\\u12')",
        "f(a='\\UFFFFFFFF')",
        "f(a='\\ud83d')",
        "f(a=1__0)",
        "f(a=_1)",
        "f(a=1_)",
        "f(a=0x)",
        "f(a=0x1G)",
        "f(a=.)",
        "f(a=1e)",
        "f(a=1e999)",
        "f(a=1j)",
        "f(a=007)",
        "f(a=inf)",
        "f(a=lambda: 1)",
        "f(a=1 # one\n)",
        "f(1, 2, 3, 4)",
        "f(a=1, 2)",
        "f(d=1, 2)",
        "f(a=1)(b=2)",
        "f(a=[1][0])",
        "f(a=;)",
    ] {
        assert!(read(text).is_none(), "{text}: {:?}", read(text));
    }
    let deep = |depth: usize| format!("f(a={}{})", "[".repeat(depth), "]".repeat(depth));
    assert!(read(&deep(MOST_DEPTH - 1)).is_some());
    assert!(read(&deep(MOST_DEPTH)).is_none());
    assert!(read(&format!("f(a='{}')", "x".repeat(MOST))).is_none());
    assert!(read(&format!("f(a={})", "1".repeat(MOST_WORD + 1))).is_none());
    assert!(read(&format!("{}()", "f".repeat(MOST_WORD + 1))).is_none());
}
