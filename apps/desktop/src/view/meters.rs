//! Figures to look at: speed, memory, and how long the device is taken from the window at a time.

use eframe::egui::{Color32, CornerRadius, Rect, RichText, Role, Sense, Ui, WidgetInfo, pos2, vec2};
use egui_plot::{Bar, BarChart, HLine, Plot};

use super::theme::Palette;
use super::{bytes, theme};
use crate::meters::Meters;
use crate::state::{Action, State};
use crate::worker::Loaded;

pub(super) fn show(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    let Some(loaded) = &state.loaded else {
        ui.add_space(10.0);
        ui.label(RichText::new("Figures of the model that is loaded stand here: how fast it speaks, what it takes of memory, and what it leaves the window.").color(palette.weak));
        return;
    };
    let meters = &state.meters;
    show_speed(ui, meters, palette);
    show_context(ui, meters, loaded, palette);
    show_slices(ui, state, palette);
    show_memory(ui, meters, loaded, palette);
    show_energy(ui, meters, loaded, palette);
    show_device(ui, state, loaded, palette, actions);
}

fn card(ui: &mut Ui, title: &str, palette: Palette, contents: impl FnOnce(&mut Ui)) {
    theme::card(palette).show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.spacing_mut().item_spacing.y = 4.0;
        ui.spacing_mut().interact_size.y = 17.0;
        ui.label(RichText::new(title).small().color(palette.weak));
        contents(ui);
    });
}

/// A large figure and its unit.
fn figure(ui: &mut Ui, value: &str, unit: &str, palette: Palette) {
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 5.0;
        ui.label(RichText::new(value).size(24.0).color(palette.strong));
        ui.label(RichText::new(unit).small().color(palette.weak));
    });
}

fn show_speed(ui: &mut Ui, meters: &Meters, palette: Palette) {
    ui.columns(2, |columns| {
        card(&mut columns[0], "Speed", palette, |ui| {
            let rate = meters.rate.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.1}"));
            figure(ui, &rate, "tokens/s", palette);
            spark(ui, meters, palette);
        });
        card(&mut columns[1], "First token after", palette, |ui| {
            let first = meters.first_token.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.2}"));
            figure(ui, &first, "s", palette);
            let reused = match meters.reused {
                Some((cached, prompt)) => format!("{cached} of {prompt} reused"),
                None => " ".to_owned(),
            };
            ui.label(RichText::new(reused).small().color(palette.weak));
        });
    });
}

/// The speed over time, as a line.
fn spark(ui: &mut Ui, meters: &Meters, palette: Palette) {
    let (place, response) = ui.allocate_exact_size(vec2(ui.available_width(), 15.0), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, "Speed of this answer over time"));
    let most = meters.rates.iter().copied().fold(1e-3, f32::max);
    let step = place.width() / meters.rates.len().saturating_sub(1).max(1) as f32;
    let points = meters.rates.iter().enumerate().map(|(at, rate)| {
        pos2(place.left() + at as f32 * step, place.bottom() - rate / most * place.height())
    });
    let points: Vec<_> = points.collect();
    if points.len() > 1 {
        ui.painter().add(eframe::egui::Shape::line(points, eframe::egui::Stroke::new(1.5, palette.accent)));
    }
}

fn show_context(ui: &mut Ui, meters: &Meters, loaded: &Loaded, palette: Palette) {
    card(ui, "Context", palette, |ui| {
        let all = loaded.info.context;
        let share = meters.used as f32 / all.max(1) as f32;
        let colour = if share > 0.9 { palette.warn } else { palette.accent };
        let text = format!("{} of {all} tokens", meters.used);
        bar(ui, &[(share, colour)], &format!("Context in use: {text}"), palette);
        ui.label(RichText::new(text).small().color(palette.text));
    });
}

fn show_slices(ui: &mut Ui, state: &State, palette: Palette) {
    let meters = &state.meters;
    let is_gpu = state.loaded.as_ref().is_some_and(|loaded| loaded.info.device.backend != "cpu");
    card(ui, "What the device is given at a time", palette, |ui| {
        let budget = (state.settings.keep_frames && is_gpu).then_some(state.settings.budget_ms);
        let highest = meters.slices.iter().copied().fold(0.0, f32::max);
        let top = f64::from(highest).max(budget.unwrap_or(0.0) * 1.25).max(1.0);
        let bars = meters.slices.iter().enumerate().map(|(at, &ms)| {
            let is_late = budget.is_some_and(|budget| f64::from(ms) > budget);
            Bar::new(at as f64, f64::from(ms)).width(0.9).fill(if is_late {
                palette.warn
            } else {
                palette.accent
            })
        });
        let bars: Vec<Bar> = bars.collect();
        let plot = Plot::new("slices")
            .height(92.0)
            .show_x(false)
            .allow_zoom(false)
            .allow_drag(false)
            .allow_scroll(false);
        let plot = plot
            .allow_boxed_zoom(false)
            .show_axes([false, true])
            .show_grid([false, true])
            .show_background(false);
        let plot = plot.include_x(0.0).include_x(240.0).include_y(0.0).include_y(top).y_axis_min_width(26.0);
        let response = plot.show(ui, move |plot| {
            plot.bar_chart(BarChart::new("slices", bars).color(palette.accent));
            if let Some(budget) = budget {
                plot.hline(HLine::new("budget", budget).color(palette.bad).width(1.5));
            }
        });
        let text = match (meters.slices.is_empty(), budget) {
            (true, _) => "ms of each slice; nothing yet".to_owned(),
            (false, Some(budget)) => {
                format!("ms; 95 % within {:.1}, a frame may wait {budget:.1} (line)", meters.device.p95)
            }
            (false, None) => format!("ms; 95 % within {:.1}", meters.device.p95),
        };
        response.response.widget_info(|| WidgetInfo::labeled(Role::Image, true, format!("Slices: {text}")));
        ui.label(RichText::new(text).small().color(palette.weak));
    });
}

fn show_memory(ui: &mut Ui, meters: &Meters, loaded: &Loaded, palette: Palette) {
    let estimate = &loaded.info.estimate;
    card(ui, "Memory", palette, |ui| {
        let kinds = [
            ("Weights", estimate.weights, palette.accent),
            ("Keys and values", estimate.kv, palette.good),
            ("Work space", estimate.scratch, palette.warn),
            ("Host", estimate.host, palette.weak),
        ];
        let total = estimate.total().max(1);
        let shares = kinds.map(|(_, size, colour)| (size as f32 / total as f32, colour));
        bar(ui, &shares, &format!("Memory: {}", bytes(total)), palette);
        for (kind, size, colour) in kinds {
            line(ui, kind, &bytes(size), Some(colour), palette);
        }
        line(ui, "In all", &bytes(total), None, palette);
        if meters.device.held > 0 {
            line(ui, "Held now", &bytes(meters.device.held), None, palette);
        }
        if estimate.mapped > 0 {
            line(ui, "Read in the file", &bytes(estimate.mapped), None, palette);
        }
    });
}

fn show_energy(ui: &mut Ui, meters: &Meters, loaded: &Loaded, palette: Palette) {
    card(ui, "Energy of the latest answer", palette, |ui| match meters.joules {
        Some((joules, each)) => {
            figure(ui, &format!("{joules:.1}"), &format!("J, {each:.2} for each token"), palette)
        }
        None => {
            let why = match loaded.info.device.backend {
                "cpu" => "n/a: this system does not tell",
                _ => "n/a: a GPU's is not read here",
            };
            ui.label(RichText::new(why).color(palette.weak));
        }
    });
}

fn show_device(ui: &mut Ui, state: &State, loaded: &Loaded, palette: Palette, actions: &mut Vec<Action>) {
    card(ui, "Device", palette, |ui| {
        let device = &state.meters.device;
        let now = if device.device.is_empty() { &loaded.info.device.name } else { &device.device };
        ui.label(RichText::new(now).color(palette.strong));
        let reason = if device.recoveries > 0 { &device.reason } else { &loaded.reason };
        ui.label(RichText::new(format!("because {reason}")).small().color(palette.weak));
        line(ui, "Lost and back", &device.recoveries.to_string(), None, palette);
        line(ui, "Loaded in", &format!("{:.2} s", loaded.info.load_time.as_secs_f64()), None, palette);
        if ui
            .button("Lose the device now")
            .on_hover_text("A drill: it counts as lost, and the answer goes on with the same words")
            .clicked()
        {
            actions.push(Action::Lose);
        }
    });
}

fn line(ui: &mut Ui, what: &str, value: &str, colour: Option<Color32>, palette: Palette) {
    ui.horizontal(|ui| {
        if let Some(colour) = colour {
            let (place, _) = ui.allocate_exact_size(vec2(8.0, 8.0), Sense::hover());
            ui.painter().rect_filled(place, CornerRadius::same(2), colour);
        }
        ui.label(RichText::new(what).small().color(palette.text));
        ui.with_layout(eframe::egui::Layout::right_to_left(eframe::egui::Align::Center), |ui| {
            ui.label(RichText::new(value).small().color(palette.text));
        });
    });
}

/// Shares of a whole, side by side.
fn bar(ui: &mut Ui, shares: &[(f32, Color32)], label: &str, palette: Palette) {
    let (place, response) = ui.allocate_exact_size(vec2(ui.available_width(), 8.0), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, label));
    let painter = ui.painter();
    painter.rect_filled(place, CornerRadius::same(4), palette.button);
    let mut left = place.left();
    for &(share, colour) in shares {
        let width = (share * place.width()).min(place.right() - left);
        let part = Rect::from_min_size(pos2(left, place.top()), vec2(width.max(0.0), place.height()));
        painter.rect_filled(part, CornerRadius::same(4), colour);
        left += width;
    }
}
