//! Ctrl-C: it stops what is under way, in order; where nothing can be stopped, or the second time, the program.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pocketlm::{Error, Kind, Result};

use crate::failure;
use crate::output;

type Stop = Box<dyn FnOnce() + Send>;

/// What the next Ctrl-C stops.
static STOP: Mutex<Option<Stop>> = Mutex::new(None);

/// Listens from now on.
///
/// # Errors
/// `Io` where the system refuses.
pub(crate) fn listen() -> Result<()> {
    let heard = || {
        let stop = next().take();
        match stop {
            Some(stop) => stop(),
            None => {
                output::error("interrupted");
                process::exit(failure::exit_code(Kind::Cancelled).into());
            }
        }
    };
    ctrlc::set_handler(heard).map_err(|error| Error::new(Kind::Io, format!("no Ctrl-C: {error}")))
}

/// While the guard lives, the next Ctrl-C calls `stop`.
pub(crate) fn stops(stop: impl FnOnce() + Send + 'static) -> Stopping {
    *next() = Some(Box::new(stop));
    Stopping(())
}

/// See [`stops`].
pub(crate) struct Stopping(());

impl Drop for Stopping {
    fn drop(&mut self) {
        *next() = None;
    }
}

/// Work in pieces: between two of them it looks whether Ctrl-C was pressed.
pub(crate) struct Work {
    stopped: Arc<AtomicBool>,
    _stopping: Stopping,
}

impl Work {
    pub(crate) fn begin() -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = stopped.clone();
        Self { stopped, _stopping: stops(move || flag.store(true, Ordering::Relaxed)) }
    }

    /// # Errors
    /// `Cancelled` after Ctrl-C.
    pub(crate) fn check(&self) -> Result<()> {
        if self.stopped.load(Ordering::Relaxed) { Err(interrupted()) } else { Ok(()) }
    }
}

/// The error that ends an interrupted command.
pub(crate) fn interrupted() -> Error {
    Error::new(Kind::Cancelled, "interrupted")
}

fn next() -> MutexGuard<'static, Option<Stop>> {
    STOP.lock().unwrap_or_else(PoisonError::into_inner)
}
