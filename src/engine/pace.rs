//! Pace: how much of a device and of its time an engine takes, and how it stands still. What an app wishes is in
//! [`Control`]; a slice ends at the step that would make it too long, by what steps [cost](super::costs) lately.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::plan::Inputs;

use super::event::Event;
use super::runner::{Runner, SessionId};

/// How an engine shares a device with the app's own work, a user interface above all. A *slice* is what a device is given at
/// a time and does not stop in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Pace {
    /// As fast as it goes.
    #[default]
    Full,
    /// A frame waits no longer for its turn: slices take half of it, one behind the other. 4 ms leave an app its 60 frames a
    /// second.
    Frame(Duration),
    /// Slices of 2 ms, and as long a rest after each.
    Background,
}

/// A slice in the background.
const BACKGROUND: Duration = Duration::from_millis(2);
/// A slice where the host itself computes, so that it hears of a cancel or a suspend in between.
pub(super) const HOST: Duration = Duration::from_millis(25);

/// What abandoning takes.
const MARGIN: Duration = Duration::from_millis(20);

impl Pace {
    /// The longest slice.
    pub(super) fn slice(self) -> Option<Duration> {
        match self {
            Self::Full => None,
            // Two are under way at a time: a frame that comes waits for both.
            Self::Frame(most) => Some(most / 2),
            Self::Background => Some(BACKGROUND),
        }
    }
}

/// How an engine is to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspend {
    /// How long a slice may go on; then it is abandoned, and computed again later.
    pub within: Duration,
    /// Gives the memory of the device back: resuming loads the weights again.
    pub release: bool,
}

impl Default for Suspend {
    fn default() -> Self {
        Self { within: Duration::from_millis(50), release: false }
    }
}

/// What an app has told an engine, for all that tick.
#[derive(Debug, Default)]
pub(super) struct Control(Mutex<Wishes>);

/// See [`Control`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes {
    pub(super) pace: Pace,
    /// Tokens of an answer per second, at most.
    pub(super) sustain: Option<f64>,
    /// Since when, and how.
    pub(super) suspended: Option<(Instant, Suspend)>,
}

impl Control {
    pub(super) fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wishes {
    /// Whether what is under way is to be abandoned by now, so that it is over when the time is.
    pub(super) fn is_overdue(&self) -> bool {
        self.suspended
            .is_some_and(|(since, how)| since.elapsed() >= how.within - (how.within / 2).min(MARGIN))
    }
}

/// The fewest rows of a prompt that are computed at a time, however short a slice is to be: a product in
/// tiles takes as long for fewer.
const LEAST_ROWS: u32 = 64;

impl Runner {
    /// How long the next tokens are not due yet, where answers are not to come faster than is wanted. Prompts do not wait.
    pub(super) fn rest_due(&mut self, seated: &[SessionId]) -> Option<Duration> {
        let sustain = self.control.wishes().sustain?;
        let decodes = self.flights.is_empty() && seated.iter().all(|id| self.sessions[id].pending() == 1);
        if !decodes {
            return None;
        }
        let now = Instant::now();
        if let Some(due) = self.due.filter(|&due| due > now) {
            return Some(due - now);
        }
        let step = Duration::from_secs_f64(1.0 / sustain);
        // Who comes late does not hurry then.
        self.due = Some(self.due.map_or(now, |due| due.max(now - step)) + step);
        None
    }

    /// Abandons what is under way: nothing counts that has not landed. Tells the answers once.
    pub(super) fn stand_still(&mut self) {
        if self.stands {
            return;
        }
        let release = self.control.wishes().suspended.is_some_and(|(_, how)| how.release);
        self.stands = true;
        self.flights.clear();
        self.fed.clear();
        self.tell_all(&Event::Suspended);
        if release {
            self.release();
        }
    }

    /// Goes on after [`Self::stand_still`], on the device as it is or opened again.
    pub(super) fn go_forth(&mut self) -> Result<()> {
        if !self.stands {
            return Ok(());
        }
        self.stands = false;
        self.landed = None;
        self.tell_all(&Event::Resumed);
        self.reopen()
    }

    /// The longest slice of the next submission of so many rows; `None` where it is not cut.
    pub(super) fn longest_slice(&self, rows: u32) -> Option<Duration> {
        let computes_here = self.backend.caps().ahead == 1 && rows > self.lowered.options.decode_rows;
        self.control.wishes().pace.slice().or(computes_here.then_some(HOST))
    }

    /// Rows of sessions in a cache that take about as long as is left, by what rows cost lately.
    pub(super) fn rows_within(&self, cache: usize, left: Option<Duration>) -> u32 {
        let rows = self.lowered.options.prefill_rows;
        let inputs = Inputs { rows, outputs: 1, kv_len: self.lowered.options.context };
        let most_in_slice = self.control.wishes().pace.slice();
        let most = match most_in_slice {
            None => rows,
            Some(slice) => {
                let steps = &self.lowered.caches[cache].prefill.plan.steps;
                self.step_costs.rows(steps, inputs, slice, LEAST_ROWS.min(rows))
            }
        };
        // A slice ends where the pace says, and a tick then, within a submission.
        if most_in_slice.is_some() {
            return most;
        }
        let cost = self.costs[1].max(f64::MIN_POSITIVE);
        match left {
            Some(left) if self.costs[1] > 0.0 => ((left.as_secs_f64() / cost) as u32).clamp(1, most),
            // The first slice under a budget is a small one: it learns the cost.
            Some(_) => most.min(16),
            None => most,
        }
    }

    /// What so many rows took.
    pub(super) fn learn(&mut self, rows: u32, time: Duration) {
        let phase = usize::from(rows > self.lowered.options.decode_rows);
        let now = time.as_secs_f64() / f64::from(rows);
        let cost = &mut self.costs[phase];
        *cost = if *cost == 0.0 { now } else { 0.7 * *cost + 0.3 * now };
        if self.costs[1] == 0.0 {
            self.costs[1] = now;
        }
    }
}
