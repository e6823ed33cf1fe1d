//! Laws of the engine, on the stories model: however the work is cut, shared, stopped or moved, the tokens are the same.

use std::time::{Duration, Instant};

use pocketlm::format::Checkpoint;
use pocketlm::{
    Device, Engine, EngineOptions, Event, Finish, FinishReason, GenerateOptions, Kind, LoadOptions, Model,
    Prompt, Sampling, Stream, Worker,
};

use crate::data::{fixture, limits};

const STORY: &str = "Once upon a time";

fn engine(device: Device) -> Engine {
    Engine::new(EngineOptions {
        device,
        exact: true,
        checked: true,
        limits: limits(),
        ..EngineOptions::default()
    })
}

fn load(engine: &Engine, options: &LoadOptions) -> Model {
    engine
        .load(fixture("stories260k/stories260K-f32.gguf"), options, |_| Ok(()))
        .expect("the stories model loads")
}

fn cpu(options: &LoadOptions) -> Model {
    load(&engine(Device::Cpu), options)
}

fn tokens(count: u32) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(count), ..GenerateOptions::default() }
}

fn tell(model: &Model, prompt: &str, count: u32) -> Finish {
    let stream = model.session().generate(&Prompt::Raw(prompt.into()), &tokens(count));
    stream.expect("a story begins").finish().expect("a story ends")
}

/// Ticks `engine` until every stream has ended.
pub(crate) fn run_all(engine: &Engine, streams: Vec<Stream>) -> Vec<Finish> {
    run_all_within(engine, streams, Duration::from_millis(1))
}

/// [`run_all`] by ticks of `budget`: the longer, the more rows are computed at once.
pub(crate) fn run_all_within(engine: &Engine, streams: Vec<Stream>, budget: Duration) -> Vec<Finish> {
    let mut running: Vec<(Stream, Option<Finish>)> =
        streams.into_iter().map(|stream| (stream, None)).collect();
    while running.iter().any(|(_, finish)| finish.is_none()) {
        engine.tick(budget).expect("the device computes");
        for (stream, finish) in &mut running {
            while let Some(event) = stream.try_next() {
                if let Event::Finished(end) = event.expect("no story fails") {
                    *finish = Some(end);
                }
            }
        }
    }
    running.into_iter().filter_map(|(_, finish)| finish).collect()
}

#[test]
fn a_prompt_in_chunks_is_the_prompt_at_once() {
    let prompt = tell(&cpu(&LoadOptions::default()), STORY, 100);
    for prefill in [1, 2, 3, 7, 32] {
        let model = cpu(&LoadOptions { prefill, ..LoadOptions::default() });
        let mut past = prompt.prompt_tokens.clone();
        past.extend(&prompt.tokens);
        let finish = model.session().generate(&Prompt::Tokens(past), &tokens(50)).unwrap().finish().unwrap();
        let whole = tell(&cpu(&LoadOptions::default()), STORY, 150);
        assert_eq!(finish.tokens, whole.tokens[100..], "chunks of {prefill}");
    }
}

#[test]
fn together_is_alone() {
    let engine = engine(Device::Cpu);
    let model = load(&engine, &LoadOptions { sessions: 3, prefill: 8, outputs: 2, ..LoadOptions::default() });
    let prompts = ["Once upon a time", "The little dog was very", "Tom"];
    let alone: Vec<Finish> = prompts.iter().map(|prompt| tell(&model, prompt, 60)).collect();
    let mut sessions: Vec<_> = prompts.iter().map(|_| model.session()).collect();
    let streams = sessions.iter_mut().zip(prompts);
    let streams =
        streams.map(|(session, prompt)| session.generate(&Prompt::Raw(prompt.into()), &tokens(60)).unwrap());
    let together = run_all(&engine, streams.collect());
    for (alone, together) in alone.iter().zip(&together) {
        assert_eq!(alone.text, together.text);
        assert_eq!(alone.tokens, together.tokens);
    }
}

#[test]
fn one_seat_for_many_sessions_changes_nothing() {
    let engine = engine(Device::Cpu);
    let model = load(&engine, &LoadOptions { sessions: 1, ..LoadOptions::default() });
    let long = tell(&model, STORY, 80);
    let mut first = model.session();
    let mut second = model.session();
    let begun = first.generate(&Prompt::Raw(STORY.into()), &tokens(40)).unwrap().finish().unwrap();
    second.generate(&Prompt::Raw("Tom".into()), &tokens(20)).unwrap().finish().unwrap();
    let mut past = begun.prompt_tokens;
    past.extend(begun.tokens);
    // Its seat went to the second session: all of the past is computed again, and nothing differs.
    let continued = first.generate(&Prompt::Tokens(past), &tokens(40)).unwrap().finish().unwrap();
    assert_eq!(continued.timings.cached_tokens, 0);
    assert_eq!(continued.tokens, long.tokens[40..]);
    let streams =
        [&mut first, &mut second].map(|s| s.generate(&Prompt::Raw(STORY.into()), &tokens(30)).unwrap());
    assert!(run_all(&engine, streams.into()).iter().all(|finish| finish.tokens == long.tokens[..30]));
}

#[test]
fn what_is_common_is_computed_once() {
    let model = cpu(&LoadOptions::default());
    let mut session = model.session();
    let first = session.generate(&Prompt::Raw(STORY.into()), &tokens(30)).unwrap().finish().unwrap();
    let mut past = first.prompt_tokens.clone();
    past.extend(&first.tokens);
    let second = session.generate(&Prompt::Tokens(past.clone()), &tokens(30)).unwrap().finish().unwrap();
    // The last token of an answer is not computed before something follows it.
    assert_eq!(second.timings.cached_tokens as usize, past.len() - 1);
    assert_eq!(second.tokens, tell(&model, STORY, 60).tokens[30..]);
    // Another ending of the same beginning does not see the old one.
    past.truncate(12);
    past.push(50);
    let branched = session.generate(&Prompt::Tokens(past.clone()), &tokens(30)).unwrap().finish().unwrap();
    assert_eq!(branched.timings.cached_tokens, 12);
    let fresh = model.session().generate(&Prompt::Tokens(past), &tokens(30)).unwrap().finish().unwrap();
    assert_eq!(branched.tokens, fresh.tokens);
}

#[test]
fn cancelled_and_continued_is_never_cancelled() {
    let model = cpu(&LoadOptions::default());
    let whole = tell(&model, STORY, 60);
    let mut session = model.session();
    let mut stream = session.generate(&Prompt::Raw(STORY.into()), &tokens(60)).unwrap();
    let cancel = stream.cancel_handle();
    let mut texts = 0;
    let finish = loop {
        match stream.next().expect("an event").expect("no error") {
            Event::Text(_) => texts += 1,
            Event::Finished(finish) => break finish,
            _ => {}
        }
        if texts == 10 {
            std::thread::scope(|scope| scope.spawn(|| cancel.cancel()).join().expect("cancels"));
        }
    };
    assert_eq!(finish.reason, FinishReason::Cancelled);
    assert!(finish.tokens.len() < 30 && whole.text.starts_with(&finish.text), "{:?}", finish.text);
    let mut past = finish.prompt_tokens;
    past.extend(&finish.tokens);
    let rest = tokens(60 - finish.tokens.len() as u32);
    let continued = session.generate(&Prompt::Tokens(past), &rest).unwrap().finish().unwrap();
    assert_eq!([finish.tokens, continued.tokens].concat(), whole.tokens);
}

#[test]
fn a_dropped_stream_frees_its_session() {
    let model = cpu(&LoadOptions::default());
    let mut session = model.session();
    let mut stream = session.generate(&Prompt::Raw(STORY.into()), &tokens(60)).unwrap();
    stream.next().unwrap().unwrap();
    let busy = session.generate(&Prompt::Raw(STORY.into()), &tokens(60)).unwrap_err();
    assert_eq!(busy.kind(), Kind::SessionBusy);
    drop(stream);
    let again = session.generate(&Prompt::Raw(STORY.into()), &tokens(60));
    assert_eq!(again.expect("free again").finish().unwrap().tokens, tell(&model, STORY, 60).tokens);
}

#[test]
fn a_context_that_is_full_says_so() {
    let model = cpu(&LoadOptions { context: Some(32), ..LoadOptions::default() });
    let finish = tell(&model, STORY, 1000);
    assert_eq!(finish.reason, FinishReason::Length);
    assert_eq!(finish.prompt_tokens.len() + finish.tokens.len(), 32);
    let long = Prompt::Tokens(vec![50; 33]);
    let error = model.session().generate(&long, &tokens(1)).unwrap_err();
    assert_eq!(error.kind(), Kind::ContextOverflow);
    assert!(error.to_string().contains("33") && error.to_string().contains("32"), "{error}");
}

#[test]
fn absurd_requests_are_refused() {
    let model = cpu(&LoadOptions::default());
    let refused = |prompt: Prompt, options: GenerateOptions| {
        let error = model.session().generate(&prompt, &options).unwrap_err();
        assert!(matches!(error.kind(), Kind::InvalidArgument | Kind::Template), "{error}");
    };
    refused(Prompt::Tokens(vec![]), tokens(1));
    refused(Prompt::Tokens(vec![1, 512]), tokens(1));
    refused(Prompt::Raw(STORY.into()), tokens(0));
    refused(Prompt::user("hello"), tokens(1));
    refused(Prompt::Raw(STORY.into()), GenerateOptions { stop: vec![String::new()], ..tokens(1) });
    let hot = Sampling { temperature: Some(f32::NAN), ..Sampling::default() };
    refused(Prompt::Raw(STORY.into()), GenerateOptions { sampling: hot, ..tokens(1) });
    for options in [
        LoadOptions { context: Some(0), ..LoadOptions::default() },
        LoadOptions { context: Some(u32::MAX), ..LoadOptions::default() },
        LoadOptions { sessions: 0, ..LoadOptions::default() },
        LoadOptions { prefill: u32::MAX, ..LoadOptions::default() },
    ] {
        let path = fixture("stories260k/stories260K-f32.gguf");
        let error = engine(Device::Cpu).load(path, &options, |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{options:?}");
    }
}

#[test]
fn a_load_can_be_stopped() {
    let stop = |_| Err(pocketlm::Error::new(Kind::Cancelled, "the user changed their mind"));
    let path = fixture("stories260k/stories260K-f32.gguf");
    let error = engine(Device::Cpu).load(path, &LoadOptions::default(), stop).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
}

#[test]
fn stop_strings_end_an_answer_before_them() {
    let model = cpu(&LoadOptions::default());
    let whole = tell(&model, STORY, 60);
    let stop = whole.text.split_whitespace().nth(8).expect("nine words").to_owned();
    let options = GenerateOptions { stop: vec![stop.clone()], ..tokens(60) };
    let finish = model.session().generate(&Prompt::Raw(STORY.into()), &options).unwrap().finish().unwrap();
    assert_eq!(finish.reason, FinishReason::Stop);
    assert_eq!(finish.text, whole.text[..whole.text.find(&stop).expect("it is there")]);
}

#[test]
fn a_seed_gives_one_story_and_another_seed_another() {
    let model = cpu(&LoadOptions::default());
    let told = |seed, top_k, repeat_penalty| {
        let sampling = Sampling {
            temperature: Some(1.0),
            top_k,
            repeat_penalty,
            seed: Some(seed),
            ..Sampling::default()
        };
        let options = GenerateOptions { sampling, ..tokens(40) };
        model.session().generate(&Prompt::Raw(STORY.into()), &options).unwrap().finish().unwrap().tokens
    };
    assert_eq!(told(1, Some(40), None), told(1, Some(40), None));
    assert_ne!(told(1, Some(40), None), told(2, Some(40), None));
    assert_eq!(told(3, None, Some(1.1)), told(3, None, Some(1.1)));
    // The device's list of the largest logits and all of them give the same draw.
    assert_eq!(told(4, Some(64), None), told(4, Some(64), Some(1.000_000_1)));
}

#[test]
fn a_worker_ticks_and_stops() {
    let engine = engine(Device::Cpu);
    let model = load(&engine, &LoadOptions::default());
    let alone = tell(&model, STORY, 60);
    let worker = Worker::start(&engine).unwrap();
    let mut sessions = [model.session(), model.session()];
    let streams = sessions.each_mut().map(|s| s.generate(&Prompt::Raw(STORY.into()), &tokens(60)).unwrap());
    for stream in streams {
        assert_eq!(stream.finish().unwrap().tokens, alone.tokens);
    }
    let begun = Instant::now();
    drop(worker);
    assert!(begun.elapsed() < Duration::from_secs(5), "a worker stops when told");
    assert_eq!(tell(&model, STORY, 60).tokens, alone.tokens);
}

/// The stories model with one row of its head changed, and another to the opposite.
fn with_logits(value: f32) -> Vec<u8> {
    let path = fixture("stories260k/stories260K-f32.gguf");
    let tensors = Checkpoint::open(&path).unwrap().tensors;
    let head = tensors.get("output.weight").or_else(|| tensors.get("token_embd.weight")).expect("a head");
    let mut bytes = std::fs::read(&path).unwrap();
    let row = 4 * head.dims[1] as usize;
    for (token, value) in [(400, value), (401, -value)] {
        let at = head.offset as usize + token * row;
        bytes[at..at + row].copy_from_slice(&value.to_le_bytes().repeat(row / 4));
    }
    bytes
}

#[test]
fn logits_that_are_no_numbers_end_an_answer_with_an_error() {
    let greedy = Sampling { temperature: Some(0.0), ..Sampling::default() };
    let on_device =
        Sampling { temperature: Some(0.8), top_k: Some(40), seed: Some(3), ..Sampling::default() };
    let on_host = Sampling { repeat_penalty: Some(1.1), ..on_device.clone() };
    let gpu = cfg!(feature = "wgpu").then_some(Device::Gpu);
    for device in [Device::Cpu].into_iter().chain(gpu) {
        for (value, is_wrong) in [(f32::NAN, true), (1e38, true), (0.25, false)] {
            let engine = engine(device);
            let model = engine.load_bytes("planted", with_logits(value), &LoadOptions::default(), |_| Ok(()));
            let model = model.expect("the model loads");
            for sampling in [&greedy, &on_device, &on_host] {
                let options = GenerateOptions { sampling: sampling.clone(), ..tokens(20) };
                let end = model.session().generate(&Prompt::Raw(STORY.into()), &options).unwrap().finish();
                match is_wrong {
                    true => assert_eq!(end.unwrap_err().kind(), Kind::WrongNumbers, "{value}, {sampling:?}"),
                    false => assert_eq!(end.unwrap().tokens.len(), 20),
                }
            }
            let scored = model.logits(&[1, 2, 3], 0, |_, _| Ok(()));
            assert_eq!(scored.err().map(|error| error.kind()), is_wrong.then_some(Kind::WrongNumbers));
        }
    }
}

#[cfg(feature = "wgpu")]
#[test]
fn the_gpu_runs_ahead_to_the_tokens_of_the_cpu() {
    let sampling = Sampling {
        temperature: Some(1.2),
        top_k: Some(40),
        top_p: Some(0.95),
        min_p: Some(0.02),
        seed: Some(5),
        ..Sampling::default()
    };
    let told = |device| {
        let engine = engine(device);
        let model = load(&engine, &LoadOptions { sessions: 2, ..LoadOptions::default() });
        let mut sessions = [model.session(), model.session()];
        let drawn = GenerateOptions { sampling: sampling.clone(), ..tokens(60) };
        let both = sessions.each_mut().into_iter().zip([drawn, tokens(45)]);
        let streams =
            both.map(|(session, options)| session.generate(&Prompt::Raw(STORY.into()), &options).unwrap());
        let finishes = run_all(&engine, streams.collect());
        let meter = model.info().device.meter.clone();
        let drained = meter.drains();
        // One stops with tokens under way, and goes on to something else.
        let stop = finishes[1].text.split_whitespace().nth(8).expect("nine words").to_owned();
        let options = GenerateOptions { stop: vec![stop], ..tokens(60) };
        let [mut session, _] = sessions;
        let stopped = session.generate(&Prompt::Raw(STORY.into()), &options).unwrap().finish().unwrap();
        assert_eq!(stopped.reason, FinishReason::Stop);
        let past = [&stopped.prompt_tokens[..], &stopped.tokens, &[300, 301]].concat();
        let options = GenerateOptions { sampling: sampling.clone(), ..tokens(30) };
        let continued = session.generate(&Prompt::Tokens(past), &options).unwrap().finish().unwrap();
        assert!(continued.timings.cached_tokens > 0);
        let count = stopped.tokens.len() + continued.tokens.len();
        let ends = finishes.into_iter().chain([stopped, continued]);
        let ends: Vec<Vec<u32>> = ends.map(|finish| finish.tokens).collect();
        (ends, count, meter.drains() - drained)
    };
    let (ends, _, _) = told(Device::Cpu);
    let (ends_on_gpu, count, drains) = told(Device::Gpu);
    assert_eq!(ends, ends_on_gpu);
    // For the first token of each answer, and the last.
    assert!(drains <= 4, "the device was drained {drains} times for {count} tokens");
}

#[cfg(feature = "wgpu")]
#[test]
fn the_gpu_tells_the_story_of_the_cpu() {
    let told = |device| {
        let model = load(&engine(device), &LoadOptions::default());
        model.session().generate(&Prompt::Raw(String::new()), &tokens(200)).unwrap().finish().unwrap()
    };
    let (cpu, gpu) = (told(Device::Cpu), told(Device::Gpu));
    assert_eq!(cpu.text, gpu.text);
    assert_eq!(cpu.tokens, gpu.tokens);
    assert!(cpu.text.contains("Once upon a time"), "coherent English: {}", cpu.text);
}

#[test]
fn a_worker_lets_others_in() {
    let engine = engine(Device::Cpu);
    let model = load(&engine, &LoadOptions { sessions: 3, ..LoadOptions::default() });
    let worker = Worker::start(&engine).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A sequence of answers that keeps the worker busy from end to end.
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                tell(&model, STORY, 200);
            }
        });
        let longest = (0..50).map(|_| {
            let begun = Instant::now();
            drop(model.health());
            begun.elapsed()
        });
        let longest = longest.max().unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        // A share of the worker's time is 20 ms; where it let nobody in, eleven of them were seen.
        assert!(longest < Duration::from_millis(500), "{longest:?}");
    });
    drop(worker);
}
