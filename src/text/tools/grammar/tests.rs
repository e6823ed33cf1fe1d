//! What the grammars let through, and that what they let through is read as the call that it is.

use std::sync::Arc;

use super::*;
use crate::error::Kind;
use crate::text::tools::{News, Reader};
use crate::text::{Constraint, Lexicon};

fn vocabulary() -> (Arc<Tokenizer>, Lexicon) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stories260k/stories260K-f32.gguf");
    let checkpoint = crate::format::Checkpoint::open(path).unwrap();
    let tokenizer = Arc::new(Tokenizer::of(&checkpoint.dialect).unwrap().unwrap());
    let lexicon = Lexicon::new(&tokenizer).unwrap();
    (tokenizer, lexicon)
}

fn tool(name: &str, parameters: Value) -> Tool {
    Tool { name: name.into(), description: String::new(), parameters }
}

/// Whether the grammar of a manner lets a text through; what it lets through is read as one call, whose arguments are valid.
fn accepts(
    (tokenizer, lexicon): &(Arc<Tokenizer>, Lexicon),
    manner: Manner,
    tools: &[Tool],
    text: &str,
) -> bool {
    let grammar = manner.grammar(&tools.iter().collect::<Vec<_>>(), tokenizer).unwrap();
    let mut guide = lexicon
        .guide(&Constraint::Lark(grammar.clone()), false)
        .unwrap_or_else(|error| panic!("{error}: {grammar}"));
    let is_let_through = guide.accepts(text.as_bytes()).unwrap();
    if is_let_through {
        let mut reader = Reader::new(manner, tools.to_vec(), 0);
        let mut news = reader.push(text);
        news.extend(reader.finish());
        let Some(News::Call(call)) = news.pop() else { panic!("{text} is not read") };
        let tool = tools.iter().find(|tool| tool.name == call.name).unwrap();
        let arguments = Value::Object(call.arguments);
        let judge = jsonschema::validator_for(&tool.parameters).unwrap();
        assert!(judge.is_valid(&arguments), "{text}: {arguments}");
    }
    is_let_through
}

#[test]
fn a_call_that_has_to_be_made_is_held_to_the_schema() {
    let vocabulary = vocabulary();
    let go = tool(
        "go",
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {"at": {"$ref": "#/$defs/Point"}},
            "required": ["at"],
            "$defs": {"Point": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}}
        }),
    );
    let tools = [go, tool("stop", json!({"type": "object"}))];
    let accepts = |manner: Manner, text: &str| accepts(&vocabulary, manner, &tools, text);
    let hermes = |call: &str| format!("<tool_call>\n{call}\n</tool_call>");
    let call = "{\"name\": \"go\", \"arguments\": {\"at\": [1, 2]}}";
    assert!(accepts(Manner::Hermes, &hermes(call)));
    assert!(accepts(Manner::Hermes, &hermes("{\"name\": \"stop\", \"arguments\": {}}")));
    assert!(accepts(Manner::Llama, &call.replace("arguments", "parameters")));
    assert!(accepts(Manner::Mistral, &format!("[TOOL_CALLS][{call}]")));
    assert!(accepts(Manner::Granite, &format!("<|tool_call|>[{call}]")));
    assert!(accepts(Manner::Phi, &format!("<|tool_call|>[{call}]<|/tool_call|>")));
    for wrong in
        [call.replace("[1, 2]", "[1]"), call.replace("go", "run"), "{}".into(), call.replace("1", "\"1\"")]
    {
        assert!(!accepts(Manner::Hermes, &hermes(&wrong)), "{wrong}");
    }
    assert!(!accepts(Manner::Hermes, call));
    // And those that are no JSON.
    let around = [
        (Manner::Lfm, "<|tool_call_start|>[", "]<|tool_call_end|>", "go(at=[1, 2])", "stop()"),
        (Manner::Gemma, "<start_function_call>", "<end_function_call>", "call:go{at:[1,2]}", "call:stop{}"),
        (Manner::Gemma4, "<|tool_call>", "<tool_call|>", "call:go{at:[1,2]}", "call:stop{}"),
        (
            Manner::Coder,
            "<tool_call>\n",
            "\n</tool_call>",
            "<function=go>\n<parameter=at>\n[1, 2]\n</parameter>\n</function>",
            "<function=stop>\n</function>",
        ),
    ];
    for (manner, open, close, go, stop) in around {
        let text = |call: &str| format!("{open}{call}{close}");
        assert!(accepts(manner, &text(go)), "{manner:?}");
        assert!(accepts(manner, &text(stop)), "{manner:?}");
        for (from, to) in [("go", "run"), ("2]", "2,3]"), ("[1", "[\"1\""), ("at", "on")] {
            assert!(!accepts(manner, &text(&go.replacen(from, to, 1))), "{manner:?} {to}");
        }
        assert!(!accepts(manner, &text("")) && !accepts(manner, go), "{manner:?}");
    }
}

/// One of everything.
fn everything() -> Tool {
    tool(
        "f",
        json!({
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "short": {"type": "string", "maxLength": 3},
                "unit": {"enum": ["C", "F"]},
                "n": {"type": "integer", "minimum": 1, "maximum": 20},
                "ok": {"type": "boolean"},
                "none": {"type": "null"},
                "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                "tree": {"$ref": "#/$defs/Tree"},
                "list": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "any": {}
            },
            "required": ["text", "n"],
            "$defs": {"Tree": {"type": "object", "properties": {
                "value": {"type": ["number", "null"]},
                "next": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}
            }, "required": ["value"], "additionalProperties": false}}
        }),
    )
}

#[test]
fn gemmas_notation_says_what_schemas_say() {
    let (vocabulary, tools) = (vocabulary(), [everything()]);
    for (manner, open, escape, close) in [
        (Manner::Gemma, "<start_function_call>", "<escape>", "<end_function_call>"),
        (Manner::Gemma4, "<|tool_call>", "<|\"|>", "<tool_call|>"),
    ] {
        let accepts = |arguments: &str| {
            let arguments = arguments.replace('\'', escape);
            accepts(&vocabulary, manner, &tools, &format!("{open}call:f{{{arguments}}}{close}"))
        };
        // The keys in alphabetical order; those that are not required may be left out.
        for fine in [
            "n:1,text:'a, {b}: <c> <em> <escap <escap<|\"| <<| [d] '",
            "n:20,text:''",
            "any:{a:'b',c:[1,null,{}]},n:7,text:'x'",
            "any:'x',either:'x',n:7,text:'x'",
            "any:-1.5,either:3,list:['a','b','c'],n:7,none:null,ok:true,short:'abc',text:'x',tree:{value:1.5},unit:'C'",
            "n:7,text:'x',tree:{next:[{next:[],value:null},{value:2}],value:1}",
            "n:7,ok:false,text:'two\nlines'",
        ] {
            assert!(accepts(fine), "{manner:?} {fine}");
        }
        for wrong in [
            "",
            "n:1",
            "text:'a'",
            "n:0,text:'a'",
            "n:21,text:'a'",
            "n:1.5,text:'a'",
            "text:'a',n:1",
            "n:1,text:a",
            "n:1,text:'a",
            "n:1,text:\"a\"",
            "n:1,text:'a','",
            "n:1,text:'a','b'",
            ",n:1,text:'a'",
            "n:1,,text:'a'",
            "n:1,text:'a',",
            "n:1,text:'a',unit:'K'",
            "n:1,text:'a',unit:C",
            "n:1,short:'abcd',text:'a'",
            "list:[],n:1,text:'a'",
            "list:[1],n:1,text:'a'",
            "n:1,ok:True,text:'a'",
            "n:1,ok:'true',text:'a'",
            "either:true,n:1,text:'a'",
            "n:1,text:'a',tree:{}",
            "n:1,text:'a',tree:{value:'1'}",
            "n:1,text:'a',tree:{other:1,value:1}",
            "n:1,other:1,text:'a'",
        ] {
            assert!(!accepts(wrong), "{manner:?} {wrong}");
        }
    }
}

#[test]
fn notations_of_python_and_in_tags_say_what_schemas_say() {
    let (vocabulary, tools) = (vocabulary(), [everything()]);
    let lfm = |arguments: &str| {
        let text = format!("<|tool_call_start|>[f({arguments})]<|tool_call_end|>");
        accepts(&vocabulary, Manner::Lfm, &tools, &text)
    };
    assert!(lfm("text=\"a \\\"b\\\" \\n\", n=3, ok=True, none=None, tree={\"value\": null}, any=[true]"));
    assert!(lfm("text=\"\", unit=\"C\", n=20"));
    for wrong in [
        "",
        "text=\"a\"",
        "text=\"a\", n=21",
        "text=\"a\",n=1",
        "text=a, n=1",
        "n=1, text=\"a\"",
        "text=\"a\", n=1, ok=true",
        "text=\"a\", n=1, other=1",
        "text=\"a\", short=\"abcd\", n=1",
    ] {
        assert!(!lfm(wrong), "{wrong}");
    }
    let coder = |arguments: &[(&str, &str)]| {
        let tag = |&(key, value): &(&str, &str)| format!("<parameter={key}>\n{value}\n</parameter>\n");
        let arguments: String = arguments.iter().map(tag).collect();
        let text = format!("<tool_call>\n<function=f>\n{arguments}</function>\n</tool_call>");
        accepts(&vocabulary, Manner::Coder, &tools, &text)
    };
    assert!(coder(&[("text", "a < b\n<c></p> </param\n\"d\""), ("n", "3"), ("ok", "true"), ("any", "[1]")]));
    assert!(coder(&[("text", ""), ("short", "abc"), ("unit", "F"), ("n", "20"), ("either", "\"x\"")]));
    for wrong in [
        &[("text", "a")][..],
        &[("text", "a"), ("n", "x")],
        &[("text", "a"), ("n", "21")],
        &[("n", "1"), ("text", "a")],
        &[("text", "a"), ("unit", "K"), ("n", "1")],
        &[("text", "a"), ("short", "abcd"), ("n", "1")],
        &[("text", "a</parameter>"), ("n", "1")],
        &[("text", "a"), ("n", "1"), ("other", "1")],
    ] {
        assert!(!coder(wrong), "{wrong:?}");
    }
}

#[test]
fn what_cannot_be_kept_in_a_notation_is_refused_by_name() {
    let (tokenizer, _) = vocabulary();
    let refused = |manner: Manner, parameters: &Value| {
        let tool = tool("f", parameters.clone());
        let error = manner.grammar(&[&tool], &tokenizer).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        error.to_string()
    };
    let with = |schema: Value| json!({"type": "object", "properties": {"a": schema}});
    for (schema, named) in [
        (json!({"type": "string", "pattern": "a+"}), "pattern"),
        (json!({"type": "string", "format": "date"}), "format"),
    ] {
        for manner in [Manner::Gemma, Manner::Gemma4, Manner::Coder] {
            let error = refused(manner, &with(schema.clone()));
            assert!(error.contains(named) && error.contains('f'), "{error}");
        }
    }
    for (schema, named) in [
        (json!({"allOf": [{"type": "string"}, {"maxLength": 2}]}), "allOf"),
        (json!({"anyOf": [{"type": "string"}], "type": "string"}), "anyOf"),
        (json!({"type": "array", "prefixItems": [{"type": "string"}]}), "prefixItems"),
        (json!({"enum": [[1]]}), "enum"),
        (json!({"maxLength": 3}), "maxLength"),
        (json!({"type": "object", "patternProperties": {"^a": {}}}), "patternProperties"),
        (json!({"const": "a<escape>b"}), "<escape>"),
        (json!({"type": "object", "required": ["b"]}), "\"b\""),
    ] {
        let error = refused(Manner::Gemma, &with(schema));
        assert!(error.contains(named), "{error}");
    }
    assert!(refused(Manner::Lfm, &json!({"properties": {"a b": {}}})).contains("\"a b\""));
    assert!(refused(Manner::Coder, &json!({"properties": {"a>b": {}}})).contains("\"a>b\""));
    for manner in [Manner::Gemma, Manner::Lfm, Manner::Coder] {
        assert!(refused(manner, &with(json!({"not": {}}))).contains("not"));
        assert!(refused(manner, &json!({"anyOf": [{"type": "object"}]})).contains("anyOf"));
    }
    let deep = (0..100).fold(json!({"type": "string"}), |inner, _| json!({"type": "array", "items": inner}));
    refused(Manner::Gemma, &with(deep));
}

/// As in Gemma's own vocabulary, where no text is the token that stands around texts.
#[test]
fn a_mark_may_be_a_token() {
    let (_, lexicon) = vocabulary();
    let schema = json!({"properties": {
        "a": {"type": "string"}, "b": {"type": "string", "minLength": 1, "maxLength": 2}, "c": {"const": "x"}
    }, "required": ["a", "b", "c"]});
    let rules = gemma::rules(&tool("f", schema), 0, &gemma::Escape::new("<escape>", &[("<escape>", 1)]));
    let grammar = format!("start: call0\n{}", rules.unwrap());
    let accepts = |text: &str| {
        let mut guide = lexicon.guide(&Constraint::Lark(grammar.clone()), false).unwrap();
        // A byte is the token behind three special ones; a quote here is the mark.
        let tokens = text.bytes().map(|byte| if byte == b'\'' { 1 } else { 3 + u32::from(byte) });
        let mut complete = false;
        for token in tokens {
            let words = guide.allowed().unwrap();
            if words[token as usize / 32] >> (token % 32) & 1 == 0 {
                return false;
            }
            complete = guide.push(token).unwrap();
        }
        complete || guide.is_complete().unwrap()
    };
    for fine in
        ["call:f{a:'x <y> {,}',b:'zz',c:'x'}", "call:f{a:'',b:'z',c:'x'}", "call:f{a:'<esc< ',b:'z',c:'x'}"]
    {
        assert!(accepts(fine), "{fine}");
    }
    for wrong in [
        "call:f{a:'<escape>',b:'z',c:'x'}",
        "call:f{a:'',b:'',c:'x'}",
        "call:f{a:'',b:'zzz',c:'x'}",
        "call:f{a:'',b:'z',c:'y'}",
        "call:f{a:x,b:'z',c:'x'}",
    ] {
        assert!(!accepts(wrong), "{wrong}");
    }
}
