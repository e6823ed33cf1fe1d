//! What becomes of what a person does, without a pixel and without a model.

use pocketlm::{Error, FinishReason, Kind};
use pocketlm_desktop::conversation::{Conversation, End};
use pocketlm_desktop::settings::{Place, Settings};
use pocketlm_desktop::state::{Action, State};
use pocketlm_desktop::worker::{Command, News, Said};

use crate::data::{loaded, stories};

fn ready() -> State {
    let mut state = State::new(Settings::default(), Vec::new(), None);
    state.hear(News::Loaded(Box::new(loaded())));
    state.orders();
    state
}

fn say(state: &mut State, text: &str) -> (String, usize) {
    state.draft = text.into();
    state.act(Action::Send);
    let answering = state.answering.as_ref().expect("an answer is asked for");
    (answering.conversation.clone(), answering.node)
}

fn hear(state: &mut State, (id, node): &(String, usize), said: Said) {
    state.hear(News::Said(id.clone(), *node, said));
}

/// The worker's side of a whole answer.
fn answer(state: &mut State, place: &(String, usize), text: &str) {
    hear(state, place, Said::Begun);
    hear(state, place, Said::Read(3, 9));
    text.split_inclusive(' ').for_each(|word| hear(state, place, Said::Text(word.into())));
    hear(state, place, Said::Finished(Box::new(finish(text, FinishReason::Stop)), Some(4.0)));
}

fn finish(text: &str, reason: FinishReason) -> pocketlm::Finish {
    let timings = pocketlm::Timings { prompt_tokens: 9, generated_tokens: 2, ..Default::default() };
    pocketlm::Finish {
        reason,
        text: text.into(),
        calls: vec![],
        prompt_tokens: vec![],
        tokens: vec![],
        timings,
    }
}

fn path(state: &State) -> Vec<String> {
    let conversation = state.conversation().expect("one is open");
    conversation.path().into_iter().map(|at| conversation.nodes[at].text.clone()).collect()
}

#[test]
fn nothing_is_loaded_and_nothing_fetched_at_the_start() {
    let mut state = State::new(Settings::default(), Vec::new(), None);
    let orders = state.orders();
    let is_quiet = |order: &Command| matches!(order, Command::Pace(_) | Command::FindModels(_));
    assert!(orders.iter().all(is_quiet), "{orders:?}");
    // What was open when the window closed is read, and not answered.
    let mut talk = Conversation::new("1".into(), String::new());
    talk.say("hello");
    let mut state = State::new(Settings::default(), vec![talk], None);
    assert!(state.orders().iter().all(is_quiet) && state.open.as_deref() == Some("1"));
}

#[test]
fn a_conversation_grows_and_is_kept() {
    let mut state = ready();
    let place = say(&mut state, "  Hello there  ");
    let orders = state.orders();
    let [Command::Keep(kept), Command::Answer(request)] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!((kept.nodes.len(), kept.title.as_str()), (2, "Hello there"));
    assert_eq!((request.node, request.path.as_slice(), request.messages.len()), (1, &[0][..], 1));
    assert_eq!(state.can_send(), Err("An answer is under way"));
    answer(&mut state, &place, "Good day");
    assert_eq!(path(&state), ["Hello there", "Good day"]);
    let node = &state.conversation().unwrap().nodes[1];
    assert_eq!((node.end.clone(), node.facts.unwrap().tokens), (End::Whole, 2));
    assert_eq!(state.meters.joules, Some((4.0, 2.0)));
    assert!(matches!(&state.orders()[..], [Command::Keep(_)]), "it is kept when it ends");
}

#[test]
fn an_edit_and_a_retry_are_branches() {
    let mut state = ready();
    let place = say(&mut state, "one");
    answer(&mut state, &place, "1");
    state.act(Action::Retry(1));
    assert_eq!(path(&state), ["one", ""]);
    let place = (place.0, state.answering.as_ref().unwrap().node);
    answer(&mut state, &place, "eins");
    state.act(Action::Edit(0));
    assert_eq!(state.edit, Some((0, "one".to_owned())));
    state.edit.as_mut().unwrap().1 = "two".into();
    state.orders();
    state.act(Action::SendEdit);
    assert_eq!(path(&state), ["two", ""]);
    assert!(
        state.orders().iter().any(|order| matches!(order, Command::Answer(request) if request.path == [3]))
    );
    hear(&mut state, &(place.0.clone(), 4), Said::Failed(Error::invalid("no")));
    state.act(Action::Choose(0));
    assert_eq!(path(&state), ["one", "eins"], "the newest of the older branch");
}

#[test]
fn a_stop_is_asked_for_once_and_what_was_said_stays() {
    let mut state = ready();
    let place = say(&mut state, "one");
    hear(&mut state, &place, Said::Text("half".into()));
    state.orders();
    state.act(Action::Stop);
    assert!(matches!(&state.orders()[..], [Command::Stop]));
    hear(&mut state, &place, Said::Finished(Box::new(finish("half", FinishReason::Cancelled)), None));
    let node = &state.conversation().unwrap().nodes[1];
    assert_eq!((node.text.as_str(), &node.end), ("half", &End::Stopped));
    assert!(state.answering.is_none());
}

#[test]
fn a_failure_is_told_with_what_would_work() {
    let mut state = ready();
    state.hear(News::Failed(Error::new(Kind::Io, "the disk is full").hint("make room")));
    let notice = &state.notices[0];
    assert_eq!((notice.text.as_str(), notice.hint.as_deref()), ("the disk is full", Some("make room")));
    // The same again is no news, and what was asked for is none at all.
    state.hear(News::Failed(Error::new(Kind::Io, "the disk is full").hint("make room")));
    state.hear(News::NotLoaded(Error::new(Kind::Cancelled, "stopped")));
    assert_eq!(state.notices.len(), 1);
    state.act(Action::Dismiss(7));
    state.act(Action::Dismiss(0));
    assert!(state.notices.is_empty());
    let place = say(&mut state, "one");
    hear(&mut state, &place, Said::Failed(Error::new(Kind::ContextOverflow, "too long").hint("say less")));
    let end = state.conversation().unwrap().nodes[1].end.clone();
    assert_eq!(end, End::Failed("too long; say less".into()));
}

#[test]
fn a_device_that_was_lost_is_news_and_the_answer_goes_on() {
    let mut state = ready();
    let place = say(&mut state, "one");
    hear(&mut state, &place, Said::Text("a ".into()));
    hear(&mut state, &place, Said::Recovered(Error::new(Kind::DeviceLost, "a drill"), "GPU".into()));
    hear(&mut state, &place, Said::Text("b".into()));
    assert_eq!(path(&state), ["one", "a b"]);
    assert!(!state.notices[0].is_error && state.notices[0].text.contains("GPU"));
}

#[test]
fn what_is_chosen_is_kept_once_and_not_at_each_step() {
    let mut state = ready();
    let keeps = |state: &mut State| {
        state.orders().into_iter().filter(|order| matches!(order, Command::KeepSettings(_))).count()
    };
    for zoom in [1.1, 1.2, 1.3] {
        state.settings.zoom = zoom;
        state.act(Action::Chosen);
        assert!(state.settle().is_some());
    }
    assert_eq!(keeps(&mut state), 0);
    let wait = state.settle().expect("it is on its way");
    std::thread::sleep(wait + std::time::Duration::from_millis(20));
    assert_eq!((state.settle(), keeps(&mut state)), (None, 1));
    assert_eq!((state.settle(), keeps(&mut state)), (None, 0));
}

#[test]
fn another_device_means_another_load() {
    let mut state = ready();
    state.orders();
    state.act(Action::Compute(Place::Cpu));
    let orders = state.orders();
    let is_load = |order: &Command| matches!(order, Command::Load(source) if source.place == Place::Cpu && source.path == stories());
    assert!(orders.iter().any(is_load), "{orders:?}");
    assert!(state.loaded.is_none() && state.loading.is_some());
    state.act(Action::Stop);
    assert!(matches!(&state.orders()[..], [Command::StopLoading]));
}

#[test]
fn what_is_deleted_is_gone_and_its_answer_stopped() {
    let mut state = ready();
    let place = say(&mut state, "one");
    state.orders();
    state.act(Action::Delete(place.0.clone()));
    let orders = state.orders();
    assert!(matches!(&orders[..], [Command::Stop, Command::Delete(_)]), "{orders:?}");
    assert!(state.conversations.is_empty() && state.open.is_none());
    // What still comes of it belongs nowhere.
    hear(&mut state, &place, Said::Text("late".into()));
    assert!(state.conversations.is_empty());
    assert_eq!(state.can_send(), Err("Write something first"));
}
