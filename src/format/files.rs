//! The files of a model as they are opened: what was read can be held against a manifest, byte for byte.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::Bytes;
use crate::error::{Kind, Result};

/// Maps files and remembers them.
#[derive(Debug, Default)]
pub struct Files(RefCell<BTreeMap<PathBuf, Bytes>>);

impl Files {
    /// Maps the file at `path`, or gives what was mapped before.
    ///
    /// # Errors
    /// As [`Bytes::map`].
    pub fn map(&self, path: &Path) -> Result<Bytes> {
        if let Some(bytes) = self.0.borrow().get(path) {
            return Ok(bytes.clone());
        }
        let bytes = Bytes::map(path)?;
        self.add(path, &bytes);
        Ok(bytes)
    }

    /// The same, or `None` where there is no such file.
    ///
    /// # Errors
    /// As [`Bytes::map`], but for `NotFound`.
    pub fn optional(&self, path: &Path) -> Result<Option<Bytes>> {
        match self.map(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Remembers bytes that stand for the file at `path`.
    pub fn add(&self, path: &Path, bytes: &Bytes) {
        self.0.borrow_mut().insert(path.to_owned(), bytes.clone());
    }

    /// All files so far, by their paths.
    pub fn all(&self) -> BTreeMap<PathBuf, Bytes> {
        self.0.borrow().clone()
    }
}
