//! Compiling while the weights are on their way: what plans will need is known before they are made ready.

use std::collections::HashSet;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::Gpu;
use super::device::Device;
use super::pipelines::Pipelines;
use super::program::Choices;
use crate::error::Result;
use crate::kernel::Variant;
use crate::plan::{Plan, Step};

/// Threads that compile beside the one that uploads.
const THREADS: usize = 3;

/// Does `work`, and meanwhile compiles `jobs`; returns when both are done, or at once where the work has failed.
pub(super) fn beside<T>(
    device: &Device,
    pipelines: &Pipelines,
    jobs: &[(&Step, &'static Variant)],
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let compile = || {
        while let Some((step, variant)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = pipelines.of(device, step, variant) {
                // The plan that needs it meets the same error.
                log::debug!("{} does not compile ahead as {}: {error}", step.label, variant.name);
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..(cores - 1).clamp(1, THREADS).min(jobs.len()) {
            scope.spawn(compile);
        }
        let done = work();
        is_over.store(done.is_err(), Ordering::Relaxed);
        compile();
        done
    })
}

impl Gpu {
    /// The steps of `plans` that differ in what has to be compiled, with their variants: those that would be taken now,
    /// and of what is to be measured each that can be.
    pub(super) fn to_compile<'p>(&self, plans: &'p [Arc<Plan>]) -> Vec<(&'p Step, &'static Variant)> {
        let choices = Choices { excluded: &self.excluded, picks: &self.tuning.picks };
        let unknown = plans
            .iter()
            .filter(|_| self.tuning.folder.is_some())
            .flat_map(|plan| self.tuning.picks.unknown(plan));
        let measured =
            unknown.flat_map(|step| self.candidates(step).into_iter().map(move |variant| (step, variant)));
        let taken = plans.iter().flat_map(|plan| &plan.steps);
        // A step for which there is no variant is an error of the plan, when it is made ready.
        let taken = taken.filter_map(|step| Some((step, choices.of(&self.device, step).ok()?)));
        let mut met = HashSet::new();
        measured.chain(taken).filter(|(step, variant)| met.insert(Pipelines::key(step, variant))).collect()
    }
}
