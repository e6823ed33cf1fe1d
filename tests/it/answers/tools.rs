//! Tools, on the real model: it is told of them, its calls are read while they are written, and their results go back. And what calls
//! are in other families' manners, on a small one.

use std::io::{BufRead, BufReader};

use flate2::read::GzDecoder;
use pocketlm::text::{ChatTemplate, Manner};
use pocketlm::{
    Constraint, Device, Engine, EngineOptions, Event, FinishReason, GenerateOptions, Handler, Kind,
    LoadOptions, Model, Tool, ToolChoice,
};
use serde_json::{Value, json};

use crate::data::{Scratch, real_model, shared, stories_with};

fn load() -> Model {
    let engine = Engine::new(EngineOptions { device: Device::Cpu, ..EngineOptions::default() });
    engine.load(real_model(), &LoadOptions::default(), |_| Ok(())).unwrap()
}

fn weather() -> Tool {
    Tool {
        name: "get_weather".into(),
        description: "Says what the weather is like in a city.".into(),
        parameters: json!({
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 30}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": false
        }),
    }
}

fn options(choice: ToolChoice) -> GenerateOptions {
    GenerateOptions {
        max_tokens: Some(60),
        tools: vec![weather()],
        tool_choice: choice,
        ..GenerateOptions::default()
    }
}

#[test]
fn a_call_that_has_to_be_made_is_made_and_handed_out() {
    let model = load();
    let mut session = model.session();
    let stream = session.say("What is the weather like in Paris?", &options(ToolChoice::Required)).unwrap();
    let (mut streamed, mut pieces, mut finish) = (String::new(), 0, None);
    for event in stream {
        match event.unwrap() {
            Event::ToolArguments { name, text, .. } => {
                assert_eq!(name, "get_weather");
                streamed += &text;
                pieces += 1;
            }
            Event::Text(text) => panic!("{text:?} is no call"),
            Event::Finished(end) => finish = Some(end),
            _ => {}
        }
    }
    let finish = finish.unwrap();
    assert_eq!((finish.reason, finish.text.as_str(), finish.calls.len()), (FinishReason::ToolCalls, "", 1));
    let call = &finish.calls[0];
    let arguments = Value::Object(call.arguments.clone());
    assert!(jsonschema::validator_for(&weather().parameters).unwrap().is_valid(&arguments), "{arguments}");
    assert_eq!(serde_json::from_str::<Value>(&streamed).unwrap(), arguments);
    assert!(pieces > 2, "{streamed} came in {pieces} pieces");
    session.answered_with(&finish);
    session.returned(call, "22 degrees, sunny");
    let answer = session.go_on(&options(ToolChoice::Auto)).unwrap().finish().unwrap();
    assert!(!answer.text.is_empty(), "{answer:?}");
    // The conversation tells all of it.
    let roles: Vec<&str> =
        session.transcript().iter().filter_map(|message| message.0["role"].as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "tool"]);
}

#[test]
fn a_loop_calls_and_goes_on() {
    let model = load();
    for outcome in 0..3 {
        let mut asked = Vec::new();
        let handler: Handler<'_> = Box::new(|arguments| {
            asked.push(arguments["city"].clone());
            match outcome {
                0 => Ok("22 degrees".into()),
                1 => Err("no such city".into()),
                _ => panic!("planted"),
            }
        });
        let mut tools = [(weather(), handler)];
        let mut session = model.session();
        let request = options(ToolChoice::Named("get_weather".into()));
        let finish = session.run_tools("The weather in Rome?", &mut tools, &request, 1, |_| ()).unwrap();
        drop(tools);
        assert_eq!(asked.len(), 1);
        assert_ne!(finish.reason, FinishReason::Cancelled);
        let result = session.transcript()[2].0["content"].as_str().unwrap();
        let due =
            ["22 degrees", "{\"error\":\"no such city\"}", "{\"error\":\"the tool panicked: planted\"}"];
        assert_eq!(result, due[outcome]);
    }
    // No round is left: the call is handed out.
    let mut tools = [(weather(), Box::new(|_: &_| Ok(String::new())) as Handler<'_>)];
    let request = options(ToolChoice::Required);
    let finish = model.session().run_tools("Rome?", &mut tools, &request, 0, |_| ()).unwrap();
    assert_eq!((finish.reason, finish.calls.len()), (FinishReason::ToolCalls, 1));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let model = load();
    let refused = |options: GenerateOptions| model.session().say("Hi", &options).unwrap_err().kind();
    let none = GenerateOptions { tools: vec![], ..options(ToolChoice::Required) };
    assert_eq!(refused(none), Kind::InvalidArgument);
    assert_eq!(refused(options(ToolChoice::Named("other".into()))), Kind::InvalidArgument);
    let both = GenerateOptions { constraint: Some(Constraint::JsonObject), ..options(ToolChoice::Required) };
    assert_eq!(refused(both), Kind::InvalidArgument);
    let unkept = Tool { parameters: json!({"not": {}}), ..weather() };
    let unkept = GenerateOptions { tools: vec![unkept], ..options(ToolChoice::Required) };
    assert_eq!(refused(unkept), Kind::Unsupported);
    let unnamed = GenerateOptions {
        tools: vec![Tool { name: "a b".into(), ..weather() }],
        ..options(ToolChoice::Auto)
    };
    assert_eq!(refused(unnamed), Kind::InvalidArgument);
}

/// A model with another family's template calls as that family does, where it has to; in the manners that are not JSON, in which this
/// one would write space for as long as it may.
#[test]
fn a_call_that_has_to_be_made_is_made_in_manners_that_are_no_json() {
    let marks = [
        ("<start_function_call>", Manner::Gemma),
        ("<|tool_call>", Manner::Gemma4),
        ("<|tool_call_start|>", Manner::Lfm),
        ("<tool_call> <function= <parameter=", Manner::Coder),
    ];
    for (mark, manner) in marks {
        let template = format!(
            "{{% for tool in tools or [] %}}{mark} {{{{ tool.function.name }}}}{{% endfor %}}\
             {{% for message in messages %}}{{{{ message.content }}}}{{{{ message.tool_calls or '' }}}}\n{{% endfor %}}"
        );
        assert_eq!(ChatTemplate::new(&template, "", "").unwrap().manner(), Some(manner));
        let folder = Scratch::new();
        let engine = Engine::new(EngineOptions { device: Device::Cpu, ..EngineOptions::default() });
        let model = engine.load(stories_with(&folder, &template), &LoadOptions::default(), |_| Ok(()));
        let mut session = model.unwrap().session();
        let request = GenerateOptions { max_tokens: Some(250), ..options(ToolChoice::Required) };
        let finish = session.say("The weather in Paris?", &request).unwrap().finish().unwrap();
        let told = (finish.reason, finish.text.as_str(), finish.calls.len());
        assert_eq!(told, (FinishReason::ToolCalls, "", 1), "{manner:?}");
        let arguments = Value::Object(finish.calls[0].arguments.clone());
        assert!(
            jsonschema::validator_for(&weather().parameters).unwrap().is_valid(&arguments),
            "{manner:?} {arguments}"
        );
    }
}

/// The templates of the families themselves say in which manner their models call.
#[test]
fn templates_of_each_family_show_its_manner() {
    let due = [
        ("HuggingFaceTB-SmolLM3-3B", Some(Manner::Hermes)),
        ("LFM2-8B-A1B", Some(Manner::Lfm)),
        ("LFM2.5-8B-A1B", Some(Manner::Lfm)),
        // For the vocabulary to say.
        ("LFM2.5-Instruct", None),
        ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", Some(Manner::Hermes)),
        ("Qwen-Qwen2.5-7B-Instruct", Some(Manner::Hermes)),
        ("Qwen-Qwen3-0.6B", Some(Manner::Hermes)),
        ("Qwen3-Coder", Some(Manner::Coder)),
        ("google-gemma-4-31B-it", Some(Manner::Gemma4)),
        ("ibm-granite-granite-3.3-2B-Instruct", Some(Manner::Granite)),
        ("ibm-granite-granite-4.1", Some(Manner::Hermes)),
        ("meta-llama-Llama-3.1-8B-Instruct", Some(Manner::Llama)),
        ("meta-llama-Llama-3.3-70B-Instruct", Some(Manner::Llama)),
    ];
    let file = std::fs::File::open(shared("templates/cases.jsonl.gz")).expect("cases.jsonl.gz");
    let mut seen = 0;
    for line in BufReader::new(GzDecoder::new(file)).lines() {
        let case: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let Some((name, manner)) = due.iter().find(|(name, _)| case["name"] == *name) else { continue };
        let template = ChatTemplate::new(case["template"].as_str().unwrap(), "", "").unwrap();
        assert_eq!(template.manner(), *manner, "{name}");
        seen += 1;
    }
    assert_eq!(seen, due.len());
}
