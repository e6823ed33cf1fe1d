//! The conversations.

use eframe::egui::{Align, Button, Context, Id, Layout, Modal, RichText, ScrollArea, Ui};

use super::{Looks, name, theme};
use crate::state::{Action, State};

pub(super) fn show(ui: &mut Ui, state: &State, looks: &mut Looks, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    ui.horizontal(|ui| {
        ui.label(RichText::new("Conversations").small().color(palette.weak));
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            if ui.button("+ New").on_hover_text("A new conversation (Ctrl+N)").clicked() {
                looks.shows_models = false;
                actions.push(Action::New);
            }
        });
    });
    ui.add_space(4.0);
    if state.conversations.is_empty() {
        ui.label(RichText::new("What you say is kept on this machine, here.").color(palette.weak));
    }
    ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
        ui.spacing_mut().item_spacing.y = 2.0;
        for conversation in &state.conversations {
            let is_open = state.open.as_ref() == Some(&conversation.id);
            let answering =
                state.answering.as_ref().is_some_and(|answering| answering.conversation == conversation.id);
            ui.horizontal(|ui| {
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    if is_open {
                        let delete = ui.add(Button::new(RichText::new("×").color(palette.weak)).frame(false));
                        name(ui, &delete, &format!("Delete {}", conversation.name()));
                        if delete.on_hover_text("Delete this conversation").clicked() {
                            looks.deleting = Some(conversation.id.clone());
                        }
                    }
                    ui.with_layout(Layout::left_to_right(Align::Center).with_main_justify(true), |ui| {
                        let mark = if answering { "• " } else { "" };
                        let title = format!("{mark}{}", conversation.name());
                        let title =
                            RichText::new(title).color(if is_open { palette.strong } else { palette.text });
                        let line = Button::selectable(is_open, title).truncate().frame_when_inactive(is_open);
                        if ui.add(line).clicked() {
                            looks.shows_models = false;
                            actions.push(Action::Open(conversation.id.clone()));
                        }
                    });
                });
            });
        }
    });
}

/// Asks before something is forgotten.
pub(super) fn confirm(ctx: &Context, state: &State, looks: &mut Looks, actions: &mut Vec<Action>) {
    let Some(id) = looks.deleting.clone() else { return };
    let Some(conversation) = state.conversations.iter().find(|conversation| conversation.id == id) else {
        looks.deleting = None;
        return;
    };
    let palette = theme::palette(ctx);
    let modal = Modal::new(Id::unique("delete")).show(ctx, |ui| {
        ui.set_width(320.0);
        ui.label(RichText::new("Delete this conversation?").heading());
        ui.add_space(4.0);
        ui.label(format!("“{}” and all its branches will be gone for good.", conversation.name()));
        ui.add_space(10.0);
        ui.horizontal(|ui| {
            let delete = Button::new(RichText::new("Delete").color(palette.page)).fill(palette.bad);
            if ui.add(delete).clicked() {
                actions.push(Action::Delete(id));
                looks.deleting = None;
            }
            if ui.button("Keep").clicked() {
                looks.deleting = None;
            }
        });
    });
    if modal.should_close() {
        looks.deleting = None;
    }
}
