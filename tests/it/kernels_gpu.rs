//! Every variant of every kernel on a device against the twin: as shipped, on Vulkan as mended SPIR-V, and as WGSL under
//! wgpu's run-time checks.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use pocketlm::Limits;
use pocketlm::backend::probe;
use pocketlm::backend::wgpu::Options;
use pocketlm::kernel::{Case, Form, Fragment, KernelId, REPRESENTATIVES, Variant};

use crate::data::limits;

static EVERY_CASE: LazyLock<Vec<Case>> =
    LazyLock::new(|| KernelId::ALL.iter().flat_map(|id| id.kernel().cases()).collect());

/// The cases that are run in a variant of this name: all on a real device. In software a shader takes seconds to
/// compile, so there not each combination is, but each variant meets each of its epilogues, KV types and overrides, and
/// where `every_format` is asked for, each format is shown as [`shows_format`] says.
fn cases_in(name: &str, every_format: bool, software: bool) -> Vec<Case> {
    let (mut shaders, mut met) = (BTreeSet::new(), BTreeSet::new());
    let mut is_run = |case: &Case| {
        let kernel = case.kernel.kernel();
        let has_it = |it: &&Variant| it.name == name && kernel.suits(&case.params, case.form, it);
        let Some(variant) = kernel.variants.iter().find(has_it) else { return false };
        let mut parts = parts(case, variant);
        if every_format && shows_format(case, variant) {
            parts.push(format!("{:?}", case.form.format));
        }
        let shader = format!("{} {:?} {:?}", kernel.name, case.form, kernel.overrides(&case.params, variant));
        let shows = parts.into_iter().filter(|part| met.insert(format!("{} {part}", kernel.name))).count();
        let is_run = !software || shows > 0 || shaders.contains(&shader);
        if is_run {
            shaders.insert(shader);
        }
        is_run
    };
    EVERY_CASE.iter().filter(|case| is_run(case)).cloned().collect()
}

/// Whether software is to see the format of a case in this variant: a representative in each body, which variants may
/// share; any other in `embed` and in the plainest `matvec`. Units of codes are the same to all bodies of all kernels:
/// they meet each format that has codes in one variant of `matvec`.
fn shows_format(case: &Case, variant: &Variant) -> bool {
    let variants = case.kernel.kernel().variants;
    if let Some(units) = units(variant) {
        let first_of_units = variants.iter().find(|it| self::units(it) == Some(units)).expect("itself");
        return case.kernel == KernelId::Matvec && first_of_units.name == variant.name;
    }
    let first_of_body = variants.iter().find(|it| body(it) == body(variant)).expect("itself");
    match case.form.format {
        Some(format) if REPRESENTATIVES.contains(&format) => first_of_body.name == variant.name,
        Some(_) => {
            let plainest = variants.last().expect("a kernel has a variant");
            matches!(case.kernel, KernelId::Embed | KernelId::Matvec) && plainest.name == variant.name
        }
        None => false,
    }
}

/// What a shader is made of beside a format.
fn parts(case: &Case, variant: &Variant) -> Vec<String> {
    let Form { kv, epilogue, .. } = case.form;
    let overrides = case.kernel.kernel().overrides(&case.params, variant);
    let each = overrides.iter().map(|part| format!("{kv:?} {part:?}"));
    each.chain([format!("{kv:?} {epilogue:?}")]).collect()
}

/// The text that a variant does its work in.
fn body(variant: &Variant) -> &'static str {
    match variant.fragments.last() {
        Some(Fragment::Text(text)) => text,
        other => panic!("{other:?} is no body"),
    }
}

/// The text of the units of a variant that takes weights as codes.
fn units(variant: &Variant) -> Option<&'static str> {
    let mut after = variant.fragments.iter().skip_while(|fragment| !matches!(fragment, Fragment::Codes));
    after.find_map(|fragment| match fragment {
        Fragment::Text(text) if text.contains("fn unit_x(") => Some(*text),
        _ => None,
    })
}

#[allow(clippy::print_stderr, reason = "a case that is left out says so")]
fn failures_of(variant: &str, options: &Options, every_format: bool) -> Vec<String> {
    // Each is compared here, and none is to give way to another.
    let asked = Options { variant: Some(variant.into()), trusted: true, ..options.clone() };
    let Some(mut gpu) = crate::gpu::open(asked) else { return Vec::new() };
    // On the floor nothing is offered that WebGPU does not ask of every device, shaders of one's own among it.
    let floor = limits() == Limits::Floor;
    let as_wgsl = options.checked || options.plain_wgsl || floor;
    assert_eq!(gpu.info().spirv, gpu.info().backend == "vulkan" && !as_wgsl, "{options:?}");
    let software = gpu.info().software;
    let mut failures = Vec::new();
    for case in cases_in(variant, every_format, software) {
        let used = gpu.variant(case.kernel).unwrap();
        if used != variant {
            let kernel = case.kernel.kernel();
            let needs = kernel.variants.iter().find(|it| it.name == variant).expect("its cases").needs;
            assert!(!needs.are_met(gpu.info().has), "{variant} of {} is not used", kernel.name);
            // Mesa's software has all but matrices; another may have less.
            let has_all = gpu.info().name.contains("llvmpipe") && !floor;
            assert!(!has_all || needs.matrix > 0, "{variant} of {} does not run in software", kernel.name);
            eprintln!("left out: {variant} of {} needs more than the device has", case.kernel.kernel().name);
            continue;
        }
        let is_it = |it: &&Variant| it.name == variant;
        let judged = case.kernel.kernel().variants.iter().find(is_it).map(|it| case.as_judged(it));
        if let Err(error) = probe::check(&mut gpu, &judged.unwrap_or(case)) {
            failures.push(format!("{variant}: {error}"));
        }
    }
    failures
}

fn every_variant_agrees(options: &Options, every_format: bool) {
    let variants = KernelId::ALL.iter().flat_map(|id| id.kernel().variants);
    let names: BTreeSet<_> = variants.map(|variant| variant.name).collect();
    let failures: Vec<_> = names.iter().flat_map(|name| failures_of(name, options, every_format)).collect();
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_variant_agrees_with_the_twin_as_shipped() {
    every_variant_agrees(&Options::default(), true);
}

#[test]
fn every_variant_agrees_with_the_twin_under_run_time_checks() {
    every_variant_agrees(&Options { checked: true, ..Options::default() }, false);
}

#[test]
fn plain_wgsl_is_a_switch() {
    let Some(mut gpu) = crate::gpu::open(Options { plain_wgsl: true, ..Options::default() }) else { return };
    assert!(!gpu.info().spirv);
    for kernel in KernelId::ALL.iter().map(|id| id.kernel()) {
        probe::check(&mut gpu, &kernel.cases()[0]).unwrap();
    }
}

#[test]
fn what_is_run_in_software_shows_every_part_and_format() {
    let shown = |software| {
        let names: BTreeSet<_> =
            KernelId::ALL.iter().flat_map(|id| id.kernel().variants).map(|v| v.name).collect();
        let mut shown = BTreeSet::new();
        for name in names {
            for case in cases_in(name, true, software) {
                let kernel = case.kernel.kernel();
                let variant = kernel.variants.iter().find(|variant| variant.name == name).unwrap();
                shown.extend(
                    parts(&case, variant).iter().map(|part| format!("{} {name} {part}", kernel.name)),
                );
                if shows_format(&case, variant) {
                    let (body, units) = (body(variant), units(variant));
                    shown.insert(format!("{} {:?} {body} {units:?}", kernel.name, case.form.format));
                }
            }
        }
        shown
    };
    assert_eq!(shown(true), shown(false));
}
