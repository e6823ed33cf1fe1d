//! Draws Markdown: each block a label of its own, so that it can be selected and read aloud. Of a long text only what is in sight is
//! laid out; the heights of the rest are remembered.

use eframe::egui::text::{LayoutJob, TextFormat};
use eframe::egui::{
    Button, Color32, CornerRadius, FontFamily, FontId, Frame, Grid, Label, Margin, Rect, RichText,
    ScrollArea, Sense, Stroke, Ui, pos2, vec2,
};

use super::theme::{Palette, palette};
use crate::markdown::{Block, Document, Kind, Span};

/// A text, and how high its blocks are.
#[derive(Debug, Default)]
pub(super) struct Page {
    document: Document,
    heights: Vec<f32>,
    /// The width and scale that they were measured at.
    measured_at: (f32, f32),
}

const BODY: f32 = 15.0;
const LINE: f32 = 22.0;

impl Page {
    /// Draws `text`, which begins as it did the last time.
    pub(super) fn show(&mut self, ui: &mut Ui, text: &str) {
        self.document.follow(text);
        let at = (ui.available_width(), ui.pixels_per_point());
        if self.measured_at != at {
            self.heights.clear();
            self.measured_at = at;
        }
        self.heights.truncate(self.document.settled());
        let blocks = self.document.blocks();
        for (number, block) in blocks.iter().enumerate() {
            let gap =
                if number == 0 || block.goes_on { 0.0 } else { space_before(block, &blocks[number - 1]) };
            ui.add_space(gap);
            let known = self.heights.get(number).copied();
            let place =
                Rect::from_min_size(ui.cursor().min, vec2(ui.available_width(), known.unwrap_or(0.0)));
            if let Some(height) = known.filter(|_| !ui.is_rect_visible(place)) {
                ui.allocate_space(vec2(ui.available_width(), height));
                continue;
            }
            let before = ui.cursor().min.y;
            ui.push_id(number, |ui| show_block(ui, block));
            if number < self.document.settled() && number == self.heights.len() {
                self.heights.push(ui.cursor().min.y - before - ui.spacing().item_spacing.y);
            }
        }
    }
}

fn space_before(block: &Block, before: &Block) -> f32 {
    match (&block.kind, &before.kind) {
        (Kind::Heading(..), _) => 8.0,
        (Kind::Text(_), Kind::Text(_)) if block.marker.is_some() && before.indent > 0 => -3.0,
        _ => 2.0,
    }
}

fn show_block(ui: &mut Ui, block: &Block) {
    let palette = palette(ui.ctx());
    let left = f32::from(block.indent) * 20.0 + if block.is_quoted { 14.0 } else { 0.0 };
    let top = ui.cursor().min;
    ui.horizontal_top(|ui| {
        ui.spacing_mut().item_spacing.x = 0.0;
        match &block.marker {
            Some(marker) => {
                ui.add_space((left - 20.0).max(0.0));
                let (place, _) = ui.allocate_exact_size(vec2(20.0, LINE), Sense::hover());
                let font = FontId::new(BODY, FontFamily::Proportional);
                let middle = pos2(place.left() + 2.0, place.center().y);
                ui.painter().text(middle, eframe::egui::Align2::LEFT_CENTER, marker, font, palette.weak);
            }
            None => ui.add_space(left),
        }
        ui.vertical(|ui| show_kind(ui, &block.kind, block.goes_on, palette));
    });
    if block.is_quoted {
        let bar = Rect::from_min_max(top + vec2(2.0, 0.0), pos2(top.x + 5.0, ui.min_rect().bottom()));
        ui.painter().rect_filled(bar, CornerRadius::same(1), palette.line);
    }
}

fn show_kind(ui: &mut Ui, kind: &Kind, goes_on: bool, palette: Palette) {
    match kind {
        Kind::Heading(level, spans) => {
            let size = match level {
                1 => 21.0,
                2 => 18.5,
                3 => 16.5,
                _ => BODY,
            };
            ui.add(Label::new(job(spans, size, palette.strong, palette)).wrap());
        }
        Kind::Text(spans) => {
            ui.add(Label::new(job(spans, BODY, palette.text, palette)).wrap());
        }
        Kind::Code(language, code) => show_code(ui, language, code, goes_on, palette),
        Kind::Table(rows) => show_table(ui, rows, palette),
        Kind::Rule => {
            ui.separator();
        }
    }
}

fn show_code(ui: &mut Ui, language: &str, code: &str, goes_on: bool, palette: Palette) {
    let top = if goes_on { 0 } else { 8 };
    let frame = Frame::new()
        .fill(palette.card)
        .corner_radius(CornerRadius { nw: top, ne: top, sw: 8, se: 8 })
        .inner_margin(Margin { left: 12, right: 12, top: 6, bottom: 10 });
    frame.show(ui, |ui| {
        ui.set_width(ui.available_width());
        if !goes_on {
            ui.horizontal(|ui| {
                ui.label(
                    RichText::new(if language.is_empty() { "code" } else { language })
                        .small()
                        .color(palette.weak),
                );
                ui.with_layout(eframe::egui::Layout::right_to_left(eframe::egui::Align::Center), |ui| {
                    let text = RichText::new("Copy code").small().color(palette.weak);
                    let copy = ui.add(Button::new(text).frame_when_inactive(false));
                    if copy.on_hover_text("Copies this code").clicked() {
                        ui.ctx().copy_text(code.to_owned());
                    }
                });
            });
        }
        ScrollArea::horizontal().id_salt("code").auto_shrink([false, true]).show(ui, |ui| {
            ui.add(Label::new(RichText::new(code).monospace().color(palette.text)).extend());
        });
    });
}

fn show_table(ui: &mut Ui, rows: &[Vec<Vec<Span>>], palette: Palette) {
    ScrollArea::horizontal().id_salt("table").show(ui, |ui| {
        Grid::new("table").striped(true).spacing([18.0, 6.0]).show(ui, |ui| {
            for (number, row) in rows.iter().enumerate() {
                for cell in row {
                    let colour = if number == 0 { palette.strong } else { palette.text };
                    ui.add(Label::new(job(cell, 14.0, colour, palette)));
                }
                ui.end_row();
            }
        });
    });
}

/// Spans in their styles.
fn job(spans: &[Span], size: f32, colour: Color32, palette: Palette) -> LayoutJob {
    let mut job = LayoutJob::default();
    for Span { text, style } in spans {
        let family = if style.code { FontFamily::Monospace } else { FontFamily::Proportional };
        let size = if style.code { size - 1.5 } else { size };
        let colour = match () {
            () if style.link => palette.accent,
            () if style.strong => palette.strong,
            () => colour,
        };
        let line = |shown| if shown { Stroke::new(1.0, colour) } else { Stroke::NONE };
        let format = TextFormat {
            font_id: FontId::new(size, family),
            line_height: Some(size.max(BODY) * LINE / BODY),
            color: colour,
            background: if style.code { palette.card } else { Color32::TRANSPARENT },
            italics: style.emphasis,
            underline: line(style.link),
            strikethrough: line(style.struck),
            // The fonts that come with the window have no bold: colour and a little room stand for it.
            extra_letter_spacing: if style.strong { 0.3 } else { 0.0 },
            ..TextFormat::default()
        };
        job.append(text, 0.0, format);
    }
    job
}
