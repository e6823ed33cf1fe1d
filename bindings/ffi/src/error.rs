//! What went wrong, by kind.

use std::fmt;

use pocketlm::{Error, Kind};

/// A failure, each with a sentence: what, where, the cause, and what would work.
#[derive(Clone, Debug, uniffi::Error)]
#[uniffi(flat_error)]
pub enum PocketlmError {
    /// The operating system refused a file or a stream.
    Io(String),
    /// No model or session at the given place.
    NotFound(String),
    /// A file contradicts its format or itself.
    BadFile(String),
    /// The file is sound, but asks for something that is not there.
    Unsupported(String),
    /// An argument makes no sense.
    InvalidArgument(String),
    /// More tokens than the context holds.
    ContextOverflow(String),
    /// Memory of the host or of the device ran out, or would.
    OutOfMemory(String),
    /// No device fits the request.
    DeviceUnavailable(String),
    /// The device went away.
    DeviceLost(String),
    /// A kernel computed something that it must not.
    WrongNumbers(String),
    /// A chat template refused the conversation.
    Template(String),
    /// The session is already generating.
    SessionBusy(String),
    /// The caller stopped the work.
    Cancelled(String),
    /// The engine stands still until it is resumed.
    Suspended(String),
    /// The app's own callback failed.
    Callback(String),
    /// A bug in the library.
    Internal(String),
}

/// What an app's callback throws.
#[derive(Clone, Debug, uniffi::Error)]
pub enum ListenerError {
    /// It failed.
    Failed {
        /// How.
        reason: String,
    },
}

/// `Result` with [`PocketlmError`].
pub(crate) type Result<T> = std::result::Result<T, PocketlmError>;

impl fmt::Display for PocketlmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Io(reason)
        | Self::NotFound(reason)
        | Self::BadFile(reason)
        | Self::Unsupported(reason)
        | Self::InvalidArgument(reason)
        | Self::ContextOverflow(reason)
        | Self::OutOfMemory(reason)
        | Self::DeviceUnavailable(reason)
        | Self::DeviceLost(reason)
        | Self::WrongNumbers(reason)
        | Self::Template(reason)
        | Self::SessionBusy(reason)
        | Self::Cancelled(reason)
        | Self::Suspended(reason)
        | Self::Callback(reason)
        | Self::Internal(reason)) = self;
        f.write_str(reason)
    }
}

impl fmt::Display for ListenerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Failed { reason } = self;
        f.write_str(reason)
    }
}

impl std::error::Error for ListenerError {}

impl std::error::Error for PocketlmError {}

impl From<Error> for PocketlmError {
    fn from(error: Error) -> Self {
        let reason = error.to_string();
        match error.kind() {
            Kind::Io => Self::Io(reason),
            Kind::NotFound => Self::NotFound(reason),
            Kind::BadFile => Self::BadFile(reason),
            Kind::Unsupported => Self::Unsupported(reason),
            Kind::InvalidArgument => Self::InvalidArgument(reason),
            Kind::ContextOverflow => Self::ContextOverflow(reason),
            Kind::OutOfMemory => Self::OutOfMemory(reason),
            Kind::DeviceUnavailable => Self::DeviceUnavailable(reason),
            Kind::DeviceLost => Self::DeviceLost(reason),
            Kind::WrongNumbers => Self::WrongNumbers(reason),
            Kind::Template => Self::Template(reason),
            Kind::SessionBusy => Self::SessionBusy(reason),
            Kind::Cancelled => Self::Cancelled(reason),
            Kind::Suspended => Self::Suspended(reason),
            _ => Self::Internal(reason),
        }
    }
}

impl From<ListenerError> for PocketlmError {
    fn from(error: ListenerError) -> Self {
        Self::Callback(format!("the callback failed: {error}"))
    }
}

/// What an exception of the app's becomes that its language does not declare.
impl From<uniffi::UnexpectedUniFFICallbackError> for ListenerError {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Failed { reason: error.reason }
    }
}

pub(crate) fn busy(reason: &str) -> PocketlmError {
    PocketlmError::SessionBusy(reason.to_owned())
}

pub(crate) fn internal(reason: &str) -> PocketlmError {
    PocketlmError::Internal(reason.to_owned())
}

pub(crate) fn invalid(reason: &str) -> PocketlmError {
    PocketlmError::InvalidArgument(reason.to_owned())
}
