//! Numbers that are wrong on this very device: seen before they are used, kept in mind, and no reason not to answer.

use std::fs;

use pocketlm::backend::probe;
use pocketlm::backend::wgpu::{Gpu, Options, Quarantined};
use pocketlm::kernel::{Case, KernelId, Variant};
use pocketlm::{
    Device, Engine, EngineOptions, GenerateOptions, Kind, LoadOptions, Model, Prompt, Result, Sampling,
};

use crate::data::{Scratch, fixture};
use crate::gpu::open;

/// The variants of a kernel that a device can take for a case.
fn variants_of(gpu: &Gpu, case: &Case) -> Vec<&'static Variant> {
    let kernel = case.kernel.kernel();
    let takes = |variant: &&Variant| {
        variant.needs.are_met(gpu.info().has) && kernel.suits(&case.params, case.form, variant)
    };
    kernel.variants.iter().filter(takes).collect()
}

/// Every variant of a kernel.
fn all_of(kernel: KernelId) -> impl Iterator<Item = (KernelId, &'static str)> {
    kernel.kernel().variants.iter().map(move |variant| (kernel, variant.name))
}

#[test]
fn half_of_the_workgroups_missing_is_seen_in_every_kernel_and_the_next_variant_is_taken() {
    let Some(exact) = open(Options { exact: true, ..Options::default() }) else { return };
    let usual = KernelId::ALL.iter().map(|&id| (id, exact.variant(id).unwrap()));
    let wrong: Vec<(KernelId, &str)> = usual.collect();
    let mut gpu = open(Options { exact: true, wrong: wrong.clone(), ..Options::default() }).unwrap();
    for (kernel, variant) in wrong {
        // One that the planted variant suits.
        let cases = kernel.kernel().cases();
        let suits = |case: &&Case| variants_of(&gpu, case).iter().any(|it| it.name == variant);
        let case = cases.iter().find(suits).unwrap();
        let others = variants_of(&gpu, case).len() - 1;
        let before = gpu.quarantined().len();
        match probe::check(&mut gpu, case) {
            Ok(()) => assert!(others > 0, "{kernel:?} goes unseen"),
            Err(error) => {
                assert_eq!((error.kind(), others), (Kind::WrongNumbers, 0), "{error}");
                assert!(error.to_string().contains(kernel.kernel().name), "{error}");
                assert!(error.to_string().contains("belongs"), "no worst element: {error}");
            }
        }
        let found = gpu.quarantined();
        assert_eq!(found.len(), before + 1, "{kernel:?}");
        let name = format!("{} {variant}", kernel.kernel().name);
        assert!(found.iter().any(|wrong| wrong.what.starts_with(&name)), "{name}: {found:?}");
    }
}

#[test]
fn without_the_check_wrong_numbers_are_computed() {
    let case = &KernelId::Matvec.kernel().cases()[0];
    let wrong: Vec<_> = all_of(KernelId::Matvec).collect();
    let Some(mut gpu) = open(Options { wrong, trusted: true, ..Options::default() }) else { return };
    assert_eq!(probe::check(&mut gpu, case).unwrap_err().kind(), Kind::WrongNumbers);
    assert_eq!(gpu.quarantined(), []);
    let mut gpu = open(Options { trusted: true, ..Options::default() }).unwrap();
    probe::check(&mut gpu, case).unwrap();
}

#[test]
fn what_is_wrong_is_kept_for_the_driver_it_was_found_with() {
    let folder = Scratch::new();
    let tuning = Some(folder.to_path_buf());
    let case = &KernelId::RmsNorm.kernel().cases()[0];
    let planted = vec![(KernelId::RmsNorm, "subgroup")];
    let options = Options { tuning: tuning.clone(), ..Options::default() };
    let Some(mut gpu) = open(Options { wrong: planted.clone(), ..options.clone() }) else { return };
    probe::check(&mut gpu, case).unwrap();
    let found = gpu.quarantined();
    let [wrong] = &found[..] else { panic!("{found:?}") };
    assert_eq!(wrong.what, "rms_norm subgroup Store");
    assert_eq!(Quarantined::read(&folder, gpu.info()), found);

    // The second start knows it, though nothing is wrong any more, and does not check what was right.
    let submissions = |gpu: &Gpu| {
        use pocketlm::backend::Backend;
        gpu.caps().meter.submissions()
    };
    let counted = |options: Options| {
        let mut gpu = open(options).unwrap();
        probe::check(&mut gpu, case).unwrap();
        (submissions(&gpu), gpu.quarantined().len())
    };
    let without_checks = counted(Options { trusted: true, ..Options::default() }).0;
    assert_eq!(counted(options.clone()), (without_checks, 1));

    // With another driver it is tried again.
    let file = folder.join("quarantine.json");
    let text = fs::read_to_string(&file).unwrap();
    let driver = &gpu.info().driver;
    assert!(!driver.is_empty() && text.contains(driver.as_str()));
    fs::write(&file, text.replace(driver.as_str(), "a driver of last year")).unwrap();
    let (with_checks, quarantined) = counted(options.clone());
    assert_eq!(quarantined, 0);
    assert!(with_checks > without_checks);
    // Both are in the file now.
    assert!(fs::read_to_string(&file).unwrap().contains("a driver of last year"));
    assert_eq!(counted(options.clone()), (without_checks, 0));
    Quarantined::forget(&folder).unwrap();
    assert_eq!(counted(options).0, with_checks);
}

/// A model on a device whose kernels are wrong.
fn load(device: Device, wrong: &[(KernelId, &'static str)], change: fn(&mut EngineOptions)) -> Result<Model> {
    let mut options =
        EngineOptions { device, exact: true, wrong: wrong.to_vec(), ..EngineOptions::default() };
    change(&mut options);
    let path = fixture("stories260k/stories260K-f32.gguf");
    Engine::new(options).load(path, &LoadOptions::default(), |_| Ok(()))
}

/// The tokens of a story.
fn tell(model: &Model) -> Result<Vec<u32>> {
    let options = GenerateOptions {
        max_tokens: Some(40),
        sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
        ..GenerateOptions::default()
    };
    Ok(model.session().generate(&Prompt::Raw(String::new()), &options)?.finish()?.tokens)
}

#[test]
fn a_story_is_the_same_though_kernels_are_wrong_and_another_where_nobody_checks() {
    let Some(gpu) = open(Options { exact: true, ..Options::default() }) else { return };
    let nothing = |_: &mut EngineOptions| {};
    let reference = tell(&load(Device::Cpu, &[], nothing).unwrap()).unwrap();
    let hot = [KernelId::Matvec, KernelId::MatvecSwiglu, KernelId::Matmul, KernelId::AttendSplit];
    let usual = hot.map(|kernel| (kernel, gpu.variant(kernel).unwrap()));
    let plainer = load(Device::Gpu, &usual, nothing).unwrap();
    assert_ne!(plainer.info().device.backend, "cpu");
    assert_eq!(tell(&plainer).unwrap(), reference);

    // NaN may end it before it is told.
    let unchecked = load(Device::Gpu, &usual, |options| options.trusted = true);
    assert_ne!(unchecked.and_then(|model| tell(&model)).ok().as_ref(), Some(&reference));

    // Where every variant is wrong the CPU tells it, or nobody where no other device is allowed.
    let all: Vec<_> = all_of(KernelId::Matvec).collect();
    let on_cpu = load(Device::Gpu, &all, nothing).unwrap();
    assert_eq!(on_cpu.info().device.backend, "cpu");
    assert!(on_cpu.info().reason.contains("matvec"), "{}", on_cpu.info().reason);
    assert_eq!(tell(&on_cpu).unwrap(), reference);
    let error = load(Device::Gpu, &all, |options| options.pinned = true).err().unwrap();
    assert_eq!(error.kind(), Kind::WrongNumbers);
    let said = error.to_string();
    assert!(said.contains("plain f32") && said.contains("allowed") && said.contains("plan decode"), "{said}");
}
