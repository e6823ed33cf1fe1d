//! Models by name, with a bar on stderr for what takes long.

use std::path::PathBuf;

use indicatif::ProgressBar;
use pocketlm::models::{self, PullProgress, PullStage};
use pocketlm::{Result, Sampling};

use crate::output;

pub(crate) use pocketlm::models::{DEFAULT, by_name, cache_folder, find, known};

/// The file or folder that `-m MODEL` means, fetched where it is a name of the manifest and not here yet.
///
/// # Errors
/// As [`models::resolve`].
pub(crate) fn resolve(model: Option<&str>) -> Result<PathBuf> {
    drawn(|progress| match model {
        Some(name) => models::resolve(name, progress),
        // A folder that happens to be called so is not meant.
        None => known_or_pulled(progress),
    })
}

/// Fetches a model by name, or checks the copy that is here; replaces a damaged one.
///
/// # Errors
/// As [`models::pull`].
pub(crate) fn pull(name: &str) -> Result<PathBuf> {
    drawn(|progress| models::pull(name, progress))
}

/// The sampling that the makers of `model` recommend for a chat.
pub(crate) fn recommended(model: Option<&str>) -> Sampling {
    by_name(model.unwrap_or(DEFAULT)).map(models::Known::sampling).unwrap_or_default()
}

fn known_or_pulled(progress: &mut dyn FnMut(PullProgress) -> Result<()>) -> Result<PathBuf> {
    match by_name(DEFAULT).map(find).transpose()?.flatten() {
        Some(path) => Ok(path),
        None => models::pull(DEFAULT, progress),
    }
}

fn drawn(
    work: impl FnOnce(&mut dyn FnMut(PullProgress) -> Result<()>) -> Result<PathBuf>,
) -> Result<PathBuf> {
    let mut bar: Option<ProgressBar> = None;
    let outcome = work(&mut |progress| {
        match progress.stage {
            PullStage::Damaged => output::note(&format!("{} is damaged; fetching it again", progress.what)),
            PullStage::Fetching => {
                let begin = || output::progress(&progress.what, progress.total);
                bar.get_or_insert_with(begin).set_position(progress.done);
            }
            PullStage::Waiting | PullStage::Checking => {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
            }
        }
        Ok(())
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    outcome
}
