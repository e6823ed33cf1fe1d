//! `pocketlm-desktop [--folder FOLDER] [MODEL]`: the window. Loads a model only where one is named.
#![windows_subsystem = "windows"]
#![allow(clippy::print_stderr, reason = "who starts it from a terminal is told why it does not")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use eframe::egui_wgpu::WgpuConfiguration;
use pocketlm_desktop::app::{self, App};
use pocketlm_desktop::settings::Settings;
use pocketlm_desktop::store::Store;

const USAGE: &str = "usage: pocketlm-desktop [--folder FOLDER] [MODEL]
  --folder FOLDER   keeps conversations and settings there
  MODEL             a model file or folder to load at once";

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("POCKETLM_LOG", "warn")).init();
    let outcome =
        read(std::env::args_os().skip(1).map(PathBuf::from)).and_then(|(folder, model)| run(folder, model));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// The folder and the model of a command line.
fn read(mut words: impl Iterator<Item = PathBuf>) -> Result<(Option<PathBuf>, Option<PathBuf>), String> {
    let (mut folder, mut model) = (None, None);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--folder") => folder = Some(words.next().ok_or(USAGE)?),
            Some(flag) if flag.starts_with("--") => return Err(USAGE.into()),
            _ if model.is_none() => model = Some(word),
            _ => return Err(USAGE.into()),
        }
    }
    Ok((folder, model))
}

fn run(folder: Option<PathBuf>, model: Option<PathBuf>) -> Result<(), String> {
    let store = folder
        .map_or_else(Store::of_person, |folder| Ok(Store::new(folder)))
        .map_err(|error| error.to_string())?;
    let settings = store.settings();
    let options = eframe::NativeOptions {
        viewport: app::viewport(&settings),
        renderer: eframe::Renderer::Wgpu,
        wgpu_options: WgpuConfiguration { wgpu_setup: app::setup(), ..WgpuConfiguration::default() },
        ..eframe::NativeOptions::default()
    };
    let create =
        Box::new(move |context: &eframe::CreationContext<'_>| create(context, store, settings, model));
    eframe::run_native("pocketlm-desktop", options, create).map_err(|error| format!("no window: {error}"))
}

fn create(
    context: &eframe::CreationContext<'_>,
    store: Store,
    settings: Settings,
    model: Option<PathBuf>,
) -> Result<Box<dyn eframe::App>, Box<dyn Error + Send + Sync>> {
    let drawing = context.wgpu_render_state.as_ref().map(app::drawing);
    let mut app = App::new(&context.egui_ctx, store, settings, drawing)?;
    if let Some(model) = model {
        app.open(model);
    }
    Ok(Box::new(app))
}
