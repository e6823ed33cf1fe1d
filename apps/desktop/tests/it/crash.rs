//! A program that is killed in the middle of an answer: the conversation is there again, and the answer goes on as it would have.

use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use pocketlm_desktop::conversation::{Conversation, End};
use pocketlm_desktop::settings::{Asked, Settings};
use pocketlm_desktop::state::{Action, State};
use pocketlm_desktop::store::Store;
use pocketlm_desktop::worker::Worker;

use crate::data::{Scratch, greedy, load, real_model, worker};

const QUESTION: &str = "Write a long story about a lighthouse keeper and the sea.";
const FOLDER: &str = "POCKETLM_DESKTOP_CRASH";

fn asked() -> Asked {
    greedy(160)
}

/// The state and a worker with the real model, on what lies in `store`.
fn start(store: &Store) -> (State, Worker) {
    let settings = Settings { asked: asked(), ..Settings::default() };
    let mut state = State::new(settings, store.conversations(), None);
    let worker = worker(store);
    let loaded = load(&worker, real_model());
    state.hear(pocketlm_desktop::worker::News::Loaded(loaded));
    (state, worker)
}

/// Lets the worker and the state talk until the answer is there.
fn run(state: &mut State, worker: &Worker) {
    let begun = Instant::now();
    loop {
        state.orders().into_iter().for_each(|command| worker.ask(command));
        if state.answering.is_none() {
            return;
        }
        if let Some(news) = worker.wait(Duration::from_secs(1)) {
            state.hear(news);
        }
        assert!(begun.elapsed() < Duration::from_secs(300), "the answer does not end");
    }
}

fn answer(conversation: &Conversation) -> (&str, &End) {
    let node = &conversation.nodes[1];
    (&node.text, &node.end)
}

/// Not a test: the program that is killed.
#[test]
#[ignore = "the other test of this file runs and kills it"]
fn victim() {
    let store = Store::new(env::var_os(FOLDER).expect("the other test says where"));
    let (mut state, worker) = start(&store);
    state.draft = QUESTION.into();
    state.act(Action::Send);
    run(&mut state, &worker);
}

#[test]
fn an_answer_goes_on_after_the_program_was_killed() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let mut victim = Process::new(env::current_exe().unwrap())
        .args(["--exact", "crash::victim", "--ignored", "--test-threads=1"])
        .env(FOLDER, store.folder())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test runs itself");
    // Until some of the answer was kept.
    let begun = Instant::now();
    let is_on_its_way = || {
        let kept = store.conversations();
        kept.first().is_some_and(|talk| answer(talk).0.len() > 20 && store.session(&talk.id, 1).is_file())
    };
    while !is_on_its_way() {
        assert!(begun.elapsed() < Duration::from_secs(240), "nothing of it was kept");
        assert!(victim.try_wait().unwrap().is_none(), "it ended before it was killed");
        thread::sleep(Duration::from_millis(50));
    }
    victim.kill().unwrap();
    victim.wait().unwrap();

    let (mut state, worker) = start(&store);
    let conversation = state.conversation().expect("the conversation is there").clone();
    let (before, end) = answer(&conversation);
    assert_eq!((conversation.nodes[0].text.as_str(), end), (QUESTION, &End::Interrupted));
    state.act(Action::GoOn(1));
    run(&mut state, &worker);
    let (text, end) = answer(state.conversation().unwrap());
    assert!(matches!(end, End::Whole | End::Length), "{end:?}");
    assert!(text.starts_with(before.trim_end_matches('\u{fffd}')), "{before:?} went on as {text:?}");

    // As it would have been.
    let other = Scratch::new();
    let (mut state, worker) = start(&other.store());
    state.draft = QUESTION.into();
    state.act(Action::Send);
    run(&mut state, &worker);
    assert_eq!(answer(state.conversation().unwrap()).0, text);

    // What was cut short while it was written leaves the old file.
    let folder = store.folder().join("conversations").join(&conversation.id);
    fs::write(folder.join("conversation.new"), "{").unwrap();
    assert_eq!(store.conversations().len(), 1);
}
