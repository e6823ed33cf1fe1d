//! What is drawn. Each panel reads the [`State`] and pushes what a person does ([`Action`]); what is remembered here is only how
//! things look.

mod chat;
mod composer;
mod list;
mod markdown;
mod meters;
mod models;
mod notices;
mod side;
pub mod theme;

use std::collections::HashMap;

use eframe::egui::{
    Align, Button, CentralPanel, Context, Frame, Key, KeyboardShortcut, Layout, Margin, Modifiers, Panel,
    RichText, Ui,
};

use crate::settings::Settings;
use crate::state::{Action, State};
use crate::worker::Command;
use markdown::Page;

/// What stands on the right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// Figures.
    #[default]
    Meters,
    /// How answers are made.
    Answer,
    /// Where to compute, and the window.
    Device,
}

/// How things look at the moment.
#[derive(Debug, Default)]
pub struct Looks {
    /// Whether the models are shown in place of the conversation.
    pub shows_models: bool,
    /// What stands on the right.
    pub tab: Tab,
    /// A conversation that somebody began to delete.
    pub deleting: Option<String>,
    /// Texts that are drawn, by conversation and node.
    pages: HashMap<(String, usize), Page>,
    /// Whether the next frame begins in the field for the message.
    wants_focus: bool,
    has_asked_for_devices: bool,
    shown: Option<String>,
}

const fn shortcut(key: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::COMMAND, key)
}

const NEW: KeyboardShortcut = shortcut(Key::N);
const MODELS: KeyboardShortcut = shortcut(Key::O);
const LIST: KeyboardShortcut = shortcut(Key::B);
const METERS: KeyboardShortcut = shortcut(Key::M);
const RETRY: KeyboardShortcut = shortcut(Key::R);
const EDIT: KeyboardShortcut = shortcut(Key::E);
const MESSAGE: KeyboardShortcut = shortcut(Key::L);

/// What keys do, for whoever wants to know.
pub(crate) const KEYS: &[(&str, &str)] = &[
    ("Enter", "send"),
    ("Shift+Enter", "a new line"),
    ("Esc", "stop the answer, leave an edit"),
    ("Ctrl+N", "new conversation"),
    ("Ctrl+L", "to the message"),
    ("Ctrl+E", "edit your last message"),
    ("Ctrl+R", "another answer"),
    ("Ctrl+O", "models"),
    ("Ctrl+B", "list of conversations"),
    ("Ctrl+M", "meters and settings"),
    ("Ctrl+Plus, Minus, 0", "larger, smaller, as it was"),
];

/// Draws the window.
pub fn show(ui: &mut Ui, state: &mut State, looks: &mut Looks) {
    let ctx = ui.ctx().clone();
    theme::choose(&ctx, state.settings.theme);
    let palette = theme::palette(&ctx);
    let before = state.settings.clone();
    let mut actions = Vec::new();
    if looks.shown != state.open {
        looks.shown.clone_from(&state.open);
        looks.pages.clear();
        looks.wants_focus = true;
    }
    keys(&ctx, state, looks, &mut actions);

    let side = Frame::new().fill(palette.side).inner_margin(Margin::same(12));
    let bar = Frame::new().fill(palette.page).inner_margin(Margin::symmetric(12, 7));
    Panel::top("bar").frame(bar).show(ui, |ui| show_bar(ui, state, looks));
    // In a narrow window what was said comes first.
    let width = ui.available_width();
    if state.settings.shows_list && width >= 700.0 {
        let list = Panel::left("list").resizable(true).default_size(216.0).size_range(170.0..=340.0);
        list.frame(side).show(ui, |ui| list::show(ui, state, looks, &mut actions));
    }
    if state.settings.shows_meters && width >= 900.0 {
        let meters = Panel::right("side").resizable(true).default_size(290.0).size_range(250.0..=420.0);
        meters.frame(side).show(ui, |ui| side::show(ui, state, looks, &mut actions));
    }
    let is_choosing = looks.shows_models || is_bare(state);
    if !is_choosing {
        let frame =
            Frame::new().fill(palette.page).inner_margin(Margin { left: 16, right: 16, top: 6, bottom: 14 });
        let composer = Panel::bottom("composer").frame(frame).show_separator_line(false);
        composer.show(ui, |ui| composer::show(ui, state, looks, &mut actions));
    }
    let page = Frame::new().fill(palette.page).inner_margin(Margin::symmetric(16, 4));
    CentralPanel::default().frame(page).show(ui, |ui| {
        notices::show(ui, state, &mut actions);
        match is_choosing {
            true => models::show(ui, state, looks, &mut actions),
            false => chat::show(ui, state, looks, &mut actions),
        }
    });
    list::confirm(&ctx, state, looks, &mut actions);

    state.settings.zoom = ctx.zoom_factor();
    if needs_keeping(&before, &state.settings) {
        actions.push(Action::Chosen);
    }
    for action in actions {
        if matches!(action, Action::Load(_)) {
            looks.shows_models = false;
        }
        if matches!(action, Action::New | Action::Open(_) | Action::Load(_)) {
            looks.wants_focus = true;
        }
        state.act(action);
    }
}

/// Nothing is loaded, and nothing was said that could be read meanwhile.
fn is_bare(state: &State) -> bool {
    let has_said = state.conversation().is_some_and(|conversation| !conversation.nodes.is_empty());
    state.loaded.is_none() && state.loading.is_none() && !has_said
}

/// What a slider does is kept, what a window does is kept when it closes.
fn needs_keeping(before: &Settings, after: &Settings) -> bool {
    *before != Settings { window: before.window, ..after.clone() }
}

/// Asks for the devices once somebody looks at them.
fn ask_for_devices(looks: &mut Looks) -> Option<Command> {
    let is_first = !looks.has_asked_for_devices;
    looks.has_asked_for_devices = true;
    is_first.then_some(Command::FindDevices)
}

fn keys(ctx: &Context, state: &mut State, looks: &mut Looks, actions: &mut Vec<Action>) {
    let pressed = |shortcut: &KeyboardShortcut| ctx.input_mut(|input| input.consume_shortcut(shortcut));
    if pressed(&NEW) {
        looks.shows_models = false;
        actions.push(Action::New);
    }
    if pressed(&MODELS) {
        looks.shows_models = !looks.shows_models;
    }
    if pressed(&LIST) {
        state.settings.shows_list = !state.settings.shows_list;
    }
    if pressed(&METERS) {
        state.settings.shows_meters = !state.settings.shows_meters;
    }
    if pressed(&MESSAGE) {
        looks.shows_models = false;
        looks.wants_focus = true;
    }
    let path = state.conversation().map(|conversation| conversation.path()).unwrap_or_default();
    if pressed(&RETRY)
        && let Some(&answer) = path.last()
    {
        actions.push(Action::Retry(answer));
    }
    if pressed(&EDIT)
        && let Some(&question) = path.iter().rev().nth(1)
    {
        actions.push(Action::Edit(question));
    }
    if ctx.input(|input| input.key_pressed(Key::Escape)) && !ctx.any_popup_open() && looks.deleting.is_none()
    {
        match () {
            () if state.edit.is_some() => actions.push(Action::LeaveEdit),
            () if state.answering.is_some() || state.loading.is_some() => actions.push(Action::Stop),
            () => looks.shows_models = false,
        }
    }
}

fn show_bar(ui: &mut Ui, state: &mut State, looks: &mut Looks) {
    let palette = theme::palette(ui.ctx());
    ui.horizontal(|ui| {
        let list = Button::selectable(state.settings.shows_list, "List");
        let list = ui.add(list).on_hover_text("Conversations (Ctrl+B)");
        name(ui, &list, "Conversations");
        if list.clicked() {
            state.settings.shows_list = !state.settings.shows_list;
        }
        let title = state.conversation().map_or("pocketlm", |conversation| conversation.name()).to_owned();
        ui.add_space(4.0);
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let meters = Button::selectable(state.settings.shows_meters, "Meters");
            if ui.add(meters).on_hover_text("Meters and settings (Ctrl+M)").clicked() {
                state.settings.shows_meters = !state.settings.shows_meters;
            }
            let model = match (&state.loaded, &state.loading) {
                (Some(loaded), _) => display_name(loaded),
                (None, Some(_)) => "Loading…".to_owned(),
                (None, None) => "No model".to_owned(),
            };
            let model = Button::selectable(looks.shows_models, model);
            let model = ui.add(model).on_hover_text("Models (Ctrl+O)");
            name(ui, &model, "Models");
            if model.clicked() {
                looks.shows_models = !looks.shows_models;
            }
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                ui.add(
                    eframe::egui::Label::new(RichText::new(title).strong().color(palette.strong)).truncate(),
                );
            });
        });
    });
}

/// The name that people know a model by.
fn display_name(loaded: &crate::worker::Loaded) -> String {
    loaded.known.clone().unwrap_or_else(|| {
        let file = loaded.info.path.file_name().map(|name| name.to_string_lossy().into_owned());
        file.unwrap_or_else(|| loaded.info.name.clone())
    })
}

/// What a screen reader calls a control whose text is a sign.
fn name(ui: &Ui, response: &eframe::egui::Response, name: &str) {
    ui.ctx().accesskit_node_builder(response.id, |node| node.set_label(name));
}

/// Bytes as people read them.
fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes >= 1e9 => format!("{:.2} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.0} MB", bytes / 1e6),
        bytes => format!("{:.0} kB", bytes / 1e3),
    }
}
