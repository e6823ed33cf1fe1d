//! A process that is killed at any moment of a save leaves the file whole: real processes, killed for real.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use pocketlm::base::Seed;
use pocketlm::engine::saved::Saved;
use pocketlm::{
    Bytes, Device, Engine, EngineOptions, GenerateOptions, LoadOptions, Model, Prompt, SaveOptions,
};

use crate::data::{Scratch, fixture};

/// Where the child saves, and whether it does so as it should.
const PATH: &str = "POCKETLM_TEST_SAVE_TO";
const CARELESS: &str = "POCKETLM_TEST_SAVE_CARELESSLY";
/// How often a child is killed: more for a campaign.
const ROUNDS: &str = "POCKETLM_TEST_ROUNDS";

fn load() -> Model {
    let engine =
        Engine::new(EngineOptions { device: Device::Cpu, threads: Some(1), ..EngineOptions::default() });
    let path = fixture("stories260k/stories260K-f32.gguf");
    engine.load(path, &LoadOptions::default(), |_| Ok(())).expect("the model loads")
}

/// Two states of a session, in bytes: a short one, and a long one with keys and values.
fn states(model: &Model) -> [Vec<u8>; 2] {
    [(5, false), (300, true)].map(|(count, kv)| {
        let mut session = model.session();
        let options = GenerateOptions { max_tokens: Some(count), ..GenerateOptions::default() };
        let stream = session.generate(&Prompt::Raw("Once upon a time".into()), &options);
        stream.expect("a story begins").finish().expect("a story ends");
        session.to_bytes(&SaveOptions { kv }).expect("a session in bytes")
    })
}

/// Not a test: the process that saves until it is killed.
#[test]
#[ignore = "it is started by the tests below, and killed"]
fn child() {
    let path = PathBuf::from(env::var_os(PATH).expect("a path to save to"));
    let is_careless = env::var_os(CARELESS).is_some();
    let model = load();
    let states = states(&model);
    let sessions = states.each_ref().map(|state| model.restore_bytes(state.clone()).expect("a session"));
    loop {
        for ((session, kv), bytes) in sessions.iter().zip([false, true]).zip(&states) {
            match is_careless {
                true => fs::write(&path, bytes).expect("it can be written"),
                false => session.save(&path, &SaveOptions { kv }).expect("it can be saved"),
            }
        }
    }
}

/// Starts a child that saves to `path`, and kills it a while after its first save.
fn start_and_kill(path: &Path, careless: bool, after: Duration) {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", "sessions_killed::child", "--ignored"]).env(PATH, path);
    if careless {
        command.env(CARELESS, "1");
    }
    let modified = || fs::metadata(path).and_then(|file| file.modified()).ok();
    let before = modified();
    let mut child = command.stdout(Stdio::null()).spawn().expect("this program starts");
    let begun = Instant::now();
    while modified() == before {
        assert!(begun.elapsed() < Duration::from_secs(60), "the child saves nothing");
        sleep(Duration::from_millis(1));
    }
    sleep(after);
    child.kill().expect("the child is killed");
    child.wait().expect("the child ends");
}

/// After how many of the kills the file is one of the two states.
fn whole_after_kills(careless: bool, rounds: u32) -> u32 {
    let folder = Scratch::new();
    let path = folder.join("session");
    let model = load();
    let states = states(&model);
    let mut seed = Seed::new(9);
    let mut whole = 0;
    for _ in 0..rounds {
        start_and_kill(&path, careless, Duration::from_micros(seed.below(20_000)));
        let bytes = fs::read(&path).expect("the file is there");
        let is_known = states.contains(&bytes);
        assert_eq!(Saved::read(&Bytes::from(bytes)).is_ok(), is_known, "what is not a state is refused");
        whole += u32::from(is_known);
        if is_known {
            model.restore(&path).expect("a state is a session");
        }
    }
    whole
}

#[test]
fn a_killed_process_leaves_the_session_whole() {
    let rounds = env::var(ROUNDS).map_or(25, |rounds| rounds.parse().expect("a number of rounds"));
    assert_eq!(whole_after_kills(false, rounds), rounds);
}

/// The judge of the test above says no to a program that writes over the file.
#[test]
fn a_careless_save_is_seen() {
    let rounds = (0..20).position(|_| whole_after_kills(true, 3) < 3);
    assert!(rounds.is_some(), "60 kills in the middle of a write, and nothing was torn");
}
