//! What `doctor` does with kernels: cases run on a backend, and how each of them went.

use std::time::Instant;

use pocketlm::backend::{Backend, probe};
use pocketlm::kernel::{Case, Form, KernelId, REPRESENTATIVES};
use pocketlm::{Kind, Result as Outcome};
use serde::Serialize;

#[cfg(feature = "wgpu")]
use pocketlm::backend::wgpu::Gpu;

use crate::interrupt::Work;

/// What is checked.
#[derive(clap::Args)]
pub(crate) struct Scope {
    /// Run all cases of each kernel in every weight format and in every variant that the device can run, not the smallest
    /// in a few: minutes on a slow device
    #[arg(long)]
    pub(crate) full: bool,
    /// Check these kernels alone; several times for several
    #[arg(long = "kernel", value_name = "NAME", value_parser = kernel_of)]
    only: Vec<KernelId>,
}

/// What was found on a device.
#[derive(Default, Serialize)]
pub(crate) struct Checks {
    pub(crate) kernels: Vec<Probed>,
    pub(crate) checks: Vec<Check>,
}

/// A case of a kernel in a variant and how it went.
#[derive(Serialize)]
pub(crate) struct Check {
    kernel: &'static str,
    variant: &'static str,
    form: String,
    case: String,
    is_right: bool,
    /// The element that is farthest from the twin's: argument, element, what was written, what belongs there.
    worst: Option<(usize, usize, f64, f64)>,
    /// How far it is off, `null` for infinity or where the case did not run, and how far a float may be.
    off: Option<f64>,
    allowed: f32,
    milliseconds: f64,
    error: Option<String>,
}

/// A variant of a kernel and how it did.
#[derive(Serialize)]
pub(crate) struct Probed {
    pub(crate) kernel: &'static str,
    pub(crate) variant: &'static str,
    pub(crate) cases: usize,
    pub(crate) milliseconds: f64,
    /// The first case that was wrong.
    pub(crate) error: Option<String>,
}

impl Scope {
    /// The kernels that are asked for, or all.
    pub(crate) fn kernels(&self) -> impl Iterator<Item = KernelId> {
        KernelId::ALL.iter().copied().filter(|id| self.only.is_empty() || self.only.contains(id))
    }

    /// The cases of a kernel: the first and smallest of each form in the formats that stand for all, or all.
    pub(crate) fn cases(&self, kernel: KernelId) -> Vec<Case> {
        let mut cases = kernel.kernel().cases();
        if !self.full {
            let mut seen: Vec<Form> = Vec::new();
            cases.retain(|case| {
                stands(kernel, case.form) && !seen.contains(&case.form) && {
                    seen.push(case.form);
                    true
                }
            });
        }
        cases
    }
}

impl Checks {
    /// Probes a kernel in a variant, up to the first wrong case or in all of them; whether it is right.
    pub(crate) fn record(
        &mut self,
        backend: &mut dyn Backend,
        (kernel, variant): (KernelId, &'static str),
        cases: &[Case],
        scope: &Scope,
        work: &Work,
    ) -> Outcome<bool> {
        let begun = Instant::now();
        // What was not checked is not right.
        let mut error = cases.is_empty().then(|| "there is no case to check".to_owned());
        for case in cases {
            work.check()?;
            let check = check(backend, variant, case)?;
            error = error.or_else(|| check.error.clone());
            self.checks.push(check);
            if error.is_some() && !scope.full {
                break;
            }
        }
        let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
        let (kernel, cases, is_right) = (kernel.kernel().name, cases.len(), error.is_none());
        self.kernels.push(Probed { kernel, variant, cases, milliseconds, error });
        Ok(is_right)
    }

    /// Probes a kernel on a device: in each variant where all is asked for, else in one after the other until one is right.
    #[cfg(feature = "wgpu")]
    pub(crate) fn on_gpu(&mut self, gpu: &Gpu, kernel: KernelId, scope: &Scope, work: &Work) -> Outcome<()> {
        let cases = scope.cases(kernel);
        let variants = kernel.kernel().variants;
        if scope.full {
            for variant in variants {
                let mut alone = gpu.share();
                let others = variants.iter().filter(|other| other.name != variant.name);
                others.for_each(|other| alone.exclude(kernel, other.name));
                if alone.variant(kernel).is_err() {
                    continue;
                }
                let suits = |case: &&Case| kernel.kernel().suits(&case.params, case.form, variant);
                let cases: Vec<Case> =
                    cases.iter().filter(suits).map(|case| case.as_judged(variant)).collect();
                self.record(&mut alone, (kernel, variant.name), &cases, scope, work)?;
            }
            return Ok(());
        }
        let mut gpu = gpu.share();
        loop {
            let variant = gpu.variant(kernel)?;
            if self.record(&mut gpu, (kernel, variant), &cases, scope, work)? {
                return Ok(());
            }
            gpu.exclude(kernel, variant);
        }
    }
}

fn check(backend: &mut dyn Backend, variant: &'static str, case: &Case) -> Outcome<Check> {
    let begun = Instant::now();
    let ran = probe::run(backend, case);
    if let Err(lost) = &ran
        && lost.kind() == Kind::DeviceLost
    {
        return Err(lost.clone());
    }
    let expected = case.expected();
    let worst = ran.as_ref().ok().and_then(|got| probe::worst(case, &expected, got));
    let verdict = ran.and_then(|got| probe::judge(case, &expected, &got));
    Ok(Check {
        kernel: case.kernel.kernel().name,
        variant,
        form: case.form.to_string(),
        case: case.name.clone(),
        is_right: verdict.is_ok(),
        worst: worst.map(|it| (it.place.0, it.place.1, it.got, it.expected)),
        off: worst.map(|it| it.off),
        allowed: case.tolerance.0,
        milliseconds: begun.elapsed().as_secs_f64() * 1e3,
        error: verdict.err().map(|error| error.at(probe::describe(case)).to_string()),
    })
}

/// Whether a form is checked in any case: all that a format is to a shader is laid open by the embedding.
fn stands(kernel: KernelId, form: Form) -> bool {
    form.format.is_none_or(|format| kernel == KernelId::Embed || REPRESENTATIVES.contains(&format))
}

fn kernel_of(name: &str) -> Result<KernelId, String> {
    let found = KernelId::ALL.iter().find(|id| id.kernel().name == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = KernelId::ALL.iter().map(|id| id.kernel().name).collect();
        format!("the kernels are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use pocketlm::backend::cpu::{Cpu, CpuOptions};

    use super::*;

    #[test]
    fn each_form_of_each_kernel_is_checked_and_none_is_not_right() {
        let mut cpu = Cpu::new(CpuOptions { threads: Some(1), exact: true }).unwrap();
        let work = Work::begin();
        let [few, all] = [false, true].map(|full| Scope { full, only: Vec::new() });
        for kernel in few.kernels() {
            let (some, every) = (few.cases(kernel), all.cases(kernel));
            let times = |case: &Case| some.iter().filter(|known| known.form == case.form).count();
            assert!(every.iter().all(|case| times(case) == usize::from(stands(kernel, case.form))));
            let mut checks = Checks::default();
            assert!(!checks.record(&mut cpu, (kernel, "cpu"), &[], &few, &work).unwrap());
            assert!(checks.kernels[0].error.is_some());
        }
        let one = Scope { full: true, only: vec![KernelId::Rope] };
        assert_eq!(one.kernels().collect::<Vec<_>>(), [KernelId::Rope]);
    }
}
