//! The models: what there is, what it takes, whether it fits and why.

use std::path::{Path, PathBuf};

use eframe::egui::{
    Align, Button, Frame, Layout, Margin, ProgressBar, RichText, ScrollArea, Stroke, TextEdit, Ui,
};
use pocketlm::models::{PullProgress, PullStage};
use pocketlm::{Estimate, LoadStage, Verdict};

use super::theme::Palette;
use super::{Looks, bytes, name, theme};
use crate::state::{Action, Loading, State};
use crate::worker::Shelved;

pub(super) fn show(ui: &mut Ui, state: &mut State, looks: &mut Looks, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    ScrollArea::vertical().auto_shrink([false, false]).id_salt("models").show(ui, |ui| {
        let width = ui.available_width().min(theme::COLUMN);
        let left = (ui.available_width() - width) / 2.0;
        ui.horizontal_top(|ui| {
            ui.add_space(left);
            ui.vertical(|ui| {
                ui.set_width(width);
                ui.add_space(18.0);
                ui.horizontal(|ui| {
                    ui.label(RichText::new("Models").heading().color(palette.strong));
                    if state.loaded.is_some() || state.conversation().is_some_and(|talk| !talk.nodes.is_empty()) {
                        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                            if ui.button("Back to the conversation").on_hover_text("Esc").clicked() {
                                looks.shows_models = false;
                            }
                        });
                    }
                });
                ui.label(RichText::new("A model runs on this machine. It is loaded when you say so, and nothing is fetched unasked.").color(palette.weak));
                ui.add_space(8.0);
                if !state.has_looked {
                    ui.spinner();
                }
                for shelved in state.shelf.clone() {
                    ui.push_id((&shelved.name, &shelved.path), |ui| show_model(ui, state, &shelved, actions));
                    ui.add_space(4.0);
                }
                show_drop(ui, actions);
                ui.add_space(8.0);
                show_pull(ui, actions);
                ui.add_space(12.0);
            });
        });
    });
}

fn show_model(ui: &mut Ui, state: &State, shelved: &Shelved, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    let is_loaded =
        state.loaded.as_ref().is_some_and(|loaded| Some(&loaded.info.path) == shelved.path.as_ref());
    let frame =
        theme::card(palette).stroke(Stroke::new(1.0, if is_loaded { palette.accent } else { palette.card }));
    frame.show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.with_layout(Layout::right_to_left(Align::TOP), |ui| {
            show_button(ui, state, shelved, is_loaded, actions);
            ui.with_layout(Layout::top_down(Align::LEFT), |ui| {
                ui.label(RichText::new(&shelved.name).strong().color(palette.strong));
                if !shelved.about.is_empty() {
                    ui.label(RichText::new(&shelved.about).color(palette.weak));
                }
                let licence =
                    if shelved.licence.is_empty() { "licence as its makers say" } else { &shelved.licence };
                let place = if shelved.path.is_some() { "on this machine" } else { "not here yet" };
                ui.label(
                    RichText::new(format!("{} · {licence} · {place}", bytes(shelved.bytes)))
                        .small()
                        .color(palette.weak),
                );
            });
        });
        if let Some(progress) = state.pulls.get(&shelved.name) {
            show_progress(ui, &shelved.name, progress.as_ref(), actions);
        }
        if let Some(path) = &shelved.path {
            show_fit(ui, state, path, actions);
        }
    });
}

fn show_button(ui: &mut Ui, state: &State, shelved: &Shelved, is_loaded: bool, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    let big = |text: &str| {
        Button::new(RichText::new(text).color(palette.on_accent))
            .fill(palette.accent)
            .min_size([76.0, 0.0].into())
    };
    let label = |verb: &str| format!("{verb} {}", shelved.name);
    match &shelved.path {
        Some(_) if is_loaded => {
            let unload = ui.button("Unload");
            name(ui, &unload, &label("Unload"));
            if unload.on_hover_text("Gives its memory back").clicked() {
                actions.push(Action::Unload);
            }
        }
        Some(path) => {
            let load = ui.add_enabled(state.loading.is_none(), big("Load"));
            name(ui, &load, &label("Load"));
            if load.clicked() {
                actions.push(Action::Load(path.clone()));
            }
        }
        None if !state.pulls.contains_key(&shelved.name) => {
            let pull = ui.add(big("Download"));
            name(ui, &pull, &label("Download"));
            let about = format!("Fetches {} with your own pip or curl", bytes(shelved.bytes));
            if pull.on_hover_text(about).clicked() {
                actions.push(Action::Pull(shelved.name.clone()));
            }
        }
        None => {}
    }
}

fn show_progress(ui: &mut Ui, model: &str, progress: Option<&PullProgress>, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    let (text, fraction) = match progress {
        None => ("beginning".to_owned(), 0.0),
        Some(PullProgress { stage, done, total, .. }) => {
            let fraction = *done as f32 / (*total).max(1) as f32;
            let of = format!("{} of {}", bytes(*done), bytes(*total));
            match stage {
                PullStage::Waiting => ("another program fetches it; waiting".to_owned(), 0.0),
                PullStage::Damaged => ("the file here is damaged; fetching it again".to_owned(), 0.0),
                PullStage::Fetching => (format!("fetching · {of}"), fraction),
                PullStage::Checking => (format!("checking · {of}"), fraction),
            }
        }
    };
    ui.add_space(4.0);
    ui.horizontal(|ui| {
        let bar = ui.add(
            ProgressBar::new(fraction)
                .fill(palette.accent)
                .desired_height(6.0)
                .desired_width(ui.available_width() - 90.0),
        );
        name(ui, &bar, &format!("Download of {model}"));
        let cancel = ui.button("Cancel");
        name(ui, &cancel, &format!("Cancel the download of {model}"));
        if cancel.clicked() {
            actions.push(Action::StopPull(model.to_owned()));
        }
    });
    ui.label(RichText::new(text).small().color(palette.weak));
}

fn show_fit(ui: &mut Ui, state: &State, path: &Path, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    match state.estimate(path) {
        None => {
            let weigh = Button::new(RichText::new("Does it fit?").small().color(palette.accent))
                .frame_when_inactive(false);
            if ui.add(weigh).on_hover_text("Reads names and shapes, and no weights").clicked() {
                actions.push(Action::Weigh(path.to_owned()));
            }
        }
        Some(Err(error)) => {
            ui.label(RichText::new(error.to_string()).small().color(palette.bad));
        }
        Some(Ok(estimate)) => show_estimate(ui, estimate, palette),
    }
}

fn show_estimate(ui: &mut Ui, estimate: &Estimate, palette: Palette) {
    let (text, colour) = verdict(estimate, palette);
    ui.label(RichText::new(text).small().color(colour));
    let parts = format!(
        "{} in all on {}: weights {}, context of {} tokens {}, work space {}, host {}",
        bytes(estimate.total()),
        estimate.device,
        bytes(estimate.weights),
        estimate.context,
        bytes(estimate.kv),
        bytes(estimate.scratch),
        bytes(estimate.host)
    );
    ui.label(RichText::new(parts).small().color(palette.weak));
    for remedy in &estimate.remedies {
        ui.label(
            RichText::new(format!("• would fit with {}", remedy.beside(estimate)))
                .small()
                .color(palette.weak),
        );
    }
}

fn verdict(estimate: &Estimate, palette: Palette) -> (String, eframe::egui::Color32) {
    let of = |bytes_there: Option<u64>| bytes_there.map_or_else(|| "what there is".to_owned(), bytes);
    match estimate.verdict {
        Verdict::Fits => ("It fits.".into(), palette.good),
        Verdict::Tight => (
            format!("It fits where others make room: {} are free now.", of(estimate.budget.available)),
            palette.warn,
        ),
        Verdict::Unknown => (
            "It fits in this machine's memory; how much the device has, it does not say.".into(),
            palette.good,
        ),
        Verdict::OverBudget => {
            (format!("It does not fit: {} are allowed.", of(estimate.budget.given)), palette.bad)
        }
        Verdict::OverMachine => {
            (format!("It does not fit: the machine has {}.", of(estimate.budget.most)), palette.bad)
        }
        Verdict::OverBuffer => (
            format!(
                "It does not fit: {} takes more than the device's largest buffer, {}.",
                estimate.largest.name,
                of(estimate.largest_allowed)
            ),
            palette.bad,
        ),
    }
}

/// Where a file may be dropped, or its path written.
fn show_drop(ui: &mut Ui, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    let hovers = ui.input(|input| !input.raw.hovered_files.is_empty());
    let line = Stroke::new(1.0, if hovers { palette.accent } else { palette.line });
    Frame::new().stroke(line).corner_radius(10).inner_margin(Margin::symmetric(14, 12)).show(ui, |ui| {
        ui.set_width(ui.available_width());
        let text = if hovers {
            "Let go to load it"
        } else {
            "Drop a model here: a .gguf file, or a folder of a checkpoint"
        };
        ui.label(RichText::new(text).color(palette.weak));
        let id = ui.scope_id().with("path");
        let mut path = ui.data_mut(|data| data.get_temp::<String>(id)).unwrap_or_default();
        ui.horizontal(|ui| {
            let edit = TextEdit::singleline(&mut path)
                .hint_text("or its path")
                .desired_width(ui.available_width() - 80.0);
            let field = ui.add(edit);
            name(ui, &field, "Path of a model");
            let entered = field.lost_focus() && ui.input(|input| input.key_pressed(eframe::egui::Key::Enter));
            let open = ui.add_enabled(!path.trim().is_empty(), Button::new("Open"));
            if (open.clicked() || entered) && !path.trim().is_empty() {
                actions.push(Action::Load(PathBuf::from(path.trim())));
                path.clear();
            }
        });
        ui.data_mut(|data| data.insert_temp(id, path));
    });
}

/// Any file of the hub by its address.
fn show_pull(ui: &mut Ui, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    let id = ui.scope_id().with("address");
    let mut address = ui.data_mut(|data| data.get_temp::<String>(id)).unwrap_or_default();
    ui.horizontal(|ui| {
        let edit = TextEdit::singleline(&mut address)
            .hint_text("ORG/REPO:FILE.gguf of the Hugging Face hub")
            .desired_width(ui.available_width() - 110.0);
        let field = ui.add(edit);
        name(ui, &field, "Address of a model on the hub");
        let fetch =
            ui.add_enabled(address.contains('/') && address.contains(':'), Button::new("Download it"));
        if fetch.clicked() {
            actions.push(Action::Pull(address.trim().to_owned()));
            address.clear();
        }
    });
    ui.label(
        RichText::new("Files are checked against their SHA-256 before they are used.")
            .small()
            .color(palette.weak),
    );
    ui.data_mut(|data| data.insert_temp(id, address));
}

/// A load on its way.
pub(super) fn show_loading(ui: &mut Ui, loading: &Loading, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    const STAGES: [(LoadStage, &str); 4] = [
        (LoadStage::Reading, "Reading names and shapes"),
        (LoadStage::Opening, "Starting the device"),
        (LoadStage::Uploading, "Moving weights"),
        (LoadStage::Compiling, "Making the device's programs"),
    ];
    let now = loading.progress.map_or(0, |progress| {
        STAGES.iter().position(|(stage, _)| *stage == progress.stage).unwrap_or(STAGES.len() - 1)
    });
    let fraction = loading.progress.map_or(0.0, |progress| progress.fraction.clamp(0.0, 1.0));
    ui.vertical_centered(|ui| {
        ui.add_space(ui.available_height() * 0.25);
        let file =
            loading.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        ui.label(RichText::new("Loading").heading().color(palette.strong));
        ui.label(RichText::new(file).color(palette.weak));
        ui.add_space(12.0);
        for (number, (_, text)) in STAGES.iter().enumerate() {
            let (mark, colour) = match number {
                number if number < now => ("+", palette.good),
                number if number == now => (">", palette.accent),
                _ => ("·", palette.weak),
            };
            ui.label(RichText::new(format!("{mark}  {text}")).color(colour));
        }
        ui.add_space(8.0);
        let done = (now as f32 + fraction) / STAGES.len() as f32;
        let bar =
            ui.add(ProgressBar::new(done).fill(palette.accent).desired_height(8.0).desired_width(280.0));
        name(ui, &bar, "Loading the model");
        ui.add_space(8.0);
        let cancel = ui.add_enabled(
            !loading.is_stopping,
            Button::new(if loading.is_stopping { "Stopping…" } else { "Cancel" }),
        );
        if cancel.on_hover_text("Esc").clicked() {
            actions.push(Action::Stop);
        }
    });
}
