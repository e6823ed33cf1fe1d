//! Where the tests' data lies.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use pocketlm::Limits;

/// A file or folder of the data that stand beside the repository.
pub(crate) fn shared(name: &str) -> PathBuf {
    existing("../shared/data", name)
}

fn existing(folder: &str, name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
    assert!(path.exists(), "{} is missing; the tests need it", path.display());
    path
}

/// A fresh folder for what a test writes, removed when dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = std::fs::remove_dir_all(&self.0);
        if !std::thread::panicking() {
            removed.unwrap_or_else(|error| panic!("{}: {error}", self.0.display()));
        }
    }
}

/// A fixture that the repository carries.
pub(crate) fn fixture(name: &str) -> PathBuf {
    existing("tests/fixtures", name)
}

/// The real model, SmolLM2-135M-Instruct: `POCKETLM_TEST_MODEL`, else where `pocketlm pull` keeps it.
pub(crate) fn real_model() -> PathBuf {
    let named = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = named("POCKETLM_TEST_MODEL").unwrap_or_else(|| {
        let cache = named("POCKETLM_CACHE").unwrap_or_else(|| platform_cache().join("pocketlm"));
        cache.join("models").join("smollm2-135m-instruct.gguf")
    });
    assert!(
        path.is_file(),
        "{} is missing; run `pocketlm pull smollm2-135m-instruct`, or name the file in POCKETLM_TEST_MODEL",
        path.display()
    );
    path
}

/// How much of a GPU the tests may use: `POCKETLM_LIMITS=floor` for what every WebGPU device has, all of it by default.
pub(crate) fn limits() -> Limits {
    match std::env::var("POCKETLM_LIMITS") {
        Err(_) => Limits::Device,
        Ok(name) if name == "floor" => Limits::Floor,
        Ok(name) => panic!("POCKETLM_LIMITS is {name:?}; floor would work"),
    }
}

fn platform_cache() -> PathBuf {
    use etcetera::BaseStrategy;
    etcetera::choose_base_strategy().expect("a home folder").cache_dir()
}

/// The model that tells stories, with a chat template, in a file of its own.
pub(crate) fn stories_with(folder: &Scratch, template: &str) -> PathBuf {
    let mut bytes = fs::read(fixture("stories260k/stories260K-f32.gguf")).expect("the fixture");
    let key = "tokenizer.chat_template";
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    // Made as long as a multiple of the alignment, by a comment, so that what stands behind it stays aligned.
    let length = 8 + key.len() + 4 + 8 + template.len() + 4;
    let template = format!("{template}{{#{}#}}", " ".repeat(length.next_multiple_of(32) - length));
    let pair = [text(key), 8u32.to_le_bytes().to_vec(), text(&template)].concat();
    assert_eq!(pair.len() % 32, 0);
    let count = u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes"));
    bytes[16..24].copy_from_slice(&(count + 1).to_le_bytes());
    bytes.splice(24..24, pair);
    let path = folder.join("stories.gguf");
    fs::write(&path, bytes).expect("a file of this test's own");
    path
}
