//! The field for the message.

use eframe::egui::{
    Align, Button, Event, Frame, Key, KeyboardShortcut, Layout, Margin, Modifiers, RichText, Stroke,
    TextEdit, Ui,
};

use super::{Looks, theme};
use crate::state::{Action, State};

pub(super) fn show(ui: &mut Ui, state: &mut State, looks: &mut Looks, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    let width = ui.available_width().min(theme::COLUMN);
    let left = (ui.available_width() - width) / 2.0;
    ui.horizontal(|ui| {
        ui.add_space(left);
        let frame = Frame::new()
            .fill(palette.card)
            .stroke(Stroke::new(1.0, palette.line))
            .corner_radius(12)
            .inner_margin(Margin { left: 12, right: 8, top: 8, bottom: 8 });
        frame.show(ui, |ui| {
            ui.set_width(width - 22.0);
            ui.with_layout(Layout::right_to_left(Align::BOTTOM), |ui| {
                show_button(ui, state, actions);
                let is_last = state.edit.is_none();
                let sends = field(
                    ui,
                    &mut state.draft,
                    "Message",
                    hint(state.loaded.is_some()),
                    looks.wants_focus && is_last,
                );
                looks.wants_focus = false;
                if sends {
                    actions.push(Action::Send);
                    looks.wants_focus = true;
                }
            });
        });
    });
}

fn hint(is_loaded: bool) -> &'static str {
    if is_loaded { "Say something" } else { "Load a model, then say something" }
}

fn show_button(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    ui.spacing_mut().button_padding.y = 8.0;
    let big = |text: &str| {
        let text = RichText::new(text).color(palette.on_accent).strong();
        Button::new(text).fill(palette.accent).corner_radius(9).min_size([64.0, 0.0].into())
    };
    if let Some(answering) = &state.answering {
        let stop = ui.add_enabled(!answering.is_stopping, big("Stop"));
        if stop.on_hover_text("Stops the answer (Esc)").clicked() {
            actions.push(Action::Stop);
        }
        return;
    }
    let can = state.can_send();
    let send = ui.add_enabled(can.is_ok(), big("Send"));
    let send = match can {
        Ok(()) => send.on_hover_text("Sends it (Enter; Shift+Enter makes a new line)"),
        Err(why) => send.on_disabled_hover_text(why),
    };
    if send.clicked() {
        actions.push(Action::Send);
    }
}

/// A field that Enter sends: whether it does.
pub(super) fn field(ui: &mut Ui, text: &mut String, name: &str, hint: &str, wants_focus: bool) -> bool {
    let rows = text.lines().count().clamp(1, 8);
    let newline = KeyboardShortcut::new(Modifiers::SHIFT, Key::Enter);
    let edit = TextEdit::multiline(text)
        .hint_text(RichText::new(hint))
        .return_key(newline)
        .desired_rows(rows)
        .desired_width(ui.available_width())
        .frame(Frame::new())
        .margin(Margin::symmetric(2, 6));
    let response = ui.add(edit);
    super::name(ui, &response, name);
    if wants_focus {
        response.request_focus();
    }
    let is_enter = |event: &Event| matches!(event, Event::Key { key: Key::Enter, pressed: true, modifiers, .. } if modifiers.is_none());
    response.has_focus() && ui.input(|input| input.events.iter().any(is_enter))
}
