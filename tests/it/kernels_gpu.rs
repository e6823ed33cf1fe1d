//! Every variant of every kernel on a device against the twin, under wgpu's run-time checks and without.

use std::collections::BTreeSet;
use std::thread;

use pocketlm::backend::probe;
use pocketlm::backend::wgpu::Options;
use pocketlm::kernel::{Case, Form, KernelId, Variant};

/// The cases that are run in a variant of this name: all on a real device. In software a shader takes seconds to
/// compile, so there not each combination is, but each format, epilogue and `override` is met in some shader, and
/// with run-time checks, which say nothing of a format, each format but the first is left to the unchecked run.
fn cases_in(variant: &str, checked: bool, software: bool) -> Vec<Case> {
    let (mut shaders, mut met) = (BTreeSet::new(), BTreeSet::new());
    let mut is_run = |case: &Case| {
        let kernel = case.kernel.kernel();
        let has_it = |it: &&Variant| it.name == variant && kernel.suits(&case.params, it);
        let Some(variant) = kernel.variants.iter().find(has_it) else { return false };
        let Form { format, kv, epilogue } = case.form;
        let overrides = kernel.overrides(&case.params, variant);
        let mut parts: Vec<String> = overrides.iter().map(|part| format!("{kv:?} {part:?}")).collect();
        parts.push(format!("{kv:?} {epilogue:?}"));
        if !checked {
            parts.push(format!("{format:?}"));
        }
        let shader = format!("{} {:?} {overrides:?}", kernel.name, case.form);
        let shows = parts.into_iter().filter(|part| met.insert(format!("{} {part}", kernel.name))).count();
        let is_run = !software || shows > 0 || shaders.contains(&shader);
        if is_run {
            shaders.insert(shader);
        }
        is_run
    };
    KernelId::ALL.iter().flat_map(|id| id.kernel().cases()).filter(&mut is_run).collect()
}

#[allow(clippy::print_stderr, reason = "a case that is left out says so")]
fn failures_of(variant: &str, checked: bool) -> Vec<String> {
    let asked = Options { checked, variant: Some(variant.into()), ..Options::default() };
    let Some(mut gpu) = crate::gpu::open(asked) else { return Vec::new() };
    let software = gpu.info().software;
    let mut failures = Vec::new();
    for case in cases_in(variant, checked, software) {
        let used = gpu.variant(case.kernel).unwrap();
        if used != variant {
            assert!(!software, "{variant} of {} does not run in software", case.kernel.kernel().name);
            eprintln!("left out: {variant} of {} needs more than the device has", case.kernel.kernel().name);
            continue;
        }
        if let Err(error) = probe::check(&mut gpu, &case) {
            failures.push(format!("{variant}: {error}"));
        }
    }
    failures
}

fn every_variant_agrees(checked: bool) {
    let variants = KernelId::ALL.iter().flat_map(|id| id.kernel().variants);
    let names: BTreeSet<_> = variants.map(|variant| variant.name).collect();
    // Beside each other, because most of the time goes to compiling, on one thread a device.
    let failures = thread::scope(|scope| {
        let each: Vec<_> = names.iter().map(|name| scope.spawn(move || failures_of(name, checked))).collect();
        each.into_iter().flat_map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_variant_agrees_with_the_twin_under_run_time_checks() {
    every_variant_agrees(true);
}

#[test]
fn every_variant_agrees_with_the_twin_unchecked() {
    every_variant_agrees(false);
}

#[test]
fn what_is_run_in_software_shows_every_format_and_form() {
    for kernel in KernelId::ALL.iter().map(|id| id.kernel()) {
        for variant in kernel.variants {
            let of = |software| {
                let cases = cases_in(variant.name, false, software);
                let cases = cases.into_iter().filter(|case| case.kernel.kernel().name == kernel.name);
                let parts = |case: Case| {
                    let Form { format, kv, epilogue } = case.form;
                    let overrides = kernel.overrides(&case.params, variant);
                    [format!("{format:?}"), format!("{kv:?} {epilogue:?}"), format!("{kv:?} {overrides:?}")]
                };
                cases.flat_map(parts).collect::<BTreeSet<_>>()
            };
            assert_eq!(of(true), of(false), "{} {}", kernel.name, variant.name);
        }
    }
}
