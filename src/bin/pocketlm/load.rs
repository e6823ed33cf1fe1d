//! Loading a model for a command: where it lies, on which device, and what the user sees meanwhile.

use std::time::Instant;

use pocketlm::{Draft, Engine, EngineOptions, LoadOptions, LoadStage, Model, ModelInfo, Result};
use serde_json::{Value, json};

use crate::args::{DeviceArgs, DraftArgs, ModelArgs};
use crate::interrupt::Work;
use crate::{models, output};

/// Loads the model that the flags name and says which device was chosen and why.
///
/// # Errors
/// As `models::resolve` and [`Engine::load`]; `Cancelled` after Ctrl-C.
pub(crate) fn load(model: &ModelArgs, device: &DeviceArgs, options: &LoadOptions) -> Result<Model> {
    Ok(load_with_engine(model, device, options)?.1)
}

/// The same, for who does more with the engine.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_with_engine(
    model: &ModelArgs,
    device: &DeviceArgs,
    options: &LoadOptions,
) -> Result<(Engine, Model)> {
    let path = models::resolve(model.model.as_deref())?;
    let tuning = if device.no_tune { None } else { Some(models::cache_folder()?) };
    let engine = Engine::new(EngineOptions { tuning, ..device.options() });
    engine.set_pace(device.pace);
    engine.sustain(device.sustain)?;
    let bar = output::load_bar();
    let work = Work::begin();
    let mut stages: Vec<(LoadStage, Instant)> = Vec::new();
    let loaded = engine.load(path, options, |progress| {
        if stages.last().is_none_or(|(stage, _)| *stage != progress.stage) {
            stages.push((progress.stage, Instant::now()));
        }
        bar.set_message(match progress.stage {
            LoadStage::Reading => "reading  ",
            LoadStage::Opening => "opening  ",
            LoadStage::Uploading => "loading  ",
            LoadStage::Compiling => "compiling",
            LoadStage::Verifying => "verifying",
        });
        bar.set_position((progress.fraction * 1000.0) as u64);
        work.check()
    });
    bar.finish_and_clear();
    let model = loaded?;
    let ends = stages.iter().skip(1).map(|(_, begun)| *begun).chain([Instant::now()]);
    for ((stage, begun), end) in stages.iter().zip(ends) {
        log::info!("{stage:?} took {:.0} ms", (end - *begun).as_secs_f64() * 1e3);
    }
    let ModelInfo { path, reason, load_time, parameters, weight_bytes, context, .. } = model.info();
    output::note(&format!("computing on {}: {reason}", device_name(model.info())));
    log::info!(
        "loaded {} in {:.0} ms: {:.1} M weights, {:.1} MiB, context {context}",
        path.display(),
        load_time.as_secs_f64() * 1e3,
        *parameters as f64 / 1e6,
        *weight_bytes as f64 / f64::from(1 << 20),
    );
    Ok((engine, model))
}

/// Where guesses come from, loaded where it is a model: on the same device, for one session.
///
/// # Errors
/// As [`load`].
pub(crate) fn draft(draft: &DraftArgs, device: &DeviceArgs) -> Result<Option<Draft>> {
    Ok(match &draft.draft {
        None => draft.lookup.then_some(Draft::Lookup),
        Some(model) => {
            let model = ModelArgs { model: Some(model.clone()) };
            let options = LoadOptions { sessions: 1, ..LoadOptions::default() };
            Some(Draft::Model(load(&model, device, &options)?))
        }
    })
}

/// The device in words.
pub(crate) fn device_name(info: &ModelInfo) -> String {
    match info.device.backend {
        "cpu" => info.device.name.clone(),
        backend => format!("{} ({backend})", info.device.name),
    }
}

/// The device in JSON.
pub(crate) fn device_json(info: &ModelInfo) -> Value {
    json!({ "name": info.device.name, "backend": info.device.backend })
}
