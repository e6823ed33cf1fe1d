//! How a door ends: a status, and what went wrong in the calling thread.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pocketlm::{Error, Kind};

use crate::handles::NoHandle;
use crate::input::{self, Versioned};
use crate::prompt::plm_text;

/// How a call ended. Below 16 nothing went wrong. Newer libraries may return values that are not here.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum plm_status {
    /// It did what it says.
    PLM_OK = 0,
    /// A stream has no further event.
    PLM_END = 1,
    /// A stream has no event yet.
    PLM_PENDING = 2,
    /// The operating system refused a file or a stream.
    PLM_IO = 16,
    /// No model, session or device at the given place.
    PLM_NOT_FOUND = 17,
    /// A file contradicts its format or itself.
    PLM_BAD_FILE = 18,
    /// The file is sound, but asks for something that is not there; or options of a newer header.
    PLM_UNSUPPORTED = 19,
    /// An argument makes no sense: null, not UTF-8, out of its range.
    PLM_INVALID_ARGUMENT = 20,
    /// More tokens than the context holds.
    PLM_CONTEXT_OVERFLOW = 21,
    /// Memory of the host or of the device ran out, or would.
    PLM_OUT_OF_MEMORY = 22,
    /// No device fits the request.
    PLM_DEVICE_UNAVAILABLE = 23,
    /// The device went away.
    PLM_DEVICE_LOST = 24,
    /// A kernel computed something that it must not.
    PLM_WRONG_NUMBERS = 25,
    /// A chat template refused the conversation.
    PLM_TEMPLATE = 26,
    /// The session generates already, or another thread is in a call on the same session or stream.
    PLM_SESSION_BUSY = 27,
    /// The caller stopped the work.
    PLM_CANCELLED = 28,
    /// The engine stands still until it is resumed.
    PLM_SUSPENDED = 29,
    /// A bug in the library.
    PLM_INTERNAL = 30,
    /// The handle is null, freed, made up, or of another kind of object.
    PLM_INVALID_HANDLE = 31,
    /// The caller's memory is too small; how much it takes has been written.
    PLM_TOO_SMALL = 32,
    /// An error of a kind that this interface has no number for.
    PLM_OTHER = 33,
}

/// What went wrong. The texts belong to the library, and are valid until another call of the same thread fails.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_error {
    /// `sizeof(plm_error)`; `plm_error_default` says it.
    pub struct_size: usize,
    /// What the call returned, a `plm_status`.
    pub status: i32,
    /// One line: what, where, the cause, and what would work.
    pub message: plm_text,
    /// What would work, by itself; empty where nobody knows.
    pub hint: plm_text,
}

/// Why a door does not open.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: plm_status,
    message: CString,
    hint: String,
}

/// What a door returns.
pub(crate) type Outcome<T = plm_status> = Result<T, Refusal>;

thread_local! {
    static LAST: RefCell<Option<Refusal>> = const { RefCell::new(None) };
}

/// The last error of this thread, of a call that returned a status of 16 or more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_last_error(error: *mut plm_error) -> plm_status {
    // Not through `door`: a refusal here must not take the place of the error that is asked for.
    let told = LAST.try_with(|last| {
        let last = last.borrow();
        let (status, message, hint) = match &*last {
            Some(last) => (last.status as i32, last.message.to_str().unwrap_or_default(), last.hint.as_str()),
            None => (plm_status::PLM_OK as i32, "", ""),
        };
        let told = plm_error {
            status,
            message: plm_text::of(message),
            hint: plm_text::of(hint),
            ..plm_error_default()
        };
        // SAFETY: the caller hands a `plm_error` of the size that it says.
        unsafe { input::give(error, told) }
    });
    match told {
        Ok(Ok(())) => plm_status::PLM_OK,
        Ok(Err(refusal)) => refusal.status,
        Err(_ending) => plm_status::PLM_INTERNAL,
    }
}

/// `plm_error` as `plm_last_error` takes it.
#[unsafe(no_mangle)]
pub extern "C" fn plm_error_default() -> plm_error {
    plm_error::usual()
}

/// The message of the last error of this thread, ended by a null byte; empty where there was none.
#[unsafe(no_mangle)]
pub extern "C" fn plm_last_error_message() -> *const c_char {
    let message = LAST.try_with(|last| last.borrow().as_ref().map(|last| last.message.as_ptr()));
    message.ok().flatten().unwrap_or(c"".as_ptr())
}

/// A status in a word: `invalid argument`.
#[unsafe(no_mangle)]
pub extern "C" fn plm_status_name(status: i32) -> *const c_char {
    let name = match status {
        0 => c"ok",
        1 => c"end",
        2 => c"pending",
        16 => c"io",
        17 => c"not found",
        18 => c"bad file",
        19 => c"unsupported",
        20 => c"invalid argument",
        21 => c"context overflow",
        22 => c"out of memory",
        23 => c"device unavailable",
        24 => c"device lost",
        25 => c"wrong numbers",
        26 => c"template",
        27 => c"session busy",
        28 => c"cancelled",
        29 => c"suspended",
        30 => c"internal",
        31 => c"invalid handle",
        32 => c"too small",
        33 => c"other",
        _ => c"unknown",
    };
    name.as_ptr()
}

/// Does the work of a door: what fails is kept for the thread, and nothing unwinds.
pub(crate) fn door(work: impl FnOnce() -> Outcome) -> plm_status {
    let refusal = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(status)) => return status,
        Ok(Err(refusal)) => refusal,
        Err(panic) => Refusal::panicked(&*panic),
    };
    let status = refusal.status;
    // A thread that is ending has nobody to tell.
    let _told = LAST.try_with(|last| *last.borrow_mut() = Some(refusal));
    status
}

impl Refusal {
    pub(crate) fn new(status: plm_status, message: &str, hint: &str) -> Self {
        // A text from outside may hold null bytes.
        let message = CString::new(message.replace('\0', "\u{fffd}")).unwrap_or_default();
        Self { status, message, hint: hint.to_owned() }
    }

    pub(crate) fn invalid(message: &str) -> Self {
        Self::new(plm_status::PLM_INVALID_ARGUMENT, message, "")
    }

    fn panicked(panic: &(dyn Any + Send)) -> Self {
        let what = panic.downcast_ref::<&str>().copied();
        let what = what.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let message = format!("a bug in pocketlm: {}", what.unwrap_or("a panic without words"));
        Self::new(plm_status::PLM_INTERNAL, &message, "please report it")
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::new(status(error.kind()), &error.to_string(), error.what_would_work().unwrap_or_default())
    }
}

impl From<NoHandle> for Refusal {
    fn from(NoHandle(message): NoHandle) -> Self {
        Self::new(plm_status::PLM_INVALID_HANDLE, &message, "")
    }
}

fn status(kind: Kind) -> plm_status {
    match kind {
        Kind::Io => plm_status::PLM_IO,
        Kind::NotFound => plm_status::PLM_NOT_FOUND,
        Kind::BadFile => plm_status::PLM_BAD_FILE,
        Kind::Unsupported => plm_status::PLM_UNSUPPORTED,
        Kind::InvalidArgument => plm_status::PLM_INVALID_ARGUMENT,
        Kind::ContextOverflow => plm_status::PLM_CONTEXT_OVERFLOW,
        Kind::OutOfMemory => plm_status::PLM_OUT_OF_MEMORY,
        Kind::DeviceUnavailable => plm_status::PLM_DEVICE_UNAVAILABLE,
        Kind::DeviceLost => plm_status::PLM_DEVICE_LOST,
        Kind::WrongNumbers => plm_status::PLM_WRONG_NUMBERS,
        Kind::Template => plm_status::PLM_TEMPLATE,
        Kind::SessionBusy => plm_status::PLM_SESSION_BUSY,
        Kind::Cancelled => plm_status::PLM_CANCELLED,
        Kind::Suspended => plm_status::PLM_SUSPENDED,
        Kind::Internal => plm_status::PLM_INTERNAL,
        _ => plm_status::PLM_OTHER,
    }
}

// SAFETY: numbers and pointers, the size first.
unsafe impl Versioned for plm_error {
    fn usual() -> Self {
        let (message, hint) = (plm_text::of(""), plm_text::of(""));
        Self { struct_size: size_of::<Self>(), status: plm_status::PLM_OK as i32, message, hint }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn last() -> (i32, String) {
        let mut error = plm_error_default();
        // SAFETY: it is one.
        assert_eq!(unsafe { plm_last_error(&raw mut error) }, plm_status::PLM_OK);
        // SAFETY: no call of this thread has failed since.
        let message = unsafe { CStr::from_ptr(plm_last_error_message()) };
        (error.status, message.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_panic_is_an_error_and_does_not_unwind() {
        assert_eq!(door(|| panic!("planted {}", 1)), plm_status::PLM_INTERNAL);
        assert_eq!(last(), (plm_status::PLM_INTERNAL as i32, "a bug in pocketlm: planted 1".to_owned()));
        assert_eq!(door(|| std::panic::panic_any(7)), plm_status::PLM_INTERNAL);
    }

    #[test]
    fn an_error_is_kept_for_its_thread() {
        let error = Error::invalid("the planted \0 argument").hint("another");
        assert_eq!(door(|| Err(error.into())), plm_status::PLM_INVALID_ARGUMENT);
        let message = "the planted \u{fffd} argument; another".to_owned();
        assert_eq!(last(), (plm_status::PLM_INVALID_ARGUMENT as i32, message));
        let elsewhere = std::thread::spawn(last).join().unwrap();
        assert_eq!(elsewhere, (plm_status::PLM_OK as i32, String::new()));
        // A call that ends well leaves it.
        assert_eq!(door(|| Ok(plm_status::PLM_END)), plm_status::PLM_END);
        assert_eq!(last().0, plm_status::PLM_INVALID_ARGUMENT as i32);
    }
}
