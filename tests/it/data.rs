//! Where the tests' data lies.

use std::path::{Path, PathBuf};

/// A file or folder of the data that stand beside the repository.
pub(crate) fn shared(name: &str) -> PathBuf {
    existing("../shared/data", name)
}

fn existing(folder: &str, name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
    assert!(path.exists(), "{} is missing; the tests need it", path.display());
    path
}

/// A fresh folder for what a test writes, named after the test.
pub(crate) fn scratch(test: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}
