//! A thread that ticks, for hosts that have no loop of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};

use super::caught::caught;
use super::{Engine, Progress};

/// How long a worker computes before it looks whether it should stop.
const SHARE: Duration = Duration::from_millis(20);

/// Ticks an engine in its own thread until dropped; streams then wait instead of computing.
#[derive(Debug)]
pub struct Worker {
    engine: Engine,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// `Io` where the system gives no thread.
    pub fn start(engine: &Engine) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (worker_engine, worker_stop) = (engine.clone(), stop.clone());
        engine.signal.workers.fetch_add(1, Ordering::SeqCst);
        let work = move || {
            while !worker_stop.load(Ordering::SeqCst) {
                let seen = worker_engine.signal.raised();
                let progress = caught(|| Ok(worker_engine.compute(SHARE, true)));
                let progress = progress.unwrap_or_else(|panic| {
                    worker_engine.fail(&panic);
                    Err(panic)
                });
                match progress {
                    Ok(Progress { rest: Some(rest), .. }) => worker_engine.signal.wait(seen, rest),
                    Ok(progress) if progress.under_way > 0 => {}
                    // The streams have been told of the error; there is nothing to do until something changes.
                    Ok(_) | Err(_) => worker_engine.signal.wait(seen, Duration::from_millis(500)),
                }
            }
        };
        let thread = std::thread::Builder::new().name("pocketlm".into()).spawn(work);
        match thread {
            Ok(thread) => Ok(Self { engine: engine.clone(), stop, thread: Some(thread) }),
            Err(error) => {
                engine.signal.workers.fetch_sub(1, Ordering::SeqCst);
                Err(Error::from(error).at("starting the worker thread"))
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.engine.signal.workers.fetch_sub(1, Ordering::SeqCst);
        self.stop.store(true, Ordering::SeqCst);
        self.engine.signal.raise();
        if let Some(thread) = self.thread.take() {
            // A panic in a tick has been told to the streams as an error.
            let _panicked = thread.join();
        }
    }
}

/// Tells workers that there is something to do, and streams whether there are workers.
#[derive(Debug, Default)]
pub(super) struct Signal {
    raised: Mutex<u64>,
    changed: Condvar,
    workers: std::sync::atomic::AtomicUsize,
}

impl Signal {
    /// There is something to do.
    pub(super) fn raise(&self) {
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Whether a worker computes.
    pub(super) fn has_worker(&self) -> bool {
        self.workers.load(Ordering::SeqCst) > 0
    }

    pub(super) fn raised(&self) -> u64 {
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait(&self, seen: u64, patience: Duration) {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        // Why it woke does not matter: the worker looks again.
        let _woken = self.changed.wait_timeout_while(raised, patience, |raised| *raised == seen);
    }
}
