//! Memory given back while a model stays loaded. What is derived from histories can go: sessions compute it again.

use crate::error::Result;
use crate::model::Cache;
use crate::plan::Item;

use super::kv::Pool;
use super::runner::Runner;

/// How badly an app is in need of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    /// What nobody waits for goes: where no answer is under way, all keys and values, and on a GPU the temps and the buffers
    /// that results come through. Sessions that go on compute their histories again. Where an answer is under way, pages of
    /// the model file alone: caches are buffers of all sessions.
    Idle,
    /// All of that goes whether answers are under way or not; they compute their histories again and go on with the same
    /// tokens. What they need comes back as soon as they do.
    Critical,
}

/// What a trim brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Bytes that are free now: of the device, or of the host as far as caches had been filled. The host's go to the allocator,
    /// which gives large blocks on to the system and keeps small ones for the next. Pages of the model file, which the system
    /// counts as its own, are given back as well and not counted.
    pub bytes: u64,
}

impl Runner {
    /// Gives back what `level` allows.
    pub(super) fn trim(&mut self, level: Trim) -> Result<Trimmed> {
        for (_, item) in self.lowered.store.items() {
            if let Item::Matrix(matrix) = item {
                matrix.release();
            }
        }
        let is_busy = self.sessions.keys().any(|&id| self.prompt_tokens(id).is_some());
        if is_busy && level == Trim::Idle {
            return Ok(Trimmed::default());
        }
        let store = &self.lowered.store;
        let bytes = |cache: &Cache| cache.states().map(|id| 4 * store.item(id).words() as u64).sum::<u64>();
        let touched = |(cache, pool): (&Cache, &Pool)| {
            bytes(cache) / u64::from(cache.options.pages) * u64::from(pool.touched())
        };
        let filled: u64 = self.lowered.caches.iter().zip(&self.pools).map(touched).sum();
        self.ground();
        let states: Vec<_> = self.lowered.kv_states().collect();
        let freed = self.backend.vacate(&states)?;
        // On the host a cache takes what of it was filled.
        let bytes = if self.backend.caps().backend == "cpu" { freed.min(filled) } else { freed };
        Ok(Trimmed { bytes })
    }
}
