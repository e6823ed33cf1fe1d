//! Writes the Python, Kotlin or Swift of the library: `pocketlm-bindgen python|kotlin|swift LIBRARY FOLDER`.

use std::process::exit;

use camino::Utf8PathBuf;
use uniffi_bindgen::bindings::{GenerateOptions, TargetLanguage, generate_with_bindgen_paths};
use uniffi_bindgen::{BindgenPaths, BindgenPathsLayer};

/// Where the library's `uniffi.toml` lies.
struct Settings;

impl BindgenPathsLayer for Settings {
    fn get_crate_root(&self, _name: &str) -> Option<Utf8PathBuf> {
        Some(concat!(env!("CARGO_MANIFEST_DIR"), "/../ffi").into())
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [language, library, folder] = arguments.as_slice() else { usage() };
    let language = match language.as_str() {
        "python" => TargetLanguage::Python,
        "kotlin" => TargetLanguage::Kotlin,
        "swift" => TargetLanguage::Swift,
        _ => usage(),
    };
    let options = GenerateOptions {
        languages: vec![language],
        source: library.into(),
        out_dir: folder.into(),
        ..GenerateOptions::default()
    };
    let mut paths = BindgenPaths::default();
    paths.add_layer(Settings);
    if let Err(error) = generate_with_bindgen_paths(options, paths) {
        fail(&format!("error: {error:#}"), 1);
    }
}

fn usage() -> ! {
    fail("usage: pocketlm-bindgen python|kotlin|swift LIBRARY FOLDER", 2)
}

#[allow(clippy::print_stderr, reason = "a command talks")]
fn fail(message: &str, code: i32) -> ! {
    eprintln!("{message}");
    exit(code)
}
