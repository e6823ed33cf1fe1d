//! The numbers are checked on this very device: before a plan is first run, each pipeline that it takes runs a small case
//! and is compared with the twin. A variant that disagrees, or that the driver does not compile, is put in quarantine,
//! and the next plainer one is taken.

use std::collections::HashSet;
use std::time::Instant;

use super::Gpu;
use super::pipelines::{Excluded, Pipelines};
use super::program::Choices;
use crate::backend::probe;
use crate::error::{Error, Kind, Result};
use crate::kernel::{KernelId, Variant};
use crate::plan::{Plan, Step};

impl Gpu {
    /// Checks what `plan` would run and nobody has checked on this device, until all that it would run is right.
    ///
    /// # Errors
    /// [`Kind::WrongNumbers`] where every variant of a kernel is wrong, and what the verbs return.
    pub(super) fn prove(&self, plan: &Plan) -> Result<()> {
        let begun = Instant::now();
        let choices = Choices { excluded: &self.excluded, picks: &self.tuning.picks };
        let (mut right, mut checked) = (HashSet::new(), 0);
        // A variant that one step finds wrong is taken from all steps of the form, those before it included.
        let mut is_sure = false;
        while !is_sure {
            is_sure = true;
            for step in &plan.steps {
                let variant =
                    choices.of(&self.device, step).map_err(|error| self.nothing_left(step, error))?;
                let key = Pipelines::key(step, variant);
                if right.contains(&key) {
                    continue;
                }
                checked += usize::from(self.device.quarantine.verdict(&key, variant).is_none());
                if self.is_right(step, variant)? {
                    right.insert(key);
                } else {
                    is_sure = false;
                }
            }
        }
        if checked > 0 {
            log::info!(
                "{checked} pipelines of plan {} were checked on {} in {:.0} ms",
                plan.name,
                self.device.info.name,
                begun.elapsed().as_secs_f64() * 1e3
            );
            self.keep_verdicts();
        }
        Ok(())
    }

    /// Whether a variant computes a step as the twin does: as it is known, or else tried. Where not, it is in quarantine.
    ///
    /// # Errors
    /// `OutOfMemory`, `DeviceLost`: they say nothing of the numbers.
    pub(super) fn is_right(&self, step: &Step, variant: &'static Variant) -> Result<bool> {
        let (quarantine, key) = (&self.device.quarantine, Pipelines::key(step, variant));
        if let Some(verdict) = quarantine.verdict(&key, variant) {
            return Ok(verdict);
        }
        match self.try_out(step, variant) {
            Ok(()) => {
                quarantine.trust(&key, variant);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), Kind::WrongNumbers | Kind::Internal) => {
                log::warn!(
                    "{} is not used as {} on {}: {error}",
                    step.label,
                    variant.name,
                    self.device.info.name
                );
                quarantine.put(key.0, variant, error.to_string());
                Ok(false)
            }
            Err(error) => {
                if error.kind() == Kind::DeviceLost {
                    quarantine.suspect(key.0, variant, &error.to_string());
                    self.keep_verdicts();
                }
                Err(error)
            }
        }
    }

    fn keep_verdicts(&self) {
        if let Err(error) = self.device.quarantine.keep() {
            // It costs the next start the same time again, and nothing else.
            log::warn!("what was checked on {} is not kept: {error}", self.device.info.name);
        }
    }

    /// Runs a small case of a step in a variant, on buffers of its own.
    fn try_out(&self, step: &Step, variant: &'static Variant) -> Result<()> {
        let Some(case) = step.home().probe(&step.params, step.form) else {
            return Err(Error::internal("there is no case to check it with").at(&step.label));
        };
        let excluded = self.all_but(step.kernel, variant);
        let mut beside = self.beside(excluded);
        probe::check(&mut beside, &case.as_judged(variant))
    }

    /// All variants of a kernel but one, and those that are excluded anyhow.
    pub(super) fn all_but(&self, kernel: KernelId, variant: &Variant) -> Excluded {
        let others = kernel.kernel().variants.iter().filter(|other| other.name != variant.name);
        self.excluded.iter().copied().chain(others.map(|other| (kernel, other.name))).collect()
    }

    /// Why a step cannot be computed.
    fn nothing_left(&self, step: &Step, error: Error) -> Error {
        let reasons = self.device.quarantine.reasons(step.kernel, step.form);
        let Some(last) = reasons.last() else { return error };
        let what = format!(
            "{} computes {} wrong in every variant; {}: {}",
            self.device.info.name,
            step.home().name,
            last.what,
            last.why
        );
        Error::new(Kind::WrongNumbers, what)
            .at(&step.label)
            .hint("use the CPU backend; a new driver may help")
    }
}
