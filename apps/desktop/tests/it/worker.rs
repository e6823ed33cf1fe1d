//! The worker with a real engine, on the small model: what it is asked it does, and tells.

use pocketlm::{FinishReason, Kind};
use pocketlm_desktop::conversation::Role;
use pocketlm_desktop::settings::{Load, Place};
use pocketlm_desktop::store::Store;
use pocketlm_desktop::worker::{Command, News, Request, Said, Source, Worker};

use crate::data::{Scratch, greedy, load, real_model, stories, until, worker};

fn request(node: usize, path: &[usize], texts: &[&str], max_tokens: u32) -> Box<Request> {
    let role = |at| if at % 2 == 0 { Role::User } else { Role::Assistant };
    Box::new(Request {
        conversation: "talk".into(),
        node,
        path: path.to_vec(),
        system: String::new(),
        messages: texts.iter().enumerate().map(|(at, text)| (role(at), (*text).to_owned())).collect(),
        asked: greedy(max_tokens),
    })
}

/// The whole answer, and how many tokens of its prompt were still computed.
fn answer(worker: &Worker, request: Box<Request>) -> (String, u32) {
    let node = request.node;
    worker.ask(Command::Answer(request));
    until(worker, |news| match news {
        News::Said(_, at, Said::Finished(finish, _)) if at == node => {
            Some((finish.text, finish.timings.cached_tokens))
        }
        News::Said(_, _, Said::Failed(error)) | News::Failed(error) => panic!("{error}"),
        _ => None,
    })
}

fn is_saved(store: &Store, node: usize) -> bool {
    store.session("talk", node).is_file()
}

#[test]
fn answers_are_saved_and_branches_share_what_is_computed() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let worker = worker(&store);
    let model = load(&worker, stories());
    assert!(!model.can_chat && model.info.device.backend == "cpu");
    // More than a page of 32 tokens, so that there is something to share.
    let story =
        "Once upon a time there was a little girl called Lily who lived in a small house near a big tree. ";
    let question = story.repeat(2);
    let (first, _) = answer(&worker, request(1, &[0], &[&question], 20));
    let (again, shared) = answer(&worker, request(2, &[0], &[&question], 20));
    assert_eq!(first, again, "another branch of a greedy answer is the same");
    assert!(shared >= 32, "{shared} tokens of a branch were shared");
    let (_, reused) = answer(&worker, request(4, &[0, 1, 3], &[&question, &first, " The end."], 5));
    assert!(reused >= 32, "{reused} tokens of a conversation that goes on");
    // The last word of each: the worker saves after it has told.
    worker.ask(Command::Unload);
    until(&worker, |news| matches!(news, News::Unloaded).then_some(()));
    assert!(is_saved(&store, 4) && is_saved(&store, 2));
    assert!(!is_saved(&store, 1), "the branch went on, and has another file");
}

#[test]
fn a_stop_is_at_once() {
    let scratch = Scratch::new();
    let worker = worker(&scratch.store());
    load(&worker, real_model());
    worker.ask(Command::Answer(request(
        1,
        &[0],
        &["Write a long story about a lighthouse keeper and the sea."],
        2000,
    )));
    until(&worker, |news| matches!(news, News::Said(_, _, Said::Text(_))).then_some(()));
    let asked = std::time::Instant::now();
    worker.ask(Command::Stop);
    let reason = until(&worker, |news| match news {
        News::Said(_, _, Said::Finished(finish, _)) => Some(finish.reason),
        _ => None,
    });
    assert_eq!(reason, FinishReason::Cancelled);
    assert!(asked.elapsed().as_secs_f64() < 2.0, "it took {:?}", asked.elapsed());
}

#[test]
fn a_device_is_lost_and_the_answer_is_the_same() {
    let scratch = Scratch::new();
    let worker = worker(&scratch.store());
    load(&worker, real_model());
    let question = ["Name three colours."];
    let (whole, _) = answer(&worker, request(1, &[0], &question, 40));
    worker.ask(Command::Answer(request(2, &[0], &question, 40)));
    let (mut has_asked, mut losses) = (false, 0);
    let text = until(&worker, |news| match news {
        News::Said(_, 2, Said::Text(_)) if !has_asked => {
            has_asked = true;
            worker.ask(Command::Lose);
            None
        }
        News::Said(_, 2, Said::Recovered(why, _)) => {
            assert_eq!(why.kind(), Kind::DeviceLost);
            losses += 1;
            None
        }
        News::Said(_, 2, Said::Finished(finish, _)) => Some(finish.text),
        _ => None,
    });
    assert_eq!((text, losses), (whole, 1));
}

#[test]
fn what_cannot_be_loaded_is_said_and_a_load_can_be_stopped() {
    let scratch = Scratch::new();
    let worker = worker(&scratch.store());
    let source = |path: &std::path::Path, place| Source { path: path.into(), place, load: Load::default() };
    let kind = |worker: &Worker| {
        until(worker, |news| match news {
            News::NotLoaded(error) => Some(error.kind()),
            News::Loaded(_) => panic!("it is loaded"),
            _ => None,
        })
    };
    worker.ask(Command::Load(source(&scratch.join("absent.gguf"), Place::Cpu)));
    assert_eq!(kind(&worker), Kind::NotFound);
    std::fs::write(scratch.join("broken.gguf"), b"GGUF\x03\0\0\0\xff").unwrap();
    worker.ask(Command::Load(source(&scratch.join("broken.gguf"), Place::Cpu)));
    assert_eq!(kind(&worker), Kind::BadFile);
    // No device draws here.
    worker.ask(Command::Load(source(&stories(), Place::Window)));
    assert_eq!(kind(&worker), Kind::DeviceUnavailable);
    worker.ask(Command::Load(source(&real_model(), Place::Cpu)));
    worker.ask(Command::StopLoading);
    assert_eq!(kind(&worker), Kind::Cancelled);
    worker.ask(Command::Answer(request(1, &[0], &["hello"], 5)));
    let error = until(&worker, |news| match news {
        News::Said(_, _, Said::Failed(error)) => Some(error),
        _ => None,
    });
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn what_a_model_takes_is_told_before_it_is_loaded() {
    let scratch = Scratch::new();
    let worker = worker(&scratch.store());
    let huge = Load { context: Some(4_000_000), ..Load::default() };
    for (load, fits) in [(Load::default(), true), (huge, false)] {
        worker.ask(Command::Weigh(Source { path: real_model(), place: Place::Cpu, load }));
        let told = until(&worker, |news| match news {
            News::Weighed(_, estimate) => Some(estimate),
            _ => None,
        });
        assert_eq!(told.is_ok_and(|estimate| estimate.fits()), fits);
    }
}
