//! The conversation.

use std::time::Instant;

use eframe::egui::{
    Align, Button, Frame, Label, Layout, Margin, ProgressBar, RichText, Role as Reads, ScrollArea, Stroke,
    TextStyle, Ui, WidgetInfo,
};

use super::theme::Palette;
use super::{Looks, composer, name, theme};
use crate::conversation::{Conversation, End, Facts, Node, Role};
use crate::state::{Action, Answering, State};

/// What can be asked of a model that is small.
const EXAMPLES: &[&str] = &[
    "Explain how rainbows form, in three sentences.",
    "Write a haiku about a lighthouse.",
    "Give me a recipe for pancakes as a list.",
];

pub(super) fn show(ui: &mut Ui, state: &mut State, looks: &mut Looks, actions: &mut Vec<Action>) {
    if let Some(loading) = &state.loading {
        super::models::show_loading(ui, loading, actions);
        return;
    }
    let path = state.conversation().map(Conversation::path).unwrap_or_default();
    if path.is_empty() {
        show_empty(ui, state, looks);
        return;
    }
    ScrollArea::vertical().auto_shrink([false, false]).stick_to_bottom(true).id_salt(&state.open).show(
        ui,
        |ui| {
            let width = ui.available_width().min(theme::COLUMN);
            let left = (ui.available_width() - width) / 2.0;
            ui.horizontal_top(|ui| {
                ui.add_space(left);
                ui.vertical(|ui| {
                    ui.set_width(width);
                    ui.spacing_mut().item_spacing.y = 6.0;
                    ui.add_space(6.0);
                    for at in path {
                        ui.push_id(at, |ui| show_message(ui, state, looks, at, actions));
                        ui.add_space(10.0);
                    }
                });
            });
        },
    );
}

fn show_empty(ui: &mut Ui, state: &mut State, looks: &mut Looks) {
    let palette = theme::palette(ui.ctx());
    ui.vertical_centered(|ui| {
        ui.add_space((ui.available_height() * 0.28).max(12.0));
        ui.label(RichText::new("What would you like to know?").heading().color(palette.strong));
        ui.add_space(2.0);
        let about = match &state.loaded {
            Some(loaded) => format!(
                "{} answers on {}. Nothing leaves this machine.",
                super::display_name(loaded),
                loaded.info.device.name
            ),
            None => "Load a model, and it answers on this machine.".to_owned(),
        };
        ui.label(RichText::new(about).color(palette.weak));
        ui.add_space(16.0);
        for example in EXAMPLES {
            let button = Button::new(RichText::new(*example).color(palette.text))
                .fill(palette.card)
                .min_size([340.0, 34.0].into());
            if ui.add(button).on_hover_text("Writes this for you").clicked() {
                state.draft = (*example).to_owned();
                looks.wants_focus = true;
            }
        }
    });
}

fn show_message(ui: &mut Ui, state: &mut State, looks: &mut Looks, at: usize, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    if let Some((_, text)) = state.edit.as_mut().filter(|(node, _)| *node == at) {
        show_edit(ui, text, actions);
        return;
    }
    let Some(conversation) = state.conversation() else { return };
    let message = &conversation.nodes[at];
    let answering = state
        .answering
        .as_ref()
        .filter(|answering| answering.conversation == conversation.id && answering.node == at);
    let who = if message.role == Role::User { "You" } else { "Model" };
    let heard = ui.scope(|ui| match message.role {
        Role::User => show_question(ui, &message.text, palette),
        Role::Assistant => {
            let page = looks.pages.entry((conversation.id.clone(), at)).or_default();
            page.show(ui, message.text.trim_start());
            if let Some(answering) = answering.filter(|_| message.text.is_empty()) {
                show_waiting(ui, answering, palette);
            }
        }
    });
    // All of a message is read in one piece, whatever of it is in sight.
    let whole = format!("{who}: {}", message.text.trim());
    heard.response.widget_info(|| WidgetInfo::labeled(Reads::Article, true, &whole));
    show_end(ui, message, at, state.loaded.is_some(), actions);
    if answering.is_none() {
        show_footer(ui, conversation, at, state, actions);
    }
}

fn show_question(ui: &mut Ui, text: &str, palette: Palette) {
    let font = TextStyle::Body.resolve(ui.style());
    let most = ui.available_width() * 0.82;
    let galley = ui.painter().layout(text.to_owned(), font, palette.strong, most - 28.0);
    let left = ui.available_width() - galley.size().x - 28.0;
    ui.horizontal(|ui| {
        ui.add_space(left.max(0.0));
        theme::card(palette).show(ui, |ui| ui.add(Label::new(galley)));
    });
}

fn show_waiting(ui: &mut Ui, answering: &Answering, palette: Palette) {
    ui.ctx().request_repaint_after(std::time::Duration::from_millis(100));
    let seconds = Instant::now().duration_since(answering.begun).as_secs_f64();
    match answering.read {
        Some((done, total)) if done < total => {
            let bar =
                ProgressBar::new(done as f32 / total.max(1) as f32).desired_height(6.0).desired_width(220.0);
            let bar = ui.add(bar);
            name(ui, &bar, "Reading the prompt");
            let text = format!("reading {done} of {total} tokens · {seconds:.1} s");
            ui.label(RichText::new(text).small().color(palette.weak));
        }
        _ => {
            ui.horizontal(|ui| {
                ui.spinner();
                ui.label(RichText::new(format!("thinking · {seconds:.1} s")).small().color(palette.weak));
            });
        }
    }
}

fn show_end(ui: &mut Ui, message: &Node, at: usize, is_loaded: bool, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    let small = |text: &str, colour| RichText::new(text).small().color(colour);
    match &message.end {
        End::Whole | End::Writing => {}
        End::Stopped => {
            ui.label(small("You stopped it here.", palette.weak));
        }
        End::Length => {
            ui.label(small("Cut off here: the limit of tokens, or the context, is full.", palette.warn));
        }
        End::Interrupted => {
            ui.horizontal(|ui| {
                ui.label(small("The program ended while this was being written.", palette.warn));
                let go_on = ui.add_enabled(is_loaded, Button::new("Go on"));
                if go_on.on_disabled_hover_text("Load the model first").clicked() {
                    actions.push(Action::GoOn(at));
                }
            });
        }
        End::Failed(why) => {
            let frame = Frame::new()
                .stroke(Stroke::new(1.0, palette.bad))
                .corner_radius(8)
                .inner_margin(Margin::symmetric(12, 8));
            frame.show(ui, |ui| {
                let (what, hint) = why.split_once("; ").unwrap_or((why, ""));
                ui.label(RichText::new(what).color(palette.bad));
                if !hint.is_empty() {
                    ui.label(RichText::new(hint).color(palette.weak));
                }
            });
        }
    }
}

fn show_footer(
    ui: &mut Ui,
    conversation: &Conversation,
    at: usize,
    state: &State,
    actions: &mut Vec<Action>,
) {
    let palette = theme::palette(ui.ctx());
    let message = &conversation.nodes[at];
    let can = state.loaded.is_some() && state.answering.is_none();
    let is_user = message.role == Role::User;
    let layout =
        if is_user { Layout::right_to_left(Align::Center) } else { Layout::left_to_right(Align::Center) };
    ui.allocate_ui_with_layout([ui.available_width(), 20.0].into(), layout, |ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        ui.spacing_mut().button_padding.x = 5.0;
        let quiet = |text: &str| {
            Button::new(RichText::new(text).small().color(palette.weak)).frame_when_inactive(false)
        };
        if ui.add(quiet("Copy")).on_hover_text("Copies this message").clicked() {
            ui.ctx().copy_text(message.text.trim().to_owned());
        }
        if is_user {
            let edit = ui
                .add_enabled(can, quiet("Edit"))
                .on_hover_text("Says it otherwise, in a branch of its own (Ctrl+E)");
            if edit.clicked() {
                actions.push(Action::Edit(at));
            }
        } else {
            let retry =
                ui.add_enabled(can, quiet("Retry")).on_hover_text("Another answer beside this one (Ctrl+R)");
            if retry.clicked() {
                actions.push(Action::Retry(at));
            }
        }
        show_branches(ui, conversation, at, actions);
        if let Some(facts) = &message.facts {
            let told = RichText::new(told(facts)).small().color(palette.weak);
            ui.add(Label::new(told).truncate());
        }
    });
}

/// Which of the branches that part here is shown.
fn show_branches(ui: &mut Ui, conversation: &Conversation, at: usize, actions: &mut Vec<Action>) {
    let siblings = conversation.siblings(at);
    if siblings.len() < 2 {
        return;
    }
    let palette = theme::palette(ui.ctx());
    let place = siblings.iter().position(|&sibling| sibling == at).unwrap_or(0);
    let count = format!("{} of {}", place + 1, siblings.len());
    ui.scope(|ui| {
        let mut step = |ui: &mut Ui, text: &str, label: &str, to: Option<usize>| {
            let text = RichText::new(text).color(palette.text);
            let button = ui.add_enabled(to.is_some(), Button::new(text).frame_when_inactive(false));
            name(ui, &button, label);
            if let Some(to) = to.filter(|_| button.on_hover_text(label).clicked()) {
                actions.push(Action::Choose(to));
            }
        };
        let (before, after) = (place.checked_sub(1).map(|at| siblings[at]), siblings.get(place + 1).copied());
        let mut order = [("<", "Earlier branch", before), (">", "Later branch", after)];
        if ui.layout().prefer_right_to_left() {
            order.reverse();
        }
        let [first, last] = order;
        step(ui, first.0, first.1, first.2);
        ui.label(RichText::new(count).small().color(palette.weak));
        step(ui, last.0, last.1, last.2);
    });
}

fn told(facts: &Facts) -> String {
    let Facts { tokens, first_token, rate, cached_tokens, prompt_tokens } = facts;
    let mut told = format!("{tokens} tokens");
    if *rate > 0.0 {
        told += &format!(" · {rate:.1} a second");
    }
    told += &format!(" · first after {first_token:.2} s");
    if *cached_tokens > 0 {
        told += &format!(" · {cached_tokens} of {prompt_tokens} reused");
    }
    told
}

fn show_edit(ui: &mut Ui, text: &mut String, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    let frame = theme::card(palette).stroke(Stroke::new(1.0, palette.accent));
    frame.show(ui, |ui| {
        ui.set_width(ui.available_width());
        let is_new = ui.data_mut(|data| {
            !std::mem::replace(data.get_temp_mut_or_default(ui.scope_id().with("was shown")), true)
        });
        let sends = composer::field(ui, text, "Edited message", "Say it otherwise", is_new);
        let mut shown = true;
        ui.horizontal(|ui| {
            let send =
                Button::new(RichText::new("Send as a branch").color(palette.on_accent)).fill(palette.accent);
            if ui.add(send).on_hover_text("The old message stays beside it (Enter)").clicked() || sends {
                actions.push(Action::SendEdit);
                shown = false;
            }
            if ui.button("Leave it").on_hover_text("As it was (Esc)").clicked() {
                actions.push(Action::LeaveEdit);
                shown = false;
            }
        });
        if !shown || ui.input(|input| input.key_pressed(eframe::egui::Key::Escape)) {
            let id = ui.scope_id().with("was shown");
            ui.data_mut(|data| data.remove::<bool>(id));
        }
    });
}
