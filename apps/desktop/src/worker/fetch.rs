//! Models: which there are, and one loaded.

use std::fs;
use std::path::{Path, PathBuf};

use pocketlm::{Engine, LoadProgress, Result, models};

use super::desk::Running;
use super::{Loaded, Shelved, Source};
use crate::device::Choice;

/// The models that have a name, what else lies in the cache, and the files that were `opened`.
pub(super) fn shelf(opened: &[PathBuf]) -> Vec<Shelved> {
    let mut shelf: Vec<Shelved> = models::known()
        .iter()
        .map(|known| Shelved {
            name: known.name.clone(),
            about: known.about.clone(),
            licence: known.licence.clone(),
            bytes: known.bytes,
            path: models::find(known).inspect_err(|error| log::warn!("{error}")).ok().flatten(),
            is_known: true,
        })
        .collect();
    let cached = models::cache_folder().map(|folder| folder.join("models")).ok();
    let mut files: Vec<PathBuf> = cached
        .and_then(|folder| fs::read_dir(folder).ok())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gguf"))
        .filter(|path| stem(path).is_none_or(|stem| models::by_name(stem).is_none()))
        .collect();
    files.sort();
    files.extend(opened.iter().filter(|path| path.exists()).cloned());
    for path in files {
        if shelf.iter().all(|shelved| shelved.path.as_ref() != Some(&path)) {
            shelf.push(file(path));
        }
    }
    shelf
}

/// A file that has no name of its own here.
fn file(path: PathBuf) -> Shelved {
    let name = path
        .file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    let about = path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let bytes = size(&path);
    Shelved { name, about, bytes, path: Some(path), ..Shelved::default() }
}

fn size(path: &Path) -> u64 {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.metadata().map_or(0, |found| found.len())).sum()
        }
        Ok(found) => found.len(),
        Err(_) => 0,
    }
}

fn stem(path: &Path) -> Option<&str> {
    path.file_stem()?.to_str()
}

/// Loads a model, and starts what makes it compute.
pub(super) fn load(
    source: &Source,
    choice: Choice,
    progress: impl FnMut(LoadProgress) -> Result<()>,
) -> Result<Running> {
    let Choice { mut options, reason, is_shared } = choice;
    options.tuning = models::cache_folder().ok();
    let engine = Engine::new(options);
    let model = engine.load(&source.path, &source.load.options(), progress)?;
    let info = model.info().clone();
    let known = stem(&source.path).and_then(models::by_name).map(|known| known.name.clone());
    // Where the engine looked by itself, its own reason goes before.
    let reason = if is_shared { reason } else { format!("{}; {reason}", info.reason) };
    let loaded = Loaded { info, known, reason, is_shared, can_chat: model.can_chat() };
    let _ticks = pocketlm::Worker::start(&engine)?;
    Ok(Running { model, engine, loaded, _ticks })
}
