//! Measuring the variants of a kernel on the device.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Gpu, pipelines, submit, tune};
use crate::error::Result;
use crate::kernel::{KernelId, Variant};
use crate::plan::{Inputs, Plan, Step};

impl Gpu {
    /// Measures what is not known of the hot steps of `plan`, as long as there is time, and keeps it.
    pub(super) fn tune(&mut self, plan: &Plan, folder: &Path) -> Result<()> {
        let begun = Instant::now();
        let mut picks = self.tuning.picks.clone();
        let unknown = self.tuning.picks.unknown(plan);
        for (done, step) in unknown.iter().enumerate() {
            let variants = self.candidates(step);
            if variants.len() > 1 {
                let left = tune::BUDGET.saturating_sub(self.tuning.spent + begun.elapsed());
                let deadline = Instant::now() + left / (unknown.len() - done) as u32;
                let measure = |variant| self.measure(plan, step, variant);
                let is_right = |variant| self.is_right(step, variant);
                picks.choose(step, &variants, deadline, measure, is_right)?;
            }
        }
        self.tuning.spent += begun.elapsed();
        if picks != self.tuning.picks {
            self.tuning.picks = picks;
            if let Err(error) = self.tuning.picks.write(folder, &self.device.info) {
                // It costs the next start the same time again, and nothing else.
                log::warn!("what was measured of {} is not kept: {error}", self.device.info.name);
            }
        }
        Ok(())
    }

    /// The variants that a step may take, the usual one first. The plainest is for steps that no other suits.
    pub(super) fn candidates(&self, step: &Step) -> Vec<&'static Variant> {
        let suits = |variant: &'static Variant| self.device.suits(step, variant);
        let mut found = pipelines::runnable(step.kernel, suits, self.device.info.has, &self.excluded);
        if found.len() > 1 {
            found.pop();
        }
        if self.device.info.software {
            // Measured, they take longer by a half at least where a CPU computes, and seconds to compile.
            found.retain(|variant| !variant.needs.rounding);
        }
        let usual = self.device.usual_variant();
        found.sort_by_key(|variant| Some(variant.name) != usual);
        found
    }

    /// How long a step takes in a variant, on the loaded weights.
    fn measure(&self, plan: &Plan, step: &Step, variant: &'static Variant) -> Result<Duration> {
        const TIMES: usize = 16;
        const ENOUGH: Duration = Duration::from_millis(4);
        let excluded = self.all_but(step.kernel, variant);
        let ready = self.ready(&excluded, tune::repeated(plan, step, TIMES))?;
        let rows = if step.kernel == KernelId::Matmul { plan.max_rows } else { 1 };
        let inputs = Inputs { rows, outputs: rows.min(plan.max_outputs), kv_len: 1 };
        let time = |times: usize| -> Result<Duration> {
            let begun = Instant::now();
            self.device.wait(&submit::steps(&self.device, &ready, 0..times, inputs, None)?)?;
            Ok(begun.elapsed() / times as u32)
        };
        // The first one meets a driver that may still compile.
        time(1)?;
        let once = time(1)?;
        let times = (ENOUGH.as_nanos() / once.as_nanos().max(1)).clamp(1, TIMES as u128) as usize;
        Ok(if times == 1 { once } else { time(times)?.min(time(times)?) })
    }
}
