//! A lost device is a hiccup. History is truth, so whatever befalls a device, another takes its place: the same one opened
//! again, else the CPU. The sessions compute their histories there, and the answers go on with the very next token, because
//! what a chain draws is a function of seed and step.

use std::mem::{replace, take};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::backend::{Backend, Caps, Program, Progress, Status, Ticket};
use crate::error::{Error, Kind, Result};
use crate::model::Lowered;
use crate::plan::{Inputs, ItemId, Plan, Store};

use super::event::Event;
use super::kv::Pool;
use super::runner::Runner;

/// Losses without as many tokens between them as [`PROGRESS`], after which a device is not tried again.
const STRIKES: u32 = 3;
/// Tokens that clear a device's record.
const PROGRESS: u64 = 16;
/// Times that a device is opened again after a loss, and how long the first pause between is; each next one is four times
/// as long. A driver that resets needs a moment.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(20);

/// Where a model is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Where the options say.
    Chosen,
    /// On the CPU.
    Cpu,
}

/// A model on a device, ready to compute.
pub(super) struct Made {
    pub(super) backend: Box<dyn Backend>,
    /// Why this device.
    pub(super) reason: String,
    pub(super) lowered: Lowered,
    /// By cache: decode, prefill.
    pub(super) programs: Vec<[Program; 2]>,
}

/// Makes the model anew.
pub(super) type Rebuild = Box<dyn FnMut(Place) -> Result<Made> + Send>;

/// What a runner knows of its device's past.
pub(super) struct Record {
    rebuild: Option<Rebuild>,
    /// Why the device was taken.
    pub(super) reason: String,
    /// Devices that took the place of a lost one.
    pub(super) recoveries: u32,
    strikes: u32,
    /// Tokens since the last loss.
    tokens: u64,
    /// The memory was given back on purpose.
    is_released: bool,
    /// Nothing came back in time: nobody waits for it to be closed.
    pub(super) is_hung: bool,
    /// A device that is being closed in a thread of its own.
    leaving: Option<JoinHandle<()>>,
}

impl Record {
    /// Of a device that was just opened.
    pub(super) fn new(reason: String, rebuild: Option<Rebuild>) -> Self {
        Self {
            rebuild,
            reason,
            recoveries: 0,
            strikes: 0,
            tokens: 0,
            is_released: false,
            is_hung: false,
            leaving: None,
        }
    }

    /// A token has landed.
    pub(super) fn progress(&mut self) {
        self.tokens += 1;
        if self.tokens >= PROGRESS {
            self.strikes = 0;
        }
    }

    /// The memory of the device before is free, unless that one hangs.
    fn wait_for_leaving(&mut self) {
        if let Some(leaving) = self.leaving.take() {
            // What panicked in a driver's last moments concerns nobody.
            let _panicked = leaving.join();
        }
    }

    fn make(&mut self, place: Place) -> Result<Made> {
        self.wait_for_leaving();
        match &mut self.rebuild {
            Some(rebuild) => rebuild(place),
            None => Err(Error::internal("nothing is known to make the model of again")),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.wait_for_leaving();
    }
}

/// Whether another device, or the same one anew, can do what failed.
pub(super) fn befell_device(error: &Error) -> bool {
    matches!(error.kind(), Kind::DeviceLost | Kind::DeviceUnavailable | Kind::OutOfMemory | Kind::Internal)
}

impl Runner {
    /// Puts another device in the place of this one, which `cause` befell, and tells the answers under way.
    ///
    /// # Errors
    /// `cause`, where no device works or it is nobody's fault.
    pub(super) fn recover(&mut self, cause: Error) -> Result<()> {
        if self.record.rebuild.is_none() || !befell_device(&cause) {
            return Err(cause);
        }
        log::info!("{}: {cause}", self.backend.caps().name);
        self.record.strikes += 1;
        self.record.tokens = 0;
        self.put_away(&cause);
        let tries = if self.record.strikes > STRIKES { 0 } else { ATTEMPTS };
        for attempt in 0..=tries {
            let place = if attempt < tries { Place::Chosen } else { Place::Cpu };
            match self.make(place) {
                Ok(()) => {
                    self.record.recoveries += 1;
                    let device = self.backend.caps().name.clone();
                    log::info!("computing goes on: {device}, {}", self.record.reason);
                    self.tell_all(&Event::Recovered { why: cause, device });
                    return Ok(());
                }
                Err(error) => log::info!("it does not come back ({place:?}): {error}"),
            }
            if attempt + 1 < tries {
                thread::sleep(PAUSE * 4u32.pow(attempt));
            }
        }
        Err(cause)
    }

    /// Gives the device's memory back, all of it, until [`Self::reopen`].
    pub(super) fn release(&mut self) {
        if self.record.rebuild.is_some() && !self.record.is_released {
            self.put_away(&Error::new(Kind::DeviceLost, "the device was given back"));
            self.record.is_released = true;
        }
    }

    /// Makes the model anew where the device was released.
    pub(super) fn reopen(&mut self) -> Result<()> {
        match self.record.is_released {
            true => self.make(Place::Chosen).or_else(|error| self.recover(error)),
            false => Ok(()),
        }
    }

    /// Nothing is in flight, and no session has a seat.
    pub(super) fn ground(&mut self) {
        self.flights.clear();
        self.fed.clear();
        self.landed = None;
        for state in self.sessions.values_mut() {
            (state.computed, state.seat) = (0, None);
        }
        self.pools = Pool::of(&self.lowered);
    }

    fn put_away(&mut self, why: &Error) {
        self.ground();
        let gone = Gone { caps: self.backend.caps().clone(), why: why.clone() };
        let old = Leaving(Some(replace(&mut self.backend, Box::new(gone))));
        self.record.wait_for_leaving();
        // A driver may take its time over work that is still under way, or never come back.
        let leaves = move || drop(old);
        match thread::Builder::new().name("pocketlm-leave".into()).spawn(leaves) {
            Ok(leaving) => self.record.leaving = Some(leaving).filter(|_| !self.record.is_hung),
            // It has been closed here then.
            Err(error) => log::warn!("no thread to close a device in: {error}"),
        }
        self.record.is_hung = false;
    }

    fn make(&mut self, place: Place) -> Result<()> {
        let made = self.record.make(place)?;
        self.record.is_released = false;
        let Made { backend, reason, lowered, programs } = made;
        (self.backend, self.lowered, self.programs) = (backend, lowered, programs);
        self.record.reason = reason;
        self.costs = [0.0; 2];
        self.ground();
        let weights = take(&mut self.weights);
        let outcome = self.write_weights(&weights);
        self.weights = weights;
        outcome
    }
}

/// A device that is closed by being dropped. wgpu panics where a driver does not let go.
struct Leaving(Option<Box<dyn Backend>>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let backend = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(backend))).is_err() {
            log::warn!("a device could not be closed in order");
        }
    }
}

/// Where a device was.
struct Gone {
    caps: Caps,
    why: Error,
}

impl Backend for Gone {
    fn caps(&self) -> &Caps {
        &self.caps
    }
    fn load(&mut self, _: &Store, _: Progress<'_>) -> Result<()> {
        Err(self.why.clone())
    }
    fn prepare(&mut self, _: Arc<Plan>) -> Result<Program> {
        Err(self.why.clone())
    }
    fn submit(&mut self, _: &Program, _: Range<usize>, _: Inputs) -> Result<Ticket> {
        Err(self.why.clone())
    }
    fn poll(&mut self, _: Ticket, _: Duration) -> Result<Status> {
        Err(self.why.clone())
    }
    fn read(&mut self, _: ItemId, _: usize, _: &mut [u8]) -> Result<()> {
        Err(self.why.clone())
    }
    fn write(&mut self, _: ItemId, _: usize, _: &[u8]) -> Result<()> {
        Err(self.why.clone())
    }
}
