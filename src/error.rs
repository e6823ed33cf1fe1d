//! The one error type: what went wrong, where, and what would work.
//!
//! An [`Error`] is built from a [`Kind`] and a sentence, then told where it happened on its way up:
//!
//! ```
//! use pocketlm::{Error, Kind};
//! let error = Error::new(Kind::BadFile, "the tensor count 18446744073709551615 does not fit in the file")
//!     .at_offset(8)
//!     .in_file("model.gguf")
//!     .hint("download the file again");
//! assert_eq!(
//!     error.to_string(),
//!     "the tensor count 18446744073709551615 does not fit in the file (model.gguf, byte 8); download the file again"
//! );
//! ```

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// What family a failure belongs to. Stable: bindings and exit codes are derived from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The operating system refused a file or a stream.
    Io,
    /// No model at the given place.
    NotFound,
    /// A file contradicts its format or itself: truncated, corrupt, lying, or of another kind.
    BadFile,
    /// The file is sound, but asks for an architecture, format or feature that is not there.
    Unsupported,
    /// The caller's argument makes no sense.
    InvalidArgument,
    /// More tokens than the context holds.
    ContextOverflow,
    /// Memory of the host or of the device ran out, or would.
    OutOfMemory,
    /// No device fits the request.
    DeviceUnavailable,
    /// The device went away: reset, removed, or given to another.
    DeviceLost,
    /// A kernel computed something that it must not: NaN, infinity, or not what its twin computes.
    WrongNumbers,
    /// A chat template refused the conversation or broke its limits.
    Template,
    /// The session is already generating.
    SessionBusy,
    /// The caller stopped the work.
    Cancelled,
    /// The engine stands still until it is resumed.
    Suspended,
    /// A promise between two rooms of the engine was broken: a bug here.
    Internal,
}

/// `Result` with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure: its [`Kind`], what happened, where, what would work, and the cause beneath it.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    what: String,
    file: Option<String>,
    offset: Option<u64>,
    place: Vec<String>,
    hint: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of `kind`; `what` is a clause without a full stop.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            what: what.into(),
            file: None,
            offset: None,
            place: Vec::new(),
            hint: None,
            source: None,
        }))
    }

    /// A [`Kind::BadFile`].
    pub fn bad_file(what: impl Into<String>) -> Self {
        Self::new(Kind::BadFile, what)
    }

    /// A [`Kind::Unsupported`].
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, what)
    }

    /// A [`Kind::InvalidArgument`].
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, what)
    }

    /// A [`Kind::Internal`].
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Kind::Internal, what)
    }

    /// Names the file, unless one nearer to the failure already did.
    #[must_use]
    pub fn in_file(mut self, file: impl AsRef<Path>) -> Self {
        self.0.file.get_or_insert_with(|| file.as_ref().display().to_string());
        self
    }

    /// Names the byte of the file, unless one nearer to the failure already did.
    #[must_use]
    pub fn at_offset(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Names a place inside: a tensor, a metadata key, a layer, a step; the innermost first.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.0.place.push(place.into());
        self
    }

    /// Says what would work.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert(hint.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// The family of the failure.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What would work, where that is known: the last part of the sentence.
    pub fn what_would_work(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The byte offset in the file, where the failure has one.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }
}

impl fmt::Display for Error {
    /// One line: what (where), cause; hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        f.write_str(&inner.what)?;
        let offset = inner.offset.map(|offset| format!("byte {offset}"));
        let places: Vec<&str> =
            inner.file.iter().chain(&offset).chain(&inner.place).map(String::as_str).collect();
        if !places.is_empty() {
            write!(f, " ({})", places.join(", "))?;
        }
        if let Some(source) = &inner.source {
            write!(f, ": {source}")?;
        }
        if let Some(hint) = &inner.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            std::io::ErrorKind::OutOfMemory => Kind::OutOfMemory,
            _ => Kind::Io,
        };
        Self::new(kind, error.to_string())
    }
}
