//! Files held against a manifest while their weights go to the device: threads of their own read chunk after chunk, in the
//! order of the files, so that each byte comes from the disk once. Nothing is handed out before all chunks are right.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::{Error, Kind, Result};
use crate::format::Chunk;

/// Threads that check beside the one that loads.
const THREADS: usize = 3;

/// How far the checking is.
pub(super) struct Checking<'a> {
    chunks: &'a [Chunk],
    next: AtomicUsize,
    checked: AtomicUsize,
    stopped: AtomicBool,
    wrong: Mutex<Option<Error>>,
}

/// What `work` gives, while and after all `chunks` are checked. `work` may ask how it stands, and should at each step.
///
/// # Errors
/// The first chunk that is wrong, whatever became of the work; else what `work` returns. Where that is `Cancelled`, nobody
/// waits for the rest.
pub(super) fn checked<T>(chunks: &[Chunk], work: impl FnOnce(&Checking<'_>) -> Result<T>) -> Result<T> {
    let checking = Checking {
        chunks,
        next: AtomicUsize::new(0),
        checked: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
        wrong: Mutex::default(),
    };
    let outcome = thread::scope(|scope| {
        for _ in 0..THREADS.min(chunks.len()) {
            let helper = thread::Builder::new().name("pocketlm-verify".into());
            if let Err(error) = helper.spawn_scoped(scope, || checking.run(|_| Ok(()))) {
                // This thread does what no other does.
                log::warn!("no thread to verify in: {error}");
            }
        }
        let outcome = work(&checking);
        if matches!(&outcome, Err(error) if error.kind() == Kind::Cancelled) {
            checking.stopped.store(true, Ordering::Relaxed);
        }
        outcome
    });
    if !matches!(&outcome, Err(error) if error.kind() == Kind::Cancelled) {
        checking.run(|_| Ok(()))?;
    }
    checking.verdict().and(outcome)
}

impl Checking<'_> {
    /// # Errors
    /// The first chunk that is wrong so far.
    pub(super) fn verdict(&self) -> Result<()> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    /// Helps until all is checked; `tell` hears how much of it is, and stops it with an error.
    pub(super) fn run(&self, mut tell: impl FnMut(f32) -> Result<()>) -> Result<()> {
        while !self.stopped.load(Ordering::Relaxed) {
            let Some(chunk) = self.chunks.get(self.next.fetch_add(1, Ordering::Relaxed)) else { break };
            if let Err(error) = chunk.check() {
                self.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                self.stopped.store(true, Ordering::Relaxed);
            }
            let checked = self.checked.fetch_add(1, Ordering::Relaxed) + 1;
            tell(checked as f32 / self.chunks.len() as f32)?;
        }
        Ok(())
    }
}
