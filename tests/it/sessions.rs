//! Sessions that are saved and come back: the laws, on the stories model, and what is refused.

use pocketlm::engine::saved::{Saved, SavedKv, Unfinished};
use pocketlm::{
    Bytes, Device, Engine, EngineOptions, Error, Event, Finish, GenerateOptions, Kind, LoadOptions, Message,
    Model, Prompt, Sampling, SaveOptions, Session, Stream,
};
use sha2::{Digest, Sha256};

use crate::data::{Scratch, fixture};

const STORY: &str = "Once upon a time";
const MODEL: &str = "stories260k/stories260K-f32.gguf";
const HISTORY: SaveOptions = SaveOptions { kv: false };
const KV: SaveOptions = SaveOptions { kv: true };

fn load_with(device: Device, exact: bool, options: &LoadOptions) -> Model {
    let engine = Engine::new(EngineOptions { device, exact, checked: true, ..EngineOptions::default() });
    engine.load(fixture(MODEL), options, |_| Ok(())).expect("the model loads")
}

fn load(device: Device) -> Model {
    load_with(device, true, &LoadOptions::default())
}

/// Greedy without a seed.
fn options(count: u32, seed: Option<u64>) -> GenerateOptions {
    let sampling =
        Sampling { temperature: seed.map(|_| 1.1), top_k: seed.map(|_| 40), seed, ..Sampling::default() };
    GenerateOptions { max_tokens: Some(count), sampling, ..GenerateOptions::default() }
}

fn end(stream: Result<Stream, Error>) -> Finish {
    stream.expect("a story begins").finish().expect("a story ends")
}

/// A session with the beginning of a story, and its tokens.
fn begun(model: &Model) -> (Session, Vec<u32>) {
    let mut session = model.session();
    let finish = end(session.generate(&Prompt::Raw(STORY.into()), &options(100, None)));
    (session, [finish.prompt_tokens, finish.tokens].concat())
}

/// What `seed` adds to `past`, and how many tokens of it were there.
fn continued(session: &mut Session, past: &[u32]) -> (Vec<u32>, String, usize) {
    let finish = end(session.generate(&Prompt::Tokens(past.to_vec()), &options(60, Some(5))));
    (finish.tokens, finish.text, finish.timings.cached_tokens as usize)
}

#[test]
fn saved_and_restored_is_never_saved() {
    let model = load(Device::Cpu);
    let (mut session, past) = begun(&model);
    let saved = [HISTORY, KV].map(|options| session.to_bytes(&options).unwrap());
    let (tokens, text, cached) = continued(&mut session, &past);
    assert_eq!(cached, past.len() - 1);
    // In the same process, and in one that knows nothing of it.
    for model in [model, load(Device::Cpu)] {
        for (bytes, pages) in saved.iter().zip([0, (past.len() - 1) / 32]) {
            let mut restored = model.restore_bytes(bytes.clone()).unwrap();
            assert!(!restored.is_unfinished());
            assert_eq!(continued(&mut restored, &past), (tokens.clone(), text.clone(), 32 * pages));
        }
    }
}

#[test]
fn an_answer_under_way_goes_on() {
    let model = load(Device::Cpu);
    for seed in [None, Some(3), Some(4)] {
        let sampled = options(80, seed);
        let whole = end(model.session().generate(&Prompt::Raw(STORY.into()), &sampled));
        let mut session = model.session();
        let stream = session.generate(&Prompt::Raw(STORY.into()), &sampled).unwrap();
        let texts = stream.filter(|event| matches!(event, Ok(Event::Text(_)))).count();
        for cut in [0, 1, 2, texts / 2, texts - 2] {
            let mut session = model.session();
            let mut stream = session.generate(&Prompt::Raw(STORY.into()), &sampled).unwrap();
            for _ in 0..cut {
                while !matches!(stream.next().unwrap().unwrap(), Event::Text(_)) {}
            }
            for bytes in [HISTORY, KV].map(|kept| session.to_bytes(&kept).unwrap()) {
                let restored = model.restore_bytes(bytes).unwrap();
                // It stays so when it is saved again.
                let mut restored = model.restore_bytes(restored.to_bytes(&HISTORY).unwrap()).unwrap();
                assert!(restored.is_unfinished(), "{seed:?}, {cut} of {texts} texts");
                // Without a seed it is the one of then.
                let mut silent = sampled.clone();
                silent.sampling.seed = None;
                let again = end(restored.proceed(&silent));
                assert_eq!(
                    (&again.tokens, &again.text),
                    (&whole.tokens, &whole.text),
                    "{seed:?}, {cut} texts"
                );
                assert_eq!(again.prompt_tokens, whole.prompt_tokens);
                assert!(!restored.is_unfinished());
                assert_eq!(restored.proceed(&silent).unwrap_err().kind(), Kind::InvalidArgument);
            }
        }
    }
}

#[test]
fn what_was_cancelled_is_not_under_way() {
    let model = load(Device::Cpu);
    let mut session = model.session();
    let mut stream = session.generate(&Prompt::Raw(STORY.into()), &options(80, None)).unwrap();
    for _ in 0..10 {
        stream.next().unwrap().unwrap();
    }
    drop(stream);
    let restored = model.restore_bytes(session.to_bytes(&HISTORY).unwrap()).unwrap();
    assert!(!restored.is_unfinished());
}

#[test]
fn an_answer_that_has_ended_by_other_stops_is_refused() {
    let model = load(Device::Cpu);
    let mut session = model.session();
    let mut stream = session.generate(&Prompt::Raw(STORY.into()), &options(80, None)).unwrap();
    let mut text = String::new();
    while text.len() < 40 {
        if let Event::Text(more) = stream.next().unwrap().unwrap() {
            text += &more;
        }
    }
    let mut restored = model.restore_bytes(session.to_bytes(&HISTORY).unwrap()).unwrap();
    let stop = vec![text[20..25].to_owned()];
    for options in [GenerateOptions { stop, ..options(80, None) }, options(1, None)] {
        assert_eq!(restored.proceed(&options).unwrap_err().kind(), Kind::InvalidArgument);
    }
    assert!(restored.is_unfinished(), "it can go on by others");
}

#[test]
fn the_conversation_comes_back() {
    let model = load(Device::Cpu);
    let mut session = model.session();
    session.instruct("Be brief.");
    session.answered("\u{1f600} \"quoted\"\n");
    let folder = Scratch::new();
    let path = folder.join("session");
    session.save(&path, &HISTORY).unwrap();
    let restored = model.restore(&path).unwrap();
    let said = [Message::new("system", "Be brief."), Message::new("assistant", "\u{1f600} \"quoted\"\n")];
    assert_eq!(restored.transcript(), said);
    assert_eq!(restored.to_bytes(&KV).unwrap(), std::fs::read(&path).unwrap());
    assert_eq!(model.restore(folder.join("none")).unwrap_err().kind(), Kind::NotFound);
}

#[cfg(feature = "wgpu")]
#[test]
fn sessions_move_between_devices() {
    let models = [load(Device::Cpu), load(Device::Gpu)];
    let (mut session, past) = begun(&models[0]);
    let (tokens, text, _) = continued(&mut session, &past);
    for from in &models {
        let (session, same) = begun(from);
        assert_eq!(same, past);
        for (kept, pages) in [(HISTORY, 0), (KV, (past.len() - 1) / 32)] {
            let bytes = session.to_bytes(&kept).unwrap();
            for to in &models {
                let mut restored = to.restore_bytes(bytes.clone()).unwrap();
                assert_eq!(continued(&mut restored, &past), (tokens.clone(), text.clone(), 32 * pages));
            }
        }
    }
}

#[test]
fn keys_and_values_of_another_layout_are_computed_again() {
    let model = load(Device::Cpu);
    let (mut session, past) = begun(&model);
    let bytes = session.to_bytes(&KV).unwrap();
    let whole = continued(&mut session, &past);
    let halves = load_with(Device::Cpu, false, &LoadOptions::default());
    let mut restored = halves.restore_bytes(bytes.clone()).unwrap();
    assert_eq!(continued(&mut restored, &past).2, 0);
    // Where others have all places, the history is computed when there is one.
    let narrow = load_with(Device::Cpu, true, &LoadOptions { sessions: 1, ..LoadOptions::default() });
    let mut busy = narrow.session();
    let stream = busy.generate(&Prompt::Raw(STORY.into()), &options(5, None)).unwrap();
    narrow.logits(&[1], 0, |_, _| Ok(())).unwrap();
    let mut restored = narrow.restore_bytes(bytes).unwrap();
    stream.finish().unwrap();
    let (tokens, text, _) = continued(&mut restored, &past);
    assert_eq!((tokens, text), (whole.0, whole.1));
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let model = load(Device::Cpu);
    let mut session = model.session();
    end(session.generate(&Prompt::Raw(STORY.into()), &options(40, None)));
    session.instruct("Be brief.");
    let small = session.to_bytes(&HISTORY).unwrap();
    assert!(small.len() < 600, "{} bytes", small.len());
    model.restore_bytes(small.clone()).unwrap();
    for at in 0..small.len() {
        for bit in 0..8 {
            let mut damaged = small.clone();
            damaged[at] ^= 1 << bit;
            let kind = model.restore_bytes(damaged).expect_err("a flipped bit").kind();
            assert!(matches!(kind, Kind::BadFile | Kind::Unsupported), "byte {at}, bit {bit}: {kind:?}");
        }
        assert_eq!(
            model.restore_bytes(small[..at].to_vec()).unwrap_err().kind(),
            Kind::BadFile,
            "cut at {at}"
        );
    }
    assert!(model.restore_bytes([&small[..], &[0]].concat()).is_err());
    // Of a large one, a bit of every 97th byte: all of its keys and values come before the sum.
    let large = session.to_bytes(&KV).unwrap();
    for at in (0..large.len()).step_by(97) {
        let mut damaged = large.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(model.restore_bytes(damaged).is_err(), "byte {at}");
    }
}

/// What `change` makes of a sound session, with the sum that belongs to it.
fn forged(saved: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = saved[..saved.len() - 32].to_vec();
    change(&mut bytes);
    let total = (bytes.len() as u64 + 32).to_le_bytes();
    bytes[12..20].copy_from_slice(&total);
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

fn written(saved: &Saved) -> Vec<u8> {
    let mut bytes = Vec::new();
    saved.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_right_sum_over_lies_is_no_passport() {
    let model = load(Device::Cpu);
    let (session, _) = begun(&model);
    let sound = session.to_bytes(&HISTORY).unwrap();
    let saved = Saved::read(&Bytes::from(session.to_bytes(&KV).unwrap())).unwrap();
    let refused = |bytes: Vec<u8>| model.restore_bytes(bytes).unwrap_err();
    let kind = |saved: Saved| refused(written(&saved)).kind();
    assert_eq!(forged(&sound, |_| ()), sound);
    // Lengths beyond all memory, and beyond the file by one.
    for (at, width) in [(54, 4), (54 + 4 + 4 * saved.history.len(), 8)] {
        for wrong in [u64::MAX, u64::MAX / 4, 1 << 40, sound.len() as u64] {
            let lie =
                forged(&sound, |bytes| bytes[at..at + width].copy_from_slice(&wrong.to_le_bytes()[..width]));
            assert_eq!(refused(lie).kind(), Kind::BadFile, "{wrong} at {at}");
        }
    }
    assert_eq!(refused(forged(&sound, |bytes| bytes.push(0))).kind(), Kind::BadFile);
    assert_eq!(refused(forged(&sound, |bytes| *bytes.last_mut().unwrap() = 2)).kind(), Kind::BadFile);
    let newer = refused(forged(&sound, |bytes| bytes[8] = 4));
    assert_eq!(newer.kind(), Kind::Unsupported);
    assert!(newer.to_string().contains("newer"), "{newer}");
    assert_eq!(refused(forged(&sound, |bytes| bytes[53] = 5)).kind(), Kind::BadFile);
    // The second version did not tell how keys and values were stored, nor the first what becomes of a session that outgrows its
    // context.
    let old = Saved { kv: None, kv_type: None, ..saved.clone() };
    let second = forged(&sound, |bytes| {
        bytes[8] = 2;
        assert_eq!(bytes.remove(53), 1);
    });
    assert_eq!(Saved::read(&Bytes::from(second)).unwrap(), old);
    let first = forged(&sound, |bytes| {
        bytes[8] = 1;
        assert_eq!(bytes.drain(52..54).collect::<Vec<_>>(), [0, 1]);
    });
    assert_eq!(Saved::read(&Bytes::from(first)).unwrap(), old);
    assert_eq!(refused(forged(&sound, |bytes| bytes[8] = 0)).kind(), Kind::BadFile);
    let other = refused(written(&Saved { model: [7; 32], ..saved.clone() }));
    assert_eq!(other.kind(), Kind::Unsupported);
    assert!(other.to_string().contains("another model"), "{other}");
    let vocab = model.info().vocab;
    assert_eq!(kind(Saved { history: vec![vocab], kv: None, ..saved.clone() }), Kind::BadFile);
    let long = vec![1; model.info().context as usize + 1];
    assert_eq!(kind(Saved { history: long, ..saved.clone() }), Kind::ContextOverflow);
    for prompt_tokens in [0, saved.history.len() as u32 + 1] {
        let answer = Some(Unfinished { prompt_tokens, seed: None, limit: None });
        assert_eq!(kind(Saved { answer, ..saved.clone() }), Kind::BadFile);
    }
    let kv = saved.kv.clone().unwrap();
    let positions = saved.history.len() as u32 + 1;
    assert_eq!(kind(Saved { kv: Some(SavedKv { positions, ..kv.clone() }), ..saved.clone() }), Kind::BadFile);
    // Keys and values that do not fit are no reason to lose the history.
    for (positions, len) in [(32, kv.bytes.len()), (31, kv.bytes.len()), (96, kv.bytes.len() - 4), (0, 0)] {
        let kv = SavedKv { positions, bytes: kv.bytes.slice(0..len).unwrap(), ..kv.clone() };
        let restored = model.restore_bytes(written(&Saved { kv: Some(kv), ..saved.clone() }));
        assert_eq!(continued(&mut restored.unwrap(), &saved.history).2, 0, "{positions} positions in {len}");
    }
}

/// Keys and values that were changed, with a right sum, give other tokens: so they are used, and the sum is what keeps
/// damaged ones out.
#[test]
fn keys_and_values_are_used() {
    let model = load(Device::Cpu);
    let (mut session, past) = begun(&model);
    let bytes = session.to_bytes(&KV).unwrap();
    let (tokens, ..) = continued(&mut session, &past);
    let planted = forged(&bytes, |bytes| {
        let end = bytes.len();
        bytes[end - 50_000..].fill(0);
    });
    let mut restored = model.restore_bytes(planted).unwrap();
    assert_ne!(continued(&mut restored, &past).0, tokens);
}

#[cfg(feature = "cli")]
mod program {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::{Child, Command, Stdio};

    use crate::data::{Scratch, real_model};
    use crate::program::{End, pocketlm};

    const NAME: &str = "My name is Ada and I live in Paris.";
    const QUESTION: &str = "Where do I live?";

    fn chat(cache: &Scratch, words: &[&str]) -> Command {
        let model = real_model();
        let common =
            ["chat", "-m", model.to_str().unwrap(), "--device", "cpu", "--exact", "--temp", "0", "-n", "20"];
        pocketlm(cache, &[&common, words].concat())
    }

    fn end(mut command: Command) -> End {
        let end = End::of(&command.output().unwrap());
        assert_eq!(end.code, Some(0), "{end:?}");
        end
    }

    /// Says a line to a conversation.
    fn say(child: &mut Child, line: &str) {
        writeln!(child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    #[test]
    fn a_conversation_outlives_the_program() {
        let folder = Scratch::new();
        let path = folder.join("talk");
        let file = path.to_str().unwrap();
        let spoken = |words: &[&str]| {
            chat(&folder, words)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        // Both turns in one process.
        let mut whole = spoken(&["--system", "Be brief."]);
        say(&mut whole, NAME);
        say(&mut whole, QUESTION);
        let whole = End::of(&whole.wait_with_output().unwrap());
        // The first, then the second until it begins to answer: the program is killed in the middle.
        let mut child = spoken(&["--system", "Be brief.", "--session", file]);
        say(&mut child, NAME);
        say(&mut child, QUESTION);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        out.read_exact(&mut [0; 1]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let before = std::fs::read(&path).unwrap();
        let second = end(chat(&folder, &["--session", file, "--session-kv", "-v", QUESTION]));
        assert_eq!(format!("{first}{}", second.stdout), whole.stdout);
        assert!(!second.stderr.contains("kept"), "{second:?}");
        // With keys and values, what was said is not computed again.
        let third = end(chat(&folder, &["--session", file, "--system", "Rhyme.", "-v", "Thanks."]));
        assert!(
            third.stderr.contains(" kept)") && third.stderr.contains("note: the conversation goes on"),
            "{third:?}"
        );
        std::fs::write(&path, &before[..before.len() - 1]).unwrap();
        let refused = End::of(&chat(&folder, &["--session", file, "Hello"]).output().unwrap());
        refused.fails(3, &["talk", "bytes"]);
    }
}
