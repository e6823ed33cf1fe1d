//! How tokens are chosen, as the engine does it: what a chain remembers survives, and what it bars never comes.

use pocketlm::{
    Device, Dry, Engine, EngineOptions, Event, Finish, GenerateOptions, LoadOptions, Mirostat, Model, Prompt,
    Sampling, SaveOptions, Xtc,
};
use sha2::{Digest, Sha256};

use crate::data::fixture;

const STORY: &str = "Once upon a time";

fn load() -> Model {
    let engine = Engine::new(EngineOptions { device: Device::Cpu, exact: true, ..EngineOptions::default() });
    engine.load(fixture("stories260k/stories260K-f32.gguf"), &LoadOptions::default(), |_| Ok(())).unwrap()
}

fn options(sampling: Sampling) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(60), sampling, ..GenerateOptions::default() }
}

fn tell(model: &Model, sampling: &Sampling) -> Finish {
    let stream = model.session().generate(&Prompt::Raw(STORY.into()), &options(sampling.clone()));
    stream.unwrap().finish().unwrap()
}

fn mirostat() -> Sampling {
    let mirostat = Some(Mirostat { tau: 2.0, eta: 0.4 });
    Sampling { mirostat, temperature: Some(1.2), seed: Some(9), ..Sampling::default() }
}

/// A session that was saved after some words of an answer.
fn saved(model: &Model, sampling: &Sampling) -> Vec<u8> {
    let mut session = model.session();
    let mut stream = session.generate(&Prompt::Raw(STORY.into()), &options(sampling.clone())).unwrap();
    let mut texts = 0;
    while texts < 12 {
        texts += u32::from(matches!(stream.next().unwrap().unwrap(), Event::Text(_)));
    }
    session.to_bytes(&SaveOptions::default()).unwrap()
}

fn proceed(bytes: Vec<u8>, sampling: &Sampling) -> Vec<u32> {
    let mut session = load().restore_bytes(bytes).unwrap();
    session.proceed(&options(sampling.clone())).unwrap().finish().unwrap().tokens
}

#[test]
fn what_mirostat_knows_is_saved() {
    let model = load();
    let whole = tell(&model, &mirostat()).tokens;
    let bytes = saved(&model, &mirostat());
    assert_eq!(proceed(bytes.clone(), &mirostat()), whole);
    // Without its memory it goes on otherwise: as a session that was saved by another sampling's leave.
    let plain = Sampling { mirostat: None, ..mirostat() };
    let forgetful = proceed(bytes.clone(), &plain);
    let prefix = whole.iter().zip(&forgetful).take_while(|(a, b)| a == b).count();
    assert!(prefix >= 12 && forgetful != whole, "{prefix}");
}

/// A session of the first layout, which knew neither a limit nor what slides nor a type of keys and values, is read.
#[test]
fn an_older_session_goes_on() {
    let model = load();
    let greedy = Sampling::default();
    let mut bytes = saved(&model, &greedy);
    bytes.truncate(bytes.len() - 32);
    // Before the last byte, which says that no keys follow, stands that there is no limit.
    assert_eq!(bytes.pop(), Some(0));
    assert_eq!(bytes.pop(), Some(0));
    bytes.push(0);
    // Nor how keys and values are stored.
    assert_eq!(bytes.drain(52..54).collect::<Vec<_>>(), [0, 1]);
    bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
    let total = bytes.len() as u64 + 32;
    bytes[12..20].copy_from_slice(&total.to_le_bytes());
    let sum = Sha256::digest(&bytes);
    bytes.extend(sum);
    assert_eq!(proceed(bytes, &greedy), tell(&model, &greedy).tokens);
}

#[test]
fn biases_penalties_and_exclusions_change_the_story() {
    let model = load();
    let plain = tell(&model, &Sampling::default());
    // Barred tokens never come.
    let barred: Vec<(u32, f32)> = plain.tokens.iter().map(|&token| (token, f32::NEG_INFINITY)).collect();
    let other = tell(&model, &Sampling { logit_bias: barred, ..Sampling::default() });
    assert!(other.tokens.iter().all(|token| !plain.tokens.contains(token)));
    let told = [
        Sampling { frequency_penalty: Some(1.5), ..Sampling::default() },
        Sampling { presence_penalty: Some(3.0), ..Sampling::default() },
        Sampling { dry: Some(Dry { multiplier: 5.0, allowed: 1, ..Dry::default() }), ..Sampling::default() },
        Sampling {
            xtc: Some(Xtc { probability: 1.0, threshold: 0.1 }),
            seed: Some(1),
            ..Sampling::default()
        },
        Sampling { typical_p: Some(0.3), seed: Some(1), ..Sampling::default() },
    ];
    for sampling in told {
        let finish = tell(&model, &sampling);
        assert_ne!(finish.tokens, plain.tokens, "{sampling:?}");
        assert_eq!(finish.tokens, tell(&model, &sampling).tokens, "{sampling:?}");
    }
    // No three tokens come twice where two are dear already, but over a breaker.
    let dry = Some(Dry { multiplier: 50.0, allowed: 2, ..Dry::default() });
    let finish = tell(&model, &Sampling { dry, ..Sampling::default() });
    let twice = finish
        .tokens
        .windows(3)
        .enumerate()
        .filter(|(i, part)| finish.tokens[..i + 2].windows(3).any(|before| before == *part));
    assert_eq!(twice.count(), 0, "{}", finish.text);
}
