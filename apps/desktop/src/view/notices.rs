//! What should be read: what failed, with what would work, and what came to pass.

use eframe::egui::{Align, Button, Frame, Layout, Margin, RichText, Stroke, Ui};

use super::{name, theme};
use crate::state::{Action, State};

/// Notices that are shown.
const MOST: usize = 3;

pub(super) fn show(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    let hidden = state.notices.len().saturating_sub(MOST);
    for (at, notice) in state.notices.iter().enumerate().skip(hidden) {
        let colour = if notice.is_error { palette.bad } else { palette.good };
        let frame = Frame::new()
            .fill(palette.card)
            .stroke(Stroke::new(1.0, colour))
            .corner_radius(8)
            .inner_margin(Margin::symmetric(12, 8))
            .outer_margin(Margin { bottom: 6, ..Margin::ZERO });
        frame.show(ui, |ui| {
            ui.with_layout(Layout::right_to_left(Align::TOP), |ui| {
                let close = ui.add(Button::new("×").frame(false)).on_hover_text("Puts this away");
                name(ui, &close, "Dismiss");
                if close.clicked() {
                    actions.push(Action::Dismiss(at));
                }
                ui.with_layout(Layout::top_down(Align::LEFT), |ui| {
                    ui.label(RichText::new(&notice.text).color(palette.strong));
                    if let Some(hint) = &notice.hint {
                        ui.label(RichText::new(hint).color(palette.weak));
                    }
                });
            });
        });
    }
    if hidden > 0 {
        ui.label(RichText::new(format!("and {hidden} more")).small().color(palette.weak));
    }
}
