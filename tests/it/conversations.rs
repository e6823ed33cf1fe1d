//! Sessions that go on: computed ahead, branched, longer than their context, condensed. Whatever is shared or forgotten, the
//! tokens are those of a session that computed all it sees by itself.

use std::sync::{Arc, Mutex};

use pocketlm::{
    Device, Engine, EngineOptions, Event, Finish, FinishReason, GenerateOptions, Kind, LoadOptions, Message,
    Model, Overflow, Prompt, Sampling, SaveOptions, Session, forget_oldest,
};

use crate::data::{fixture, limits, real_model};

const SLIDE: Overflow = Overflow::Slide { sinks: 4 };

fn load(device: Device, options: &LoadOptions) -> Model {
    let options_of_engine =
        EngineOptions { device, exact: true, limits: limits(), ..EngineOptions::default() };
    let engine = Engine::new(options_of_engine);
    engine
        .load(fixture("stories260k/stories260K-f32.gguf"), options, |_| Ok(()))
        .expect("the stories model loads")
}

fn stories(context: u32, sessions: u32) -> Model {
    load(Device::Cpu, &LoadOptions { context: Some(context), sessions, ..LoadOptions::default() })
}

fn chat_model(context: u32) -> Model {
    let engine = Engine::new(EngineOptions { device: Device::Cpu, ..EngineOptions::default() });
    let options = LoadOptions { context: Some(context), ..LoadOptions::default() };
    engine.load(real_model(), &options, |_| Ok(())).expect("the real model loads")
}

fn tokens(count: u32) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(count), ignore_end: true, ..GenerateOptions::default() }
}

fn seeded(count: u32) -> GenerateOptions {
    let sampling = Sampling { temperature: Some(1.0), top_k: Some(40), seed: Some(5), ..Sampling::default() };
    GenerateOptions { sampling, ..tokens(count) }
}

fn go_on(session: &mut Session, past: &[u32], options: &GenerateOptions) -> Finish {
    session.generate(&Prompt::Tokens(past.to_vec()), options).unwrap().finish().unwrap()
}

fn story() -> Vec<u32> {
    vec![1, 403, 407, 261, 378]
}

/// What a session of `context` with 4 sinks sees of `history`, said another way than the engine says it.
fn view(history: &[u32], context: usize) -> Vec<u32> {
    let mut seen = history.to_vec();
    let mut out = Vec::new();
    for &token in &seen {
        out.push(token);
        if out.len() == context {
            out.drain(4..4 + (context - 4) / 2);
        }
    }
    seen.clear();
    out
}

#[test]
fn who_slides_says_what_one_says_who_sees_the_same() {
    let (long, short) = (stories(512, 1), stories(64, 1));
    let mut session = short.session();
    session.set_overflow(SLIDE).unwrap();
    let told = go_on(&mut session, &story(), &tokens(200));
    assert_eq!((told.tokens.len(), told.reason), (200, FinishReason::Length));
    let mut history = story();
    for (at, &token) in told.tokens.iter().enumerate() {
        let due = go_on(&mut long.session(), &view(&history, 64), &tokens(1)).tokens;
        assert_eq!(due, [token], "token {at}");
        history.push(token);
    }
    // Without, it ends where the context does.
    let stopped = go_on(&mut short.session(), &story(), &tokens(200));
    assert_eq!((stopped.tokens.len(), stopped.reason), (59, FinishReason::Length));
    assert_eq!(stopped.tokens, told.tokens[..59]);
}

#[test]
fn a_history_that_slid_is_seen_alike_wherever_it_is_computed() {
    let model = stories(64, 2);
    let mut session = model.session();
    session.set_overflow(SLIDE).unwrap();
    let whole = go_on(&mut session, &story(), &seeded(150)).tokens;
    // Stopped in the middle, saved, and gone on with: elsewhere, on whatever device.
    let mut models = vec![
        stories(64, 1),
        load(Device::Cpu, &LoadOptions { context: Some(64), prefill: 7, ..LoadOptions::default() }),
    ];
    #[cfg(feature = "wgpu")]
    if crate::gpu::gpu().is_some() {
        models.push(load(Device::Gpu, &LoadOptions { context: Some(64), ..LoadOptions::default() }));
    }
    for other in models {
        let mut first = model.session();
        first.set_overflow(SLIDE).unwrap();
        let mut stream = first.generate(&Prompt::Tokens(story()), &seeded(150)).unwrap();
        let texts = stream.by_ref().filter(|event| matches!(event, Ok(Event::Text(_)))).take(90);
        assert_eq!(texts.count(), 90);
        let saved = first.to_bytes(&SaveOptions { kv: true }).unwrap();
        drop(stream);
        let mut second = other.restore_bytes(saved).unwrap();
        let told = second.proceed(&seeded(150)).unwrap().finish().unwrap();
        assert_eq!(told.tokens, whole);
    }
    // A prompt longer than the context is read the same way.
    let past = [story(), whole[..120].to_vec()].concat();
    let mut slides = model.session();
    slides.set_overflow(SLIDE).unwrap();
    let read = go_on(&mut slides, &past, &tokens(5)).tokens;
    assert_eq!(read, go_on(&mut stories(512, 1).session(), &view(&past, 64), &tokens(5)).tokens);
    let refused = model.session().generate(&Prompt::Tokens(past), &tokens(5)).unwrap_err();
    assert_eq!(refused.kind(), Kind::ContextOverflow);
}

#[test]
fn sinks_that_leave_no_room_are_refused() {
    let mut session = stories(64, 1).session();
    assert_eq!(
        session.set_overflow(Overflow::Slide { sinks: 33 }).unwrap_err().kind(),
        Kind::InvalidArgument
    );
    let stream = session.generate(&Prompt::Tokens(story()), &tokens(5)).unwrap();
    assert_eq!(session.set_overflow(SLIDE).unwrap_err().kind(), Kind::SessionBusy);
    drop(stream);
    session.set_overflow(SLIDE).unwrap();
}

#[test]
fn branches_share_what_is_computed_and_nothing_else() {
    let model = stories(256, 3);
    let mut trunk = model.session();
    let past = [story(), go_on(&mut trunk, &story(), &tokens(80)).tokens].concat();
    let alone = |past: &[u32]| go_on(&mut model.session(), past, &seeded(40)).tokens;
    let mut branches = [trunk.branch(), trunk.branch()];
    let ends = [[300, 301], [302, 303]].map(|end| [&past[..], &end].concat());
    for (branch, past) in branches.iter_mut().zip(&ends) {
        let told = go_on(branch, past, &seeded(40));
        assert_eq!(told.timings.cached_tokens, 64, "whole pages of 85 tokens");
        assert_eq!(told.tokens, alone(past));
    }
    // One that goes back into what is shared takes nothing from the others.
    let back = [&past[..40], &[310, 311]].concat();
    assert_eq!(go_on(&mut trunk, &back, &seeded(40)).tokens, alone(&back));
    let further = [&ends[0][..], &[320]].concat();
    assert_eq!(go_on(&mut branches[0], &further, &seeded(40)).tokens, alone(&further));
    drop(trunk);
    assert_eq!(go_on(&mut branches[1], &ends[1], &seeded(40)).tokens, alone(&ends[1]));
    // More branches than seats: some compute again, and all say the same.
    let mut many: Vec<Session> = (0..6).map(|_| branches[1].branch()).collect();
    for branch in &mut many {
        assert_eq!(go_on(branch, &ends[1], &seeded(40)).tokens, alone(&ends[1]));
    }
}

#[test]
fn pages_run_out_and_branches_go_on() {
    // Two sessions of 64 positions have four pages; a trunk and two branches want more.
    let model = stories(64, 2);
    let mut trunk = model.session();
    let past = [story(), go_on(&mut trunk, &story(), &tokens(40)).tokens].concat();
    let mut branch = trunk.branch();
    let due = go_on(&mut stories(64, 1).session(), &past, &tokens(18)).tokens;
    for _ in 0..3 {
        assert_eq!(go_on(&mut branch, &past, &tokens(18)).tokens, due);
        assert_eq!(go_on(&mut trunk, &past, &tokens(18)).tokens, due);
        branch = trunk.branch();
    }
}

#[test]
fn what_is_computed_ahead_is_not_computed_again() {
    let model = stories(256, 1);
    let mut session = model.session();
    let past = [story(), go_on(&mut model.session(), &story(), &tokens(60)).tokens].concat();
    let ahead = session.prewarm(&Prompt::Tokens(past.clone())).unwrap().finish().unwrap();
    assert_eq!((ahead.tokens.len(), ahead.text.as_str()), (0, ""));
    let question = [&past[..], &[300, 301]].concat();
    let told = go_on(&mut session, &question, &tokens(20));
    assert_eq!(told.timings.cached_tokens, past.len() as u32);
    assert_eq!(told.tokens, go_on(&mut model.session(), &question, &tokens(20)).tokens);
    // Exactly what was computed is a prompt too; its last token is computed again.
    let mut session = model.session();
    session.prewarm(&Prompt::Tokens(past.clone())).unwrap().finish().unwrap();
    let told = go_on(&mut session, &past, &tokens(20));
    assert_eq!(told.timings.cached_tokens, past.len() as u32 - 1);
    assert_eq!(told.tokens, go_on(&mut model.session(), &past, &tokens(20)).tokens);
}

#[test]
fn instructions_are_computed_ahead_of_what_a_user_says() {
    let model = chat_model(512);
    let mut session = model.session();
    session
        .instruct("You are a helpful assistant who answers in one short sentence and never uses long words.");
    let instructions = session.transcript().to_vec();
    let ahead = session.prewarm(&Prompt::Chat(instructions.clone())).unwrap().finish().unwrap();
    let known = ahead.prompt_tokens.len() as u32;
    assert!(known > 20);
    let told = session.say("What is the capital of France?", &tokens(8)).unwrap().finish().unwrap();
    assert_eq!(told.timings.cached_tokens, known);
    // And what the user is still writing.
    let mut session = model.session();
    let writing =
        |text: &str| Prompt::Chat([instructions.clone(), vec![Message::new("user", text)]].concat());
    let more = session.prewarm(&writing("What is the capital")).unwrap().finish().unwrap();
    assert!(more.prompt_tokens.len() as u32 > known);
    let again =
        session.generate(&writing("What is the capital of France?"), &tokens(8)).unwrap().finish().unwrap();
    assert_eq!(again.timings.cached_tokens, more.prompt_tokens.len() as u32);
    assert_eq!(again.tokens, told.tokens);
}

#[test]
fn a_conversation_is_condensed_where_it_no_longer_fits() {
    let model = chat_model(192);
    let mut session = model.session();
    session.instruct("Answer briefly.");
    let ask = |session: &mut Session, at: usize| {
        let question =
            format!("This is question number {at}. Tell me one thing about the number {at}, please.");
        let finish = session.say(question, &tokens(24)).and_then(|stream| stream.finish());
        finish.map(|finish| session.answered(finish.text))
    };
    let refused = (0..8).find_map(|at| ask(&mut session, at).err()).expect("it does not fit for ever");
    assert_eq!(refused.kind(), Kind::ContextOverflow);
    let before = session.transcript().to_vec();
    // A rule that does not help is refused, and nothing of the conversation is lost.
    session.condense_with(|messages| Ok(messages.to_vec()));
    assert_eq!(ask(&mut session, 8).unwrap_err().kind(), Kind::ContextOverflow);
    session.condense_with(|_| Err(pocketlm::Error::invalid("not today")));
    assert_eq!(ask(&mut session, 8).unwrap_err().kind(), Kind::InvalidArgument);
    assert_eq!(session.transcript(), before);
    session.condense_with(forget_oldest);
    for at in 8..14 {
        ask(&mut session, at).unwrap();
        assert_eq!(session.transcript()[0], Message::new("system", "Answer briefly."));
    }
    assert!(session.transcript().len() < before.len() + 12);
    // A summary in place of what was said, by the model itself.
    let summarist = model.clone();
    session.condense_with(move |messages| {
        let (last, told) = messages.split_last().expect("a question");
        let said: Vec<&str> = told.iter().filter_map(|message| message.0.get("content")?.as_str()).collect();
        let short: String = said.concat().chars().take(200).collect();
        let prompt = Prompt::user(format!("Summarize: {short}"));
        let summary = summarist.session().generate(&prompt, &tokens(16))?.finish()?.text;
        Ok(vec![Message::new("system", &summary), last.clone()])
    });
    for at in 14..18 {
        ask(&mut session, at).unwrap();
    }
}

/// What a rule says in a branch that has the rule too, and has outgrown the context as well, is refused; nobody waits for ever.
#[test]
fn a_rule_that_talks_to_a_branch_with_the_same_rule_is_refused() {
    let model = chat_model(192);
    let mut session = model.session();
    session.take_up(vec![Message::new("user", &"word ".repeat(300)), Message::new("assistant", "Yes.")]);
    let branch: Arc<Mutex<Option<Session>>> = Arc::default();
    let (other, heard) = (branch.clone(), Arc::new(Mutex::new(None)));
    let told = heard.clone();
    session.condense_with(move |messages| {
        if let Some(branch) = &mut *other.lock().expect("the branch") {
            *told.lock().expect("what was heard") = branch.say("Sum up.", &tokens(8)).err();
        }
        Ok(messages[messages.len() - 1..].to_vec())
    });
    *branch.lock().unwrap() = Some(session.branch());
    session.say("And now?", &tokens(8)).unwrap().finish().unwrap();
    let refused = heard.lock().unwrap().take().expect("the branch was refused");
    assert_eq!(refused.kind(), Kind::SessionBusy);
    assert!(refused.what_would_work().is_some_and(|hint| hint.contains("rule of its own")), "{refused}");
    // With a rule of its own, it may be asked.
    branch.lock().unwrap().as_mut().unwrap().condense_with(keep_the_last);
    session.take_up(vec![Message::new("user", &"word ".repeat(300)), Message::new("assistant", "Yes.")]);
    session.say("And now?", &tokens(8)).unwrap().finish().unwrap();
    assert!(heard.lock().unwrap().is_none());
    // The rule holds the branch, and the branch its own.
    drop(branch.lock().unwrap().take());
}

/// Nothing but the last message.
fn keep_the_last(messages: &[Message]) -> pocketlm::Result<Vec<Message>> {
    Ok(messages[messages.len() - 1..].to_vec())
}
