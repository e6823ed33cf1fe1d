//! Answers under a constraint, from the engine: they end when they are whole, or say that they were cut, however they are
//! interrupted, saved or shared.

use std::time::Duration;

use pocketlm::{
    Cancel, Constraint, Device, Engine, EngineOptions, Event, Finish, FinishReason, GenerateOptions, Kind,
    LoadOptions, Mirostat, Model, Prompt, Sampling, SaveOptions,
};
use regex::Regex;
use serde_json::{Value, json};

use crate::data::{fixture, real_model};
use crate::engine::{run_all, run_all_within};

const STORY: &str = "Once upon a time";
const SENTENCE: &str = "( [a-z]+){2,9}, [A-Z][a-z]+( [a-z]+){1,5}\\.";

fn load(engine: &Engine) -> Model {
    let options = LoadOptions { sessions: 3, ..LoadOptions::default() };
    engine.load(fixture("stories260k/stories260K-f32.gguf"), &options, |_| Ok(())).unwrap()
}

fn cpu() -> Engine {
    Engine::new(EngineOptions { device: Device::Cpu, exact: true, ..EngineOptions::default() })
}

fn held(regex: &str, seed: Option<u64>) -> GenerateOptions {
    let temperature = seed.map(|_| 1.0);
    GenerateOptions {
        max_tokens: Some(120),
        sampling: Sampling { temperature, seed, ..Sampling::default() },
        constraint: Some(Constraint::Regex(regex.into())),
        ..GenerateOptions::default()
    }
}

fn tell(model: &Model, options: &GenerateOptions) -> Finish {
    model.session().generate(&Prompt::Raw(STORY.into()), options).unwrap().finish().unwrap()
}

fn matches(regex: &str, text: &str) -> bool {
    Regex::new(&format!("^(?:{regex})$")).unwrap().is_match(text)
}

#[test]
fn an_answer_is_whole_or_says_that_it_was_cut() {
    let model = load(&cpu());
    for seed in [None, Some(1), Some(2), Some(3)] {
        let options = held(SENTENCE, seed);
        let whole = tell(&model, &options);
        assert_eq!(whole.reason, FinishReason::Stop, "{whole:?}");
        assert!(matches(SENTENCE, &whole.text), "{:?}", whole.text);
        let most = whole.tokens.len() as u32 - 2;
        let cut = tell(&model, &GenerateOptions { max_tokens: Some(most), ..options.clone() });
        assert_eq!((cut.reason, cut.tokens.len() as u32), (FinishReason::Length, most));
        assert_eq!(cut.tokens, whole.tokens[..most as usize]);
        // A stop string that cuts is no proper end; one that does not occur changes nothing.
        let stop = |stop: &str| GenerateOptions { stop: vec![stop.into()], ..options.clone() };
        assert_eq!(tell(&model, &stop(",")).reason, FinishReason::Length);
        assert_eq!(tell(&model, &stop("#")).reason, FinishReason::Stop);
        // Nothing can follow the point, so the model's own end is not waited for.
        let endless = tell(&model, &GenerateOptions { ignore_end: true, ..options });
        assert_eq!((endless.reason, endless.tokens), (FinishReason::Stop, whole.tokens));
    }
    // A text that may go on is gone on with where the model's end is not to count.
    let open = held("[a-z ]+", None);
    let endless = tell(&model, &GenerateOptions { ignore_end: true, max_tokens: Some(30), ..open });
    assert_eq!((endless.reason, endless.tokens.len()), (FinishReason::Length, 30));
    assert!(matches("[a-z ]+", &endless.text), "{:?}", endless.text);
}

#[test]
fn a_constraint_that_cannot_be_is_refused_before_anything_is_computed() {
    let model = load(&cpu());
    let mut session = model.session();
    for (constraint, kind) in [
        (Constraint::JsonSchema(json!({"not": {}})), Kind::Unsupported),
        (Constraint::Regex("[".into()), Kind::InvalidArgument),
        (Constraint::Choice(vec![]), Kind::InvalidArgument),
    ] {
        let options = GenerateOptions { constraint: Some(constraint), ..GenerateOptions::default() };
        assert_eq!(session.generate(&Prompt::Raw(STORY.into()), &options).unwrap_err().kind(), kind);
    }
    assert!(session.generate(&Prompt::Raw(STORY.into()), &held(SENTENCE, None)).unwrap().finish().is_ok());
}

#[test]
fn together_is_alone_with_and_without_constraints() {
    let engine = cpu();
    let model = load(&engine);
    let requests = [
        held(SENTENCE, Some(4)),
        GenerateOptions { constraint: None, ..held("", Some(5)) },
        held(" [0-9]{9}", None),
    ];
    let alone: Vec<Vec<u32>> = requests.iter().map(|options| tell(&model, options).tokens).collect();
    let mut sessions: Vec<_> = requests.iter().map(|_| model.session()).collect();
    let streams = sessions.iter_mut().zip(&requests);
    let streams =
        streams.map(|(session, options)| session.generate(&Prompt::Raw(STORY.into()), options).unwrap());
    let mut together: Vec<Vec<u32>> =
        run_all(&engine, streams.collect()).into_iter().map(|finish| finish.tokens).collect();
    let mut alone = alone;
    together.sort();
    alone.sort();
    assert_eq!(together, alone);
}

#[test]
fn an_answer_that_was_saved_goes_on_within_its_constraint() {
    let model = load(&cpu());
    for seed in [None, Some(8)] {
        let options = held(SENTENCE, seed);
        let whole = tell(&model, &options);
        let mut session = model.session();
        let mut stream = session.generate(&Prompt::Raw(STORY.into()), &options).unwrap();
        let mut texts = 0;
        while texts < 4 {
            texts += u32::from(matches!(stream.next().unwrap().unwrap(), Event::Text(_)));
        }
        let saved = session.to_bytes(&SaveOptions::default()).unwrap();
        let mut restored = load(&cpu()).restore_bytes(saved.clone()).unwrap();
        let finish = restored.proceed(&options).unwrap().finish().unwrap();
        assert_eq!((&finish.tokens, &finish.text), (&whole.tokens, &whole.text));
        // By another constraint it cannot have begun so.
        let mut restored = model.restore_bytes(saved).unwrap();
        assert_eq!(restored.proceed(&held("[0-9]+", seed)).unwrap_err().kind(), Kind::InvalidArgument);
        let cancel: Cancel = stream.cancel_handle();
        cancel.cancel();
        assert_eq!(stream.finish().unwrap().reason, FinishReason::Cancelled);
    }
}

/// On the real model, by its own tokens: JSON by a schema that a validator agrees with, and a typed answer.
#[test]
fn the_real_model_answers_in_json() {
    let engine = Engine::new(EngineOptions { device: Device::Cpu, ..EngineOptions::default() });
    let model = engine.load(real_model(), &LoadOptions::default(), |_| Ok(())).unwrap();
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 30},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3}
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": false
    });
    let constraint = Some(Constraint::JsonSchema(schema.clone()));
    let options = GenerateOptions { max_tokens: Some(120), constraint, ..GenerateOptions::default() };
    let prompt = Prompt::user("Describe Alice, who is 31 and likes red and blue, in JSON.");
    let finish = model.session().generate(&prompt, &options).unwrap().finish().unwrap();
    assert_eq!(finish.reason, FinishReason::Stop, "{}", finish.text);
    let value: Value = serde_json::from_str(&finish.text).unwrap();
    assert!(jsonschema::validator_for(&schema).unwrap().is_valid(&value), "{value}");

    #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
    struct Answer {
        capital: String,
        is_in_europe: bool,
    }
    let options = GenerateOptions { max_tokens: Some(60), ..GenerateOptions::default() };
    let mut session = model.session();
    let answer: Answer =
        session.respond_as("What is the capital of France? Answer in JSON.", &options).unwrap();
    assert!(answer.capital.contains("Paris") && answer.is_in_europe, "{answer:?}");
    assert_eq!(session.transcript().len(), 2);
    let short = GenerateOptions { max_tokens: Some(3), ..options };
    let cut = session.respond_as::<Answer>("And of Spain?", &short).unwrap_err();
    assert_eq!(cut.kind(), Kind::ContextOverflow);
}

#[test]
fn what_must_follow_is_not_computed_one_by_one() {
    let engine = cpu();
    let model = engine.load(real_model(), &LoadOptions::default(), |_| Ok(())).unwrap();
    let schema = json!({"type": "object", "required": ["name_of_the_capital", "number_of_inhabitants"],
        "properties": {"name_of_the_capital": {"type": "string", "maxLength": 20},
            "number_of_inhabitants": {"type": "integer", "minimum": 0, "maximum": 99_999_999}},
        "additionalProperties": false});
    let prompt = Prompt::user("Tell me of the capital of France.");
    let options = GenerateOptions {
        max_tokens: Some(80),
        sampling: Sampling { temperature: Some(0.8), seed: Some(3), ..Sampling::default() },
        constraint: Some(Constraint::JsonSchema(schema)),
        ..GenerateOptions::default()
    };
    // A submission has as many dispatches for several rows as for one; the prompt is read in one.
    let dispatches = || model.health().device.meter.dispatches();
    let tell = |options: &GenerateOptions| {
        let mut session = model.session();
        let stream = session.generate(&prompt, options).unwrap();
        let before = dispatches();
        let finish = run_all_within(&engine, vec![stream], Duration::from_secs(3600)).remove(0);
        (finish, dispatches() - before)
    };
    // Who asks how likely each token was has each computed.
    let counting = GenerateOptions { log_probabilities: Some(0), ..options.clone() };
    let (told, few) = tell(&options);
    assert_eq!(told.reason, FinishReason::Stop, "{told:?}");
    let (counted, many) = tell(&counting);
    assert_eq!(counted.tokens, told.tokens, "{}", told.text);
    assert!(4 * few < 3 * many, "{few} dispatches, and {many} where each token is computed: {told:?}");
    // What bars a token by a bias, and what remembers, decides itself.
    let mirostat = Sampling { mirostat: Some(Mirostat::default()), ..options.sampling.clone() };
    let (other, all) = tell(&GenerateOptions { sampling: mirostat, ..options.clone() });
    let (mine, others) = (told.tokens.len() as u64, other.tokens.len() as u64);
    assert!(4 * few * others < 3 * all * mine, "{all} dispatches for {others} tokens");
    // Nothing is forced that the app has barred.
    let logit_bias = vec![(told.tokens[3], f32::NEG_INFINITY)];
    let sampling = Sampling { logit_bias, ..options.sampling.clone() };
    let barred = GenerateOptions { sampling, ..options.clone() };
    let refused = model.session().generate(&prompt, &barred).unwrap().finish().unwrap_err();
    assert!(refused.kind() == Kind::InvalidArgument && refused.to_string().contains("bias"), "{refused}");
    for most in (1..told.tokens.len()).step_by(6) {
        let (cut, _) = tell(&GenerateOptions { max_tokens: Some(most as u32), ..options.clone() });
        assert_eq!((cut.reason, &cut.tokens[..]), (FinishReason::Length, &told.tokens[..most]));
    }
}
