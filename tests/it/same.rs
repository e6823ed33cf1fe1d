//! Same tokens everywhere. With `exact`, greedy and seeded answers of the real model are the same, token for token, on the
//! CPU with its vector instructions, on the CPU without, and on a GPU; and where a fast path takes another token, the two
//! likeliest were nearly as likely.
//!
//! `./test` asks each path for a few tokens after many prompts, all at once; `./test --all` for long answers.

use std::time::Duration;

use pocketlm::{
    Device, Engine, EngineOptions, GenerateOptions, LoadOptions, Model, Prompt, Sampling, Session, Stream,
};
use serde::Deserialize;

use crate::data::{fixture, limits, real_model, shared};
use crate::engine::run_all_within;
use crate::golden::{DEFAULT, log_softmax};

#[cfg(feature = "wgpu")]
use crate::golden::FLOAT;

/// A way to compute.
#[derive(Clone, Copy, Debug)]
enum Path {
    Vectors,
    Portable,
    #[cfg(feature = "wgpu")]
    Gpu,
}

/// All that this machine has, the reference first.
fn paths() -> Vec<Path> {
    #[cfg(feature = "wgpu")]
    if crate::gpu::gpu().is_some() {
        return vec![Path::Vectors, Path::Portable, Path::Gpu];
    }
    vec![Path::Vectors, Path::Portable]
}

impl Path {
    fn engine(self, exact: bool) -> Engine {
        let device = match self {
            Self::Vectors | Self::Portable => Device::Cpu,
            #[cfg(feature = "wgpu")]
            Self::Gpu => Device::Gpu,
        };
        let portable = matches!(self, Self::Portable);
        let pinned = true;
        let options =
            EngineOptions { device, exact, portable, pinned, limits: limits(), ..EngineOptions::default() };
        Engine::new(options)
    }
}

/// All prompts have a seat at the same time: what they share with the last answer is not computed again.
fn load(engine: &Engine) -> Model {
    let options =
        LoadOptions { context: Some(128), sessions: 24, prefill: 64, outputs: 24, ..LoadOptions::default() };
    engine.load(real_model(), &options, |_| Ok(())).expect("the real model loads")
}

/// The four prompts of the oracle and twenty more.
fn prompts() -> Vec<String> {
    #[derive(Deserialize)]
    struct Oracle {
        prompt: String,
    }
    let read = |path| std::fs::read(path).expect("the prompts can be read");
    let oracle: Vec<Oracle> = serde_json::from_slice(&read(shared("smollm2/oracle.json"))).expect("prompts");
    let more: Vec<String> = serde_json::from_slice(&read(fixture("prompts.json"))).expect("prompts");
    assert_eq!((oracle.len(), more.len()), (4, 20));
    oracle.into_iter().map(|oracle| oracle.prompt).chain(more).collect()
}

fn greedy(tokens: u32) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(tokens), ignore_end: true, ..GenerateOptions::default() }
}

fn seeded(tokens: u32, seed: u64) -> GenerateOptions {
    let sampling = Sampling {
        temperature: Some(1.0),
        top_k: Some(50),
        top_p: Some(0.95),
        seed: Some(seed),
        ..Sampling::default()
    };
    GenerateOptions { sampling, ..greedy(tokens) }
}

/// The answers to every `step`th prompt, computed together.
fn answers(
    engine: &Engine,
    sessions: &mut [Session],
    step: usize,
    options: impl Fn(u64) -> GenerateOptions,
) -> Vec<Vec<u32>> {
    let begun = sessions.iter_mut().zip(prompts()).enumerate().step_by(step);
    let streams: Vec<Stream> = begun
        .map(|(at, (session, prompt))| {
            session.generate(&Prompt::Raw(prompt), &options(at as u64)).expect("an answer begins")
        })
        .collect();
    // Ticks long enough for a row of each answer, whatever the path: a weight is decoded once for all of them.
    run_all_within(engine, streams, Duration::from_secs(10)).into_iter().map(|finish| finish.tokens).collect()
}

fn sessions(model: &Model) -> Vec<Session> {
    prompts().iter().map(|_| model.session()).collect()
}

/// The first answer that differs, and where.
fn difference(a: &[Vec<u32>], b: &[Vec<u32>]) -> Option<(usize, usize)> {
    assert_eq!(a.len(), b.len());
    let first = |(a, b): (&Vec<u32>, &Vec<u32>)| {
        let most = a.len().max(b.len());
        (0..most).find(|&at| a.get(at) != b.get(at))
    };
    a.iter().zip(b).enumerate().find_map(|(prompt, pair)| first(pair).map(|at| (prompt, at)))
}

/// Without vector instructions only every `step`th prompt is answered: they are slow in f32.
#[expect(clippy::print_stderr, reason = "how long each path takes is worth reading")]
fn exact_paths_agree(tokens: u32, step: usize) {
    let mut told: Vec<(Path, usize, Vec<Vec<u32>>)> = Vec::new();
    for path in paths() {
        let begun = std::time::Instant::now();
        let engine = path.engine(true);
        let model = load(&engine);
        let mut sessions = sessions(&model);
        let step = if matches!(path, Path::Portable) { step } else { 1 };
        let mut all = answers(&engine, &mut sessions, step, |_| greedy(tokens));
        all.extend(answers(&engine, &mut sessions, step, |seed| seeded(tokens, seed)));
        assert!(all.iter().all(|answer| answer.len() == tokens as usize));
        eprintln!("{path:?}: {} answers of {tokens} tokens in {:?}", all.len(), begun.elapsed());
        told.push((path, step, all));
    }
    let (first, _, expected) = &told[0];
    let half = expected.len() / 2;
    for (path, step, answers) in &told[1..] {
        let parts = [&expected[..half], &expected[half..]];
        let due: Vec<Vec<u32>> = parts.iter().flat_map(|part| part.iter().step_by(*step).cloned()).collect();
        let split = difference(&due, answers);
        assert_eq!(split, None, "{first:?} and {path:?} part at (answer, token)");
    }
    // Chance was asked, and a single token that differs is seen.
    assert!(difference(&expected[..half], &expected[half..]).is_some(), "seeds change nothing");
    let mut planted = expected.clone();
    *planted[half].last_mut().expect("tokens") += 1;
    assert_eq!(difference(expected, &planted), Some((half, tokens as usize - 1)));
}

#[test]
fn exact_paths_give_the_same_tokens() {
    exact_paths_agree(3, 12);
}

#[test]
#[ignore = "minutes on software Vulkan: ./test --all"]
fn exact_paths_give_the_same_long_answers() {
    exact_paths_agree(16, 1);
}

/// How much likelier the exact path finds its own token than `other`, after the same past.
fn gap(exact: &Model, past: &[u32], other: u32) -> f64 {
    let mut found = f64::NAN;
    let look = |_: usize, logits: &[f32]| {
        let logs = log_softmax(logits);
        let best = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        found = best - logs[other as usize];
        Ok(())
    };
    exact.logits(past, past.len() - 1, look).expect("logits");
    found
}

/// Checks that where fast answers part from the exact ones, the exact path is undecided within `limit`.
fn judge(exact: &Model, expected: &[Vec<u32>], fast: &[Vec<u32>], limit: f64) -> Result<usize, String> {
    let mut splits = 0;
    for (prompt, (expected, fast)) in prompts().iter().zip(expected.iter().zip(fast)) {
        let one = |tokens: &Vec<u32>| vec![tokens.clone()];
        let Some((_, at)) = difference(&one(expected), &one(fast)) else { continue };
        splits += 1;
        let mut past = exact.tokens(&Prompt::Raw(prompt.clone())).expect("tokens");
        past.extend(&expected[..at]);
        let gap = gap(exact, &past, fast[at]);
        if gap.is_nan() || gap > limit {
            return Err(format!(
                "{prompt:?}, token {at}: {} is {gap} less likely than {}",
                fast[at], expected[at]
            ));
        }
    }
    Ok(splits)
}

#[test]
#[expect(clippy::print_stderr, reason = "how often they part is worth reading")]
fn fast_paths_part_only_where_two_tokens_are_nearly_as_likely() {
    let engine = Path::Vectors.engine(true);
    let exact = load(&engine);
    let expected = answers(&engine, &mut sessions(&exact), 1, |_| greedy(6));
    for path in paths() {
        let limit = match path {
            Path::Vectors | Path::Portable => DEFAULT.gap,
            #[cfg(feature = "wgpu")]
            Path::Gpu => FLOAT.gap,
        };
        let engine = path.engine(false);
        let fast = answers(&engine, &mut sessions(&load(&engine)), 1, |_| greedy(6));
        let splits = judge(&exact, &expected, &fast, limit).unwrap_or_else(|why| panic!("{path:?}: {why}"));
        eprintln!("{path:?}: {splits} of {} answers part, where the gap is at most {limit}", fast.len());
        // A token that nobody would say.
        let mut planted = expected.clone();
        planted[5][3] = 0;
        assert!(judge(&exact, &expected, &planted, limit).is_err());
    }
}
