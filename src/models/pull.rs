//! How far a pull is, and who may stop it.

use crate::error::Result;

/// How far a pull is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// What is being done.
    pub stage: PullStage,
    /// What it is done to: a file or a package.
    pub what: String,
    /// Bytes so far, of the stage.
    pub done: u64,
    /// Bytes of the stage in all.
    pub total: u64,
}

/// A stage of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullStage {
    /// Another process pulls the same model: this one waits for it.
    Waiting,
    /// The file that is here is not what it should be, and is fetched again.
    Damaged,
    /// A tool of the user's fetches it.
    Fetching,
    /// What is here is read to be held against its SHA-256.
    Checking,
}

/// Who watches a pull.
pub(super) struct Watch<'a> {
    progress: &'a mut dyn FnMut(PullProgress) -> Result<()>,
    is_stopped: bool,
}

impl Watch<'_> {
    /// Does `work` under the eyes of `progress`.
    pub(super) fn over<T>(
        mut progress: impl FnMut(PullProgress) -> Result<()>,
        work: impl FnOnce(&mut Watch<'_>) -> Result<T>,
    ) -> Result<T> {
        work(&mut Watch { progress: &mut progress, is_stopped: false })
    }

    /// Whether it was the watcher who ended something, so that no other source is tried.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// # Errors
    /// What the watcher returns.
    pub(super) fn tell(&mut self, stage: PullStage, what: &str, done: u64, total: u64) -> Result<()> {
        let progress = PullProgress { stage, what: what.to_owned(), done: done.min(total), total };
        (self.progress)(progress).inspect_err(|_| self.is_stopped = true)
    }
}
