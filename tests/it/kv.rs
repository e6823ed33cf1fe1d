//! Keys and values in 8 and 4 bits, through the front door: what is refused, what is saved, what is computed again. How far
//! they are from the oracle, `golden` says; what they take, `fit`.

use pocketlm::{
    Device, Engine, EngineOptions, Finish, GenerateOptions, Kind, KvType, LoadOptions, Model, Prompt,
    Sampling, SaveOptions, Session,
};

use crate::data::{fixture, limits};

const STORY: &str = "Once upon a time";

fn load(device: Device, kv_type: KvType) -> Model {
    let engine = Engine::new(EngineOptions { device, ..EngineOptions::default() });
    let options = LoadOptions { kv_type: Some(kv_type), ..LoadOptions::default() };
    engine.load(fixture("stories260k/stories260K-f32.gguf"), &options, |_| Ok(())).expect("the model loads")
}

/// The devices that tests run on.
fn devices() -> Vec<Device> {
    #[cfg(feature = "wgpu")]
    if crate::gpu::gpu().is_some() {
        return vec![Device::Cpu, Device::Gpu];
    }
    vec![Device::Cpu]
}

fn told(session: &mut Session, prompt: &Prompt, count: u32) -> Finish {
    let options = GenerateOptions { max_tokens: Some(count), ignore_end: true, ..GenerateOptions::default() };
    session.generate(prompt, &options).expect("a story begins").finish().expect("a story ends")
}

#[test]
fn exact_and_few_bits_exclude_each_other() {
    let engine =
        |exact| Engine::new(EngineOptions { device: Device::Cpu, exact, ..EngineOptions::default() });
    let path = fixture("stories260k/stories260K-f32.gguf");
    for &kv_type in KvType::ALL {
        let options = LoadOptions { kv_type: Some(kv_type), ..LoadOptions::default() };
        let asked = engine(true).estimate(&path, &options);
        match kv_type {
            KvType::F32 => assert!(asked.is_ok()),
            _ => {
                let error = asked.expect_err("not exact");
                assert_eq!(error.kind(), Kind::InvalidArgument);
                assert!(error.to_string().contains(kv_type.name()), "{error}");
            }
        }
        assert_eq!(engine(false).estimate(&path, &options).unwrap().kv_type, kv_type);
    }
    let default = |exact| engine(exact).estimate(&path, &LoadOptions::default()).unwrap().kv_type;
    assert_eq!((default(true), default(false)), (KvType::F32, KvType::F16));
}

#[test]
fn saved_pages_are_taken_by_their_own_type_alone() {
    for &kv_type in KvType::BLOCKS {
        let model = load(Device::Cpu, kv_type);
        let mut session = model.session();
        let first = told(&mut session, &Prompt::Raw(STORY.into()), 100);
        let past = Prompt::Tokens([first.prompt_tokens, first.tokens].concat());
        let bytes = session.to_bytes(&SaveOptions { kv: true }).unwrap();
        let whole = told(&mut session, &past, 60);
        for &other in KvType::ALL {
            let mut restored = load(Device::Cpu, other).restore_bytes(bytes.clone()).unwrap();
            let again = told(&mut restored, &past, 60);
            let cached = again.timings.cached_tokens;
            assert_eq!(cached > 0, other == kv_type, "{kv_type:?} in {other:?}: {cached}");
            assert!(other != kv_type || again.tokens == whole.tokens, "{kv_type:?}");
        }
    }
}

/// A model with places for sessions of each type that a device has.
fn load_all(device: Device, context: u32) -> Model {
    let engine = Engine::new(EngineOptions { device, limits: limits(), ..EngineOptions::default() });
    let more_sessions = vec![(KvType::Q8, 1), (KvType::Q4, 2), (KvType::F32, 1)];
    let options =
        LoadOptions { context: Some(context), sessions: 1, more_sessions, ..LoadOptions::default() };
    engine.load(fixture("stories260k/stories260K-f32.gguf"), &options, |_| Ok(())).expect("the model loads")
}

fn session_in(model: &Model, kv_type: KvType) -> Session {
    let mut session = model.session();
    session.set_kv_type(kv_type).expect("there are places");
    assert_eq!(session.kv_type(), kv_type);
    session
}

fn options(count: u32, seed: Option<u64>) -> GenerateOptions {
    let sampling = match seed {
        None => Sampling::default(),
        Some(_) => Sampling { temperature: Some(1.0), top_k: Some(40), seed, ..Sampling::default() },
    };
    GenerateOptions { max_tokens: Some(count), ignore_end: true, sampling, ..GenerateOptions::default() }
}

/// Sessions of all types at once, each greedy and with chance: every answer is that of a model of this type alone.
fn side_by_side(device: Device) {
    let due: Vec<Vec<u32>> = KvType::ALL
        .iter()
        .flat_map(|&kv_type| {
            let alone = load(device, kv_type);
            [None, Some(3)].map(|seed| {
                let prompt = Prompt::Raw(STORY.into());
                alone.session().generate(&prompt, &options(40, seed)).unwrap().finish().unwrap().tokens
            })
        })
        .collect();
    assert!(due[4] != due[6] || due[5] != due[7], "8 and 4 bits differ");
    let model = load_all(device, 128);
    // More sessions than places: they take turns for those of their type.
    let mut sessions: Vec<(Session, Option<u64>)> = KvType::ALL
        .iter()
        .flat_map(|&kv_type| [None, Some(3)].map(|seed| (session_in(&model, kv_type), seed)))
        .collect();
    for round in 0..2 {
        let streams: Vec<_> = sessions
            .iter_mut()
            .map(|(session, seed)| session.generate(&Prompt::Raw(STORY.into()), &options(40, *seed)).unwrap())
            .collect();
        if round == 1 {
            model.lose_device().expect("it comes back");
        }
        // All are under way before any is at its end.
        let tokens: Vec<Vec<u32>> =
            streams.into_iter().map(|stream| stream.finish().unwrap().tokens).collect();
        assert_eq!(tokens, due, "{device:?}, round {round}");
    }
}

#[test]
fn sessions_of_all_types_share_a_model() {
    devices().into_iter().for_each(side_by_side);
}

#[test]
fn a_session_changes_its_type_and_says_what_one_of_that_type_says() {
    let model = load_all(Device::Cpu, 256);
    let mut session = model.session();
    assert_eq!(session.kv_type(), KvType::F16);
    let first = told(&mut session, &Prompt::Raw(STORY.into()), 60);
    let past = Prompt::Tokens([first.prompt_tokens, first.tokens].concat());
    let mut alone = load(Device::Cpu, KvType::Q4).session();
    let due = told(&mut alone, &past, 40).tokens;
    session.set_kv_type(KvType::Q4).unwrap();
    // What was computed in another type counts for nothing, what is computed in this one is used.
    let changed = told(&mut session, &past, 40);
    assert_eq!((changed.timings.cached_tokens, &changed.tokens), (0, &due));
    session.set_kv_type(KvType::Q4).unwrap();
    let again = told(&mut session, &past, 40);
    assert_eq!((again.timings.cached_tokens > 32, &again.tokens), (true, &due));
    // A branch stays where it shares pages, and goes its way where it does not.
    let mut branch = session.branch();
    assert_eq!(branch.kv_type(), KvType::Q4);
    let shared = told(&mut branch, &past, 40);
    assert_eq!((shared.timings.cached_tokens >= 32, &shared.tokens), (true, &due));
    branch.set_kv_type(KvType::F32).unwrap();
    assert_eq!(told(&mut branch, &past, 40).timings.cached_tokens, 0);
    assert_eq!(told(&mut session, &past, 40).tokens, due);
}

/// Who wants a place takes it from one of its own type.
#[test]
fn places_of_one_type_are_no_concern_of_another() {
    let model = load_all(Device::Cpu, 128);
    let mut idle = session_in(&model, KvType::Q8);
    let first = told(&mut idle, &Prompt::Raw(STORY.into()), 60);
    let past = Prompt::Tokens([first.prompt_tokens, first.tokens].concat());
    let [mut one, mut other] = [KvType::F16; 2].map(|kv_type| session_in(&model, kv_type));
    for session in [&mut one, &mut other] {
        assert_eq!(told(session, &past, 5).timings.cached_tokens, 0);
    }
    // There is one place of that type, and the other has it.
    assert_eq!(told(&mut one, &past, 5).timings.cached_tokens, 0);
    assert!(told(&mut idle, &past, 5).timings.cached_tokens > 60, "nobody took its place");
}

#[test]
fn a_saved_session_comes_back_to_its_type() {
    let model = load_all(Device::Cpu, 256);
    for &kv_type in KvType::ALL {
        let mut session = session_in(&model, kv_type);
        let first = told(&mut session, &Prompt::Raw(STORY.into()), 100);
        let past = Prompt::Tokens([first.prompt_tokens, first.tokens].concat());
        let bytes = [false, true].map(|kv| session.to_bytes(&SaveOptions { kv }).unwrap());
        let whole = told(&mut session, &past, 40).tokens;
        drop(session);
        for (kv, bytes) in [false, true].into_iter().zip(bytes) {
            let mut restored = model.restore_bytes(bytes.clone()).unwrap();
            assert_eq!(restored.kv_type(), kv_type);
            let again = told(&mut restored, &past, 40);
            assert_eq!((again.timings.cached_tokens > 0, again.tokens), (kv, whole.clone()), "{kv_type:?}");
            // A model without such places has it where all are.
            let other = if kv_type == KvType::F16 { KvType::Q8 } else { KvType::F16 };
            let restored = load(Device::Cpu, other).restore_bytes(bytes).unwrap();
            assert_eq!(restored.kv_type(), other);
        }
    }
}

#[test]
fn places_that_are_not_there_are_refused() {
    let model = load(Device::Cpu, KvType::Q8);
    let mut session = model.session();
    let refused = session.set_kv_type(KvType::F16).expect_err("no places");
    assert_eq!(refused.kind(), Kind::InvalidArgument);
    assert!(refused.to_string().contains("f16"), "{refused}");
    assert_eq!(session.kv_type(), KvType::Q8);
    session.set_kv_type(KvType::Q8).unwrap();
    // Not in the middle of an answer.
    let model = load_all(Device::Cpu, 128);
    let mut session = model.session();
    let mut stream = session.generate(&Prompt::Raw(STORY.into()), &options(40, None)).unwrap();
    stream.next().unwrap().unwrap();
    assert_eq!(session.set_kv_type(KvType::Q4).unwrap_err().kind(), Kind::SessionBusy);
    stream.finish().unwrap();
    session.set_kv_type(KvType::Q4).unwrap();
    let engine =
        |exact| Engine::new(EngineOptions { device: Device::Cpu, exact, ..EngineOptions::default() });
    let asked = |exact, more_sessions| {
        let options = LoadOptions { more_sessions, ..LoadOptions::default() };
        engine(exact).estimate(fixture("stories260k/stories260K-f32.gguf"), &options)
    };
    for (exact, more) in [
        (true, vec![(KvType::Q8, 1)]),
        (false, vec![(KvType::Q8, 0)]),
        (false, vec![(KvType::Q8, 1023)]),
        (false, vec![(KvType::Q8, u32::MAX), (KvType::Q8, u32::MAX)]),
    ] {
        assert_eq!(asked(exact, more.clone()).unwrap_err().kind(), Kind::InvalidArgument, "{more:?}");
    }
    // What they take is known before, and more of the type that is usual is more of the same.
    let [plain, more, same] = [vec![], vec![(KvType::Q8, 3), (KvType::Q4, 1)], vec![(KvType::F16, 2)]]
        .map(|more| asked(false, more).unwrap());
    let of = |kv_type, sessions| {
        let options = LoadOptions { kv_type: Some(kv_type), sessions, ..LoadOptions::default() };
        engine(false).estimate(fixture("stories260k/stories260K-f32.gguf"), &options).unwrap().kv
    };
    assert_eq!(more.kv, plain.kv + of(KvType::Q8, 3) + of(KvType::Q4, 1));
    assert_eq!(more.more_sessions, [(KvType::Q8, 3), (KvType::Q4, 1)]);
    assert_eq!((same.kv, same.sessions, same.more_sessions), (2 * plain.kv, 4, vec![]));
}

/// A small model is sensitive; 8 bits are near enough for its words.
#[test]
fn eight_bits_tell_the_same_story() {
    for device in devices() {
        let told =
            |kv_type| told(&mut load(device, kv_type).session(), &Prompt::Raw(STORY.into()), 40).tokens;
        assert_eq!(told(KvType::Q8), told(KvType::F32), "{device:?}");
        assert_eq!(told(KvType::Q4).len(), 40);
    }
}
