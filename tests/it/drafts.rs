//! Drafts change how fast an answer comes and nothing else: with guesses that are right, wrong or missing, at every length and
//! stop, the answer is the one without.

use pocketlm::{
    Device, Draft, Engine, EngineOptions, Finish, GenerateOptions, Kind, LoadOptions, Model, Overflow,
    Prompt, Sampling,
};

use crate::data::{fixture, limits, real_model};

const STORY: &[u32] = &[1, 403, 407, 261, 378];

fn load(device: Device, options: &LoadOptions) -> Model {
    let engine =
        Engine::new(EngineOptions { device, exact: true, limits: limits(), ..EngineOptions::default() });
    engine
        .load(fixture("stories260k/stories260K-f32.gguf"), options, |_| Ok(()))
        .expect("the stories model loads")
}

fn devices() -> Vec<Device> {
    #[cfg(feature = "wgpu")]
    if crate::gpu::gpu().is_some() {
        return vec![Device::Cpu, Device::Gpu];
    }
    vec![Device::Cpu]
}

fn options(count: u32, sampling: Sampling) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(count), sampling, ignore_end: true, ..GenerateOptions::default() }
}

fn samplings() -> [Sampling; 4] {
    let drawn = Sampling { temperature: Some(0.8), seed: Some(3), ..Sampling::default() };
    [
        Sampling::default(),
        Sampling { top_k: Some(20), ..drawn.clone() },
        // These look at all logits, on the host.
        drawn.clone(),
        Sampling { repeat_penalty: Some(1.2), repeat_last: Some(16), ..drawn },
    ]
}

fn tell(model: &Model, options: &GenerateOptions) -> Finish {
    model.session().generate(&Prompt::Tokens(STORY.to_vec()), options).unwrap().finish().unwrap()
}

#[test]
fn the_answer_is_the_one_without() {
    for device in devices() {
        let model = load(device, &LoadOptions::default());
        let drafts = [Draft::Lookup, Draft::Model(load(Device::Cpu, &LoadOptions::default()))];
        for (kind, sampling) in samplings().into_iter().enumerate() {
            let plain = options(160, sampling);
            let due = tell(&model, &plain);
            for draft in &drafts {
                let told = tell(&model, &GenerateOptions { draft: Some(draft.clone()), ..plain.clone() });
                let what = format!("{device:?} {:?} {draft:?}", plain.sampling);
                assert_eq!(told.tokens, due.tokens, "{what}");
                assert_eq!(told.text, due.text, "{what}");
                let [guessed, accepted] = [told.timings.guessed_tokens, told.timings.accepted_tokens];
                assert!(accepted <= guessed && guessed < 3 * 160);
                if let Draft::Model(_) = draft {
                    assert!(guessed > 0, "{what}");
                    // It is the same model: what is greedy is foreseen.
                    assert_eq!(accepted == guessed, kind == 0, "{accepted} of {guessed}, {what}");
                }
            }
        }
    }
}

#[test]
fn the_answer_ends_where_it_would() {
    let model = load(Device::Cpu, &LoadOptions { outputs: 8, ..LoadOptions::default() });
    let draft = Some(Draft::Model(load(Device::Cpu, &LoadOptions::default())));
    let whole = tell(&model, &options(60, Sampling::default()));
    for count in 1..40 {
        let told =
            tell(&model, &GenerateOptions { draft: draft.clone(), ..options(count, Sampling::default()) });
        assert_eq!(told.tokens, whole.tokens[..count as usize]);
    }
    // At each of its words, as a text that ends it.
    for (at, word) in whole.text.split(' ').enumerate().skip(3) {
        let stops = |draft| GenerateOptions {
            stop: vec![format!(" {word}")],
            draft,
            ..options(60, Sampling::default())
        };
        let (due, told) = (tell(&model, &stops(None)), tell(&model, &stops(draft.clone())));
        assert_eq!((told.text, told.tokens, told.reason), (due.text, due.tokens, due.reason), "word {at}");
    }
    // At the end of the context, and beyond it.
    let (short, drafting) = (LoadOptions { context: Some(48), ..LoadOptions::default() }, draft);
    let model = load(Device::Cpu, &short);
    for overflow in [Overflow::Stop, Overflow::Slide { sinks: 4 }] {
        let told = [None, drafting.clone()].map(|draft| {
            let mut session = model.session();
            session.set_overflow(overflow).unwrap();
            let options = GenerateOptions { draft, ..options(150, Sampling::default()) };
            session.generate(&Prompt::Tokens(STORY.to_vec()), &options).unwrap().finish().unwrap()
        });
        assert_eq!(told[0].tokens, told[1].tokens, "{overflow:?}");
        assert!(told[1].timings.guessed_tokens > 0);
    }
}

#[test]
fn a_session_goes_on_after_a_drafted_answer() {
    let model = load(Device::Cpu, &LoadOptions::default());
    let mut session = model.session();
    let drafted = GenerateOptions { draft: Some(Draft::Lookup), ..options(100, Sampling::default()) };
    let first = session.generate(&Prompt::Tokens(STORY.to_vec()), &drafted).unwrap().finish().unwrap();
    let past = [STORY, &first.tokens, &[300, 301]].concat();
    let again = session.generate(&Prompt::Tokens(past.clone()), &drafted).unwrap().finish().unwrap();
    assert_eq!(
        again.timings.cached_tokens as usize,
        past.len() - 3,
        "all but the last token and what is new"
    );
    let due = model.session().generate(&Prompt::Tokens(past), &options(100, Sampling::default()));
    assert_eq!(again.tokens, due.unwrap().finish().unwrap().tokens);
}

#[test]
fn others_generate_meanwhile() {
    let engine = Engine::new(EngineOptions { device: Device::Cpu, exact: true, ..EngineOptions::default() });
    let path = fixture("stories260k/stories260K-f32.gguf");
    let model = engine.load(&path, &LoadOptions::default(), |_| Ok(())).unwrap();
    // The drafting model is of the same engine: a tick computes for both.
    let other = engine.load(&path, &LoadOptions::default(), |_| Ok(())).unwrap();
    let plain = options(80, Sampling::default());
    let due = tell(&model, &plain).tokens;
    let drafted = GenerateOptions { draft: Some(Draft::Model(other.clone())), ..plain.clone() };
    let mut sessions = [model.session(), model.session(), other.session()];
    let streams = sessions
        .iter_mut()
        .zip([&drafted, &drafted, &plain])
        .map(|(session, options)| session.generate(&Prompt::Tokens(STORY.to_vec()), options).unwrap());
    for finish in crate::engine::run_all(&engine, streams.collect()) {
        assert_eq!(finish.tokens, due);
    }
    let _worker = pocketlm::Worker::start(&engine).unwrap();
    assert_eq!(tell(&model, &drafted).tokens, due);
}

#[test]
fn who_cannot_draft_is_refused() {
    let model = load(Device::Cpu, &LoadOptions::default());
    let refused = |draft| {
        let options = GenerateOptions { draft: Some(draft), ..options(5, Sampling::default()) };
        model.session().generate(&Prompt::Tokens(STORY.to_vec()), &options).unwrap_err().kind()
    };
    assert_eq!(refused(Draft::Model(model.clone())), Kind::InvalidArgument);
    let engine = Engine::new(EngineOptions { device: Device::Cpu, ..EngineOptions::default() });
    let options = LoadOptions { context: Some(64), ..LoadOptions::default() };
    let other = engine.load(real_model(), &options, |_| Ok(())).unwrap();
    assert_eq!(refused(Draft::Model(other)), Kind::InvalidArgument);
}
