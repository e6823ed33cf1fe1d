//! What stands on the right: figures, how answers are made, where to compute.

use eframe::egui::{
    Align, Button, CollapsingHeader, DragValue, Grid, Label, Layout, RichText, ScrollArea, Slider, TextEdit,
    TextStyle, Ui,
};

use super::theme::Palette;
use super::{KEYS, Looks, Tab, ask_for_devices, meters, name, theme};
use crate::device;
use crate::settings::{Asked, Cache, Load, Theme};
use crate::state::{Action, State};

pub(super) fn show(ui: &mut Ui, state: &mut State, looks: &mut Looks, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    ui.horizontal(|ui| {
        for (tab, text) in [(Tab::Meters, "Figures"), (Tab::Answer, "Answers"), (Tab::Device, "Device")] {
            let is_shown = looks.tab == tab;
            let text = RichText::new(text).color(if is_shown { palette.strong } else { palette.weak });
            if ui.add(Button::selectable(is_shown, text)).clicked() {
                looks.tab = tab;
            }
        }
    });
    ui.add_space(4.0);
    ScrollArea::vertical().auto_shrink([false, false]).id_salt(looks.tab as u8).show(ui, |ui| {
        match looks.tab {
            Tab::Meters => meters::show(ui, state, actions),
            Tab::Answer => show_answer(ui, state, actions),
            Tab::Device => show_device(ui, state, looks, actions),
        }
    });
}

fn title(ui: &mut Ui, text: &str, palette: Palette) {
    ui.add_space(6.0);
    ui.label(RichText::new(text).small().color(palette.weak));
}

fn show_answer(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    title(ui, "Instructions", palette);
    let mut system = match state.conversation() {
        Some(conversation) => conversation.system.clone(),
        None => state.settings.asked.system.clone(),
    };
    let edit = TextEdit::multiline(&mut system)
        .hint_text("What the model is told before all else")
        .desired_rows(3)
        .desired_width(f32::INFINITY);
    let field = ui.add(edit);
    name(ui, &field, "Instructions to the model");
    if field.changed() {
        actions.push(Action::Instruct(system));
    }
    let mut asked = state.settings.asked.clone();
    ui.horizontal(|ui| {
        title(ui, "Sampling", palette);
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let reset = ui
                .small_button("Reset")
                .on_hover_text("As the model's makers recommend, where that is known");
            name(ui, &reset, "Reset the sampling");
            if reset.clicked() {
                actions.push(Action::ResetSampling);
            }
        });
    });
    show_sampling(ui, &mut asked);
    title(ui, "JSON", palette);
    ui.checkbox(&mut asked.is_json, "Answer in JSON by this schema");
    if asked.is_json {
        let edit = TextEdit::multiline(&mut asked.schema)
            .font(TextStyle::Monospace)
            .desired_rows(8)
            .desired_width(f32::INFINITY);
        let field = ui.add(edit);
        name(ui, &field, "JSON schema");
        match asked.schema_error() {
            Some(error) => ui.label(RichText::new(error).small().color(palette.bad)),
            None => {
                ui.label(RichText::new("Whatever the model says is valid by it.").small().color(palette.weak))
            }
        };
    }
    state.settings.asked = asked;
    show_context(ui, state, actions);
}

fn show_sampling(ui: &mut Ui, asked: &mut Asked) {
    Grid::new("sampling").num_columns(2).spacing([10.0, 7.0]).show(ui, |ui| {
        let mut row = |text: &str, about: &str, widget: Slider<'_>| {
            let label = ui.label(text).on_hover_text(about);
            ui.add(widget).labelled_by(label.id).on_hover_text(about);
            ui.end_row();
        };
        row(
            "Temperature",
            "0 takes the likeliest word, more is bolder",
            Slider::new(&mut asked.temperature, 0.0..=2.0).max_decimals(2),
        );
        row(
            "Top-p",
            "Keeps the likeliest that together reach this share; 1 keeps all",
            Slider::new(&mut asked.top_p, 0.05..=1.0).max_decimals(2),
        );
        row("Top-k", "Keeps the k likeliest; 0 keeps all", Slider::new(&mut asked.top_k, 0..=200));
        row(
            "Min-p",
            "Keeps those with at least this share of the likeliest's; 0 keeps all",
            Slider::new(&mut asked.min_p, 0.0..=0.5).max_decimals(2),
        );
        row(
            "Repeat penalty",
            "Above 1, what was said lately is less likely",
            Slider::new(&mut asked.repeat_penalty, 0.8..=1.6).max_decimals(2),
        );
        row("Longest answer", "In tokens", Slider::new(&mut asked.max_tokens, 16..=8192).logarithmic(true));
    });
    ui.horizontal(|ui| {
        let mut is_fixed = asked.seed.is_some();
        let about = "With the same seed and the same words, the same answer";
        if ui.checkbox(&mut is_fixed, "Fixed seed").on_hover_text(about).changed() {
            asked.seed = is_fixed.then_some(42);
        }
        if let Some(seed) = &mut asked.seed {
            let field = ui.add(DragValue::new(seed));
            name(ui, &field, "Seed");
        }
    });
}

fn show_context(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    title(ui, "Context", palette);
    let slides = &mut state.settings.asked.slides;
    ui.checkbox(slides, "Go on when it is full")
        .on_hover_text("The beginning and the latest part stay in sight; otherwise the answer ends");
    let load = &mut state.settings.load;
    ui.horizontal(|ui| {
        let mut is_own = load.context.is_some();
        let about =
            "How many tokens a conversation may have; otherwise what the model was trained for, at most 4096";
        if ui.checkbox(&mut is_own, "A length of its own").on_hover_text(about).changed() {
            load.context = is_own.then_some(2048);
        }
        if let Some(context) = &mut load.context {
            let field = ui.add(DragValue::new(context).range(64..=1_048_576).speed(32).suffix(" tokens"));
            name(ui, &field, "Context in tokens");
        }
    });
    ui.horizontal(|ui| {
        ui.label("Stored in").on_hover_text("Fewer bits take less memory, and lose a little");
        for (cache, text) in [(Cache::F16, "16 bits"), (Cache::Q8, "8"), (Cache::Q4, "4")] {
            let button = ui.selectable_label(load.cache == cache, text);
            name(
                ui,
                &button,
                &format!(
                    "Keys and values in {}",
                    if cache == Cache::F16 { "16 bits".into() } else { format!("{text} bits") }
                ),
            );
            if button.clicked() {
                load.cache = cache;
            }
        }
    });
    if let Some(path) = needs_reload(state.loaded.as_ref(), &state.settings.load) {
        ui.horizontal(|ui| {
            ui.label(RichText::new("For the next load.").small().color(palette.warn));
            if ui.small_button("Load again").clicked() {
                actions.push(Action::Load(path));
            }
        });
    }
}

/// The model that is there, where it was loaded with other choices.
fn needs_reload(loaded: Option<&crate::worker::Loaded>, load: &Load) -> Option<std::path::PathBuf> {
    let info = &loaded?.info;
    let kv = match load.cache {
        Cache::F16 => "f16",
        Cache::Q8 => "q8",
        Cache::Q4 => "q4",
    };
    let is_other =
        load.context.is_some_and(|context| context != info.context) || info.estimate.kv_type.name() != kv;
    is_other.then(|| info.path.clone())
}

fn show_device(ui: &mut Ui, state: &mut State, looks: &mut Looks, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui.ctx());
    if let Some(find) = ask_for_devices(looks) {
        state.order(find);
    }
    title(ui, "Where to compute", palette);
    for offer in device::offers(state.drawing.as_ref(), &state.devices) {
        let is_chosen = state.settings.place == offer.place;
        ui.push_id(&offer.name, |ui| {
            let radio = ui.add_enabled_ui(offer.is_usable, |ui| ui.radio(is_chosen, &offer.name)).inner;
            if radio.clicked() && !is_chosen {
                actions.push(Action::Compute(offer.place.clone()));
            }
            ui.indent("about", |ui| {
                ui.add(Label::new(RichText::new(&offer.about).small().color(palette.weak)).wrap())
            });
        });
    }
    if let Some(loaded) = &state.loaded {
        title(ui, "Now", palette);
        theme::card(palette).show(ui, |ui| {
            ui.set_width(ui.available_width());
            let device = if state.meters.device.device.is_empty() {
                &loaded.info.device.name
            } else {
                &state.meters.device.device
            };
            ui.label(RichText::new(device).color(palette.strong));
            let reason =
                if state.meters.device.recoveries > 0 { &state.meters.device.reason } else { &loaded.reason };
            ui.add(Label::new(RichText::new(format!("because {reason}")).small().color(palette.weak)).wrap());
        });
    }
    title(ui, "The window's share", palette);
    ui.checkbox(&mut state.settings.keep_frames, "Leave the window its frames")
        .on_hover_text("Work for the GPU is cut into slices, so that a frame never waits long");
    if state.settings.keep_frames {
        ui.horizontal(|ui| {
            let label = ui.label("A frame waits at most");
            ui.add(DragValue::new(&mut state.settings.budget_ms).range(1.0..=50.0).speed(0.1).suffix(" ms"))
                .labelled_by(label.id);
        });
    }
    show_looks(ui, state);
    title(ui, "A bad day", palette);
    let lose = ui.add_enabled(state.loaded.is_some(), Button::new("Lose the device now"));
    if lose.on_hover_text("A drill: the device counts as lost, in the middle of an answer if you like. It goes on with the same words.").clicked() {
        actions.push(Action::Lose);
    }
    CollapsingHeader::new("Keys").show(ui, |ui| {
        Grid::new("keys").num_columns(2).spacing([12.0, 3.0]).show(ui, |ui| {
            for (key, what) in KEYS {
                ui.label(RichText::new(*key).small().monospace());
                ui.label(RichText::new(*what).small().color(palette.weak));
                ui.end_row();
            }
        });
    });
}

fn show_looks(ui: &mut Ui, state: &mut State) {
    let palette = theme::palette(ui.ctx());
    title(ui, "Looks", palette);
    ui.horizontal(|ui| {
        for (theme, text) in [(Theme::System, "System"), (Theme::Light, "Light"), (Theme::Dark, "Dark")] {
            ui.selectable_value(&mut state.settings.theme, theme, text);
        }
    });
    ui.horizontal(|ui| {
        let label = ui.label("Size");
        let mut percent = (ui.ctx().zoom_factor() * 100.0).round();
        let field = ui.add(
            DragValue::new(&mut percent)
                .range(50.0..=300.0)
                .speed(1.0)
                .suffix(" %")
                .update_while_editing(false),
        );
        if field.labelled_by(label.id).changed() {
            ui.ctx().set_zoom_factor(percent / 100.0);
        }
    });
}
