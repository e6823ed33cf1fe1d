//! Keys and values in 8 and 4 bits, through the front door: what is refused, what is saved, what is computed again. How far
//! they are from the oracle, `golden` says; what they take, `fit`.

use pocketlm::{
    Device, Engine, EngineOptions, Finish, GenerateOptions, Kind, KvType, LoadOptions, Model, Prompt,
    SaveOptions, Session,
};

use crate::data::fixture;

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
