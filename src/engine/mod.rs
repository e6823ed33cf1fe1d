//! Floor 6: the engine. Sessions, the schedule, and the tick that moves them.
//!
//! [`Engine`] → [`Model`] → [`Session`] → [`Stream`]. *History is truth*: a session is its list of tokens; keys and
//! values, buffers, pipelines and the device itself are derived from it and may vanish at any time. Cancelling is
//! to stop submitting.
//!
//! Two ways to live with it: a host with a frame loop calls [`Engine::tick`]; everybody else iterates a [`Stream`],
//! which ticks by itself, or starts a [`Worker`] that ticks in a thread of its own.

mod answer;
mod calibrate;
mod caught;
mod compute;
mod condense;
mod costs;
mod device;
mod draft;
mod estimate;
mod event;
mod flight;
mod identity;
mod keep;
mod kv;
#[cfg(test)]
mod laws;
mod load;
mod logits;
mod model;
mod options;
mod pace;
mod pick;
mod prompt;
mod recover;
mod remedy;
mod runner;
#[doc(hidden)]
pub mod saved;
mod schedule;
mod score;
mod seats;
mod session;
mod tools;
mod trim;
mod typed;
mod verify;
mod view;
mod worker;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::base::Bytes;
use crate::error::{Error, Result};
use crate::format::{Checkpoint, Files};

pub use crate::text::{Constraint, Tool, ToolCall, ToolChoice};
pub use calibrate::calibrate;
pub use condense::forget_oldest;
pub use costs::Slices;
pub use draft::Draft;
pub use estimate::{Budget, Estimate, Largest, Verdict};
pub use event::{Cancel, Chosen, Event, Finish, FinishReason, Stream, Timings};
pub use load::{LoadProgress, LoadStage, plans, tokenizer};
pub use model::{Health, Model, ModelInfo};
pub use options::{
    Adapter, Device, EngineOptions, GenerateOptions, Limits, LoadOptions, Sampling, SaveOptions,
};
pub use pace::{Pace, Suspend};
pub use prompt::{Message, Prompt};
pub use remedy::Remedy;
pub use runner::Progress;
pub use schedule::{Demand, Slice, schedule};
#[doc(hidden)]
pub use score::log_sum_exp;
pub use score::{Pooling, Score};
pub use session::Session;
pub use tools::Handler;
pub use trim::{Trim, Trimmed};
pub use view::Overflow;
pub use worker::Worker;

use model::Core;
use pace::Control;
use worker::Signal;

/// A choice of device, and the models loaded on it.
#[derive(Clone, Debug)]
pub struct Engine {
    options: EngineOptions,
    models: Arc<Mutex<Vec<Weak<Core>>>>,
    signal: Arc<Signal>,
    control: Arc<Control>,
}

impl Engine {
    /// An engine with these options. Touches no device before a model is loaded.
    pub fn new(options: EngineOptions) -> Self {
        Self { options, models: Arc::default(), signal: Arc::default(), control: Arc::default() }
    }

    /// Loads a model from a file or a folder. `progress` hears of each stage and stops the load with an error of
    /// its own, usually [`crate::Kind::Cancelled`].
    ///
    /// # Errors
    /// `NotFound`, `Io`, `BadFile` and `Unsupported` for the file, `InvalidArgument` for the options,
    /// `DeviceUnavailable`, `DeviceLost` and `OutOfMemory` for the device.
    pub fn load(
        &self,
        path: impl AsRef<Path>,
        options: &LoadOptions,
        mut progress: impl FnMut(LoadProgress) -> Result<()>,
    ) -> Result<Model> {
        let path = path.as_ref();
        let root = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        self.load_checkpoint(root, |files| Checkpoint::open_with(files, path), options, &mut progress)
    }

    /// What a model would take of memory with these options, whether that is there, and what would fit where it is not. Reads
    /// names, shapes and settings, and no matrices; a GPU is found and not opened.
    ///
    /// # Errors
    /// As [`Self::load`] for the file and the options, but that it does not fit is no error.
    pub fn estimate(&self, path: impl AsRef<std::path::Path>, options: &LoadOptions) -> Result<Estimate> {
        load::estimate(&Checkpoint::open(path)?, &self.options, options)
    }

    /// Loads a model from the bytes of a file, [`Self::load`] otherwise; `name` stands for the path in errors.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_bytes(
        &self,
        name: &str,
        bytes: impl Into<Bytes>,
        options: &LoadOptions,
        mut progress: impl FnMut(LoadProgress) -> Result<()>,
    ) -> Result<Model> {
        let bytes = bytes.into();
        let root = Path::new(name).parent().unwrap_or(Path::new(""));
        self.load_checkpoint(
            root,
            |files| Checkpoint::from_bytes_with(files, name, bytes),
            options,
            &mut progress,
        )
    }

    /// Moves the sessions of all models for about `budget`: at least one slice where there is work. By what tokens
    /// took lately, a device has then done what it was given.
    ///
    /// # Errors
    /// None of a single session, those are in its stream; only what befalls a device as a whole.
    pub fn tick(&self, budget: Duration) -> Result<Progress> {
        self.compute(budget, false)
    }

    /// Shares the device from now on as `pace` says.
    pub fn set_pace(&self, pace: Pace) {
        self.control.wishes().pace = pace;
        self.signal.raise();
    }

    /// Generates no more than so many tokens a second for each answer, to spare heat and battery; `None` as many as it can.
    /// Prompts are read as fast as ever.
    ///
    /// # Errors
    /// `InvalidArgument` where that is not a number above 0.
    pub fn sustain(&self, tokens_per_second: Option<f64>) -> Result<()> {
        if let Some(rate) = tokens_per_second.filter(|rate| !(1e-3..=1e6).contains(rate)) {
            return Err(Error::invalid(format!("{rate} tokens a second cannot be sustained"))
                .hint("give a number from 0.001 to 1000000"));
        }
        self.control.wishes().sustain = tokens_per_second;
        self.signal.raise();
        Ok(())
    }

    /// Stops submitting: no new slice begins, and what is under way is finished or abandoned as `how` says. Answers wait,
    /// with [`Event::Suspended`], until [`Self::resume`]. Returns after `how.within` at the latest; whether all stands
    /// still by then: a slice that the CPU computes ends first, which takes some 25 ms.
    pub fn suspend(&self, how: Suspend) -> bool {
        let begun = Instant::now();
        self.control.wishes().suspended = Some((begun, how));
        self.signal.raise();
        // A moment more than a slice has: what it leaves has to be put away.
        let end = begun + how.within + Duration::from_millis(5);
        self.cores().iter().all(|core| core.stand_still(end))
    }

    /// Goes on after [`Self::suspend`].
    pub fn resume(&self) {
        self.control.wishes().suspended = None;
        self.signal.raise();
    }

    /// As [`Self::tick`]; where it `goes_on`, another follows at once, and the device is left with work to do.
    fn compute(&self, budget: Duration, goes_on: bool) -> Result<Progress> {
        let cores = self.cores();
        let share = budget / u32::try_from(cores.len().max(1)).unwrap_or(u32::MAX);
        let mut progress = Progress::default();
        for core in cores {
            progress += core.tick(share, goes_on)?;
        }
        Ok(progress)
    }

    fn load_checkpoint(
        &self,
        root: &Path,
        checkpoint: impl FnOnce(&Files) -> Result<Checkpoint>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress) -> Result<()>,
    ) -> Result<Model> {
        let model = load::load(
            (root, checkpoint),
            &self.options,
            options,
            (self.signal.clone(), self.control.clone()),
            progress,
        )?;
        self.models().push(Arc::downgrade(model.core()));
        Ok(model)
    }

    /// Ends all answers under way.
    fn fail(&self, error: &Error) {
        self.cores().iter().for_each(|core| core.runner().fail_under_way(error));
    }

    fn cores(&self) -> Vec<Arc<Core>> {
        let mut models = self.models();
        models.retain(|core| core.strong_count() > 0);
        models.iter().filter_map(Weak::upgrade).collect()
    }

    fn models(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Core>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
