//! `doctor`: whether this machine's devices compute what they should.
//!
//! On each device every kernel runs the smallest case of each form, in the weight formats that stand for all (the embedding in
//! each; with --full everything in all), and is compared with its twin; a variant that is wrong is put aside and the next one tried. Then the device talks: a model of 260,000
//! weights continues a story, and all devices must tell the same.

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use pocketlm::backend::cpu::{Cpu, CpuOptions};
use pocketlm::backend::{Backend, probe};
use pocketlm::kernel::{Case, Form, KernelId, REPRESENTATIVES};
use pocketlm::{
    Device, Engine, EngineOptions, Error, GenerateOptions, Kind, LoadOptions, Prompt, Result as Outcome,
    Sampling,
};
use serde::Serialize;
use serde_json::{Value, json};

#[cfg(feature = "wgpu")]
use pocketlm::backend::wgpu::Picks;

use crate::args::{DeviceChoice, JsonArgs};
use crate::interrupt::Work;
use crate::{models, output, soak};

/// The model that talks: stories260K (MIT), see tests/fixtures/stories260k.
const STORIES: &[u8] = include_bytes!("../../../../tests/fixtures/stories260k/stories260K-f32.gguf");
const STORY_TOKENS: u32 = 60;

/// Checks every kernel on every device, and lets each device tell a story
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run all cases of each kernel in every weight format, not the smallest in a few: minutes on a slow device
    #[arg(long)]
    full: bool,
    /// Let sessions run into faults of every kind for so many seconds, on the CPU and on each GPU in turn, and check that
    /// every answer is the one that was due
    #[arg(long, value_name = "SECONDS")]
    soak: Option<u64>,
    /// What the faults of --soak come from; the same number gives the same ones [default: a new one]
    #[arg(long, requires = "soak")]
    seed: Option<u64>,
    /// Soak these devices alone: cpu, gpu, or a row of `pocketlm devices`
    #[arg(long, requires = "soak", value_delimiter = ',', value_name = "NAME,…")]
    on: Vec<DeviceChoice>,
    /// Forget which kernels were measured to be fastest; the next start measures again
    #[arg(long)]
    forget_tuning: bool,
    #[command(flatten)]
    json: JsonArgs,
}

/// What was found on a device.
#[derive(Serialize)]
struct Finding {
    name: String,
    facts: Value,
    kernels: Vec<Probed>,
    story: Option<String>,
    tokens_per_second: Option<f64>,
    /// By kernel and format: microseconds of each variant, and the one that is used.
    tuning: Value,
    /// What went wrong beside the kernels.
    error: Option<String>,
}

/// A variant of a kernel and how it did.
#[derive(Serialize)]
struct Probed {
    kernel: &'static str,
    variant: &'static str,
    cases: usize,
    milliseconds: f64,
    /// The first case that was wrong.
    error: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    #[cfg(feature = "wgpu")]
    if args.forget_tuning {
        Picks::forget(&models::cache_folder()?)?;
    }
    if let Some(seconds) = args.soak {
        return soak(args, seconds);
    }
    let work = Work::begin();
    let mut findings = Vec::new();
    let mut show = |finding: Finding| -> anyhow::Result<()> {
        if !args.json.json {
            describe(&finding)?;
        }
        findings.push(finding);
        Ok(())
    };
    show(on_cpu(args.full, &work)?)?;
    #[cfg(feature = "wgpu")]
    for device in pocketlm::devices() {
        show(on_gpu(&device, args.full, &work)?)?;
    }
    let verdict = verdict(&findings);
    if args.json.json {
        let wrong = verdict.as_ref().err().map(ToString::to_string);
        output::json(&json!({ "devices": findings, "wrong": wrong }))?;
    }
    verdict?;
    if !args.json.json {
        output::line(&format!("all is well on {} devices: right numbers, one story", findings.len()))?;
    }
    Ok(())
}

fn soak(args: &Args, seconds: u64) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(|| RandomState::new().hash_one("soak"));
    output::note(&format!("soaking for {seconds} s with --seed {seed}"));
    let mut devices: Vec<Device> = args.on.iter().map(|&choice| choice.into()).collect();
    if devices.is_empty() {
        devices = vec![Device::Cpu];
        #[cfg(feature = "wgpu")]
        devices.extend(pocketlm::devices().iter().map(|device| Device::Index(device.index)));
    }
    let report = soak::soak(seconds, seed, &devices, STORIES, args.json.json)?;
    if args.json.json {
        return output::json(&report);
    }
    for (what, count) in report.as_object().into_iter().flatten() {
        output::line(&format!("{what:16} {count}"))?;
    }
    output::line("all is well: every answer was the one that was due, or ended with what befell it")
}

/// The cases of a kernel: the first and smallest of each form in the formats that stand for all, or all.
fn cases(kernel: KernelId, full: bool) -> Vec<Case> {
    let mut cases = kernel.kernel().cases();
    if !full {
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

/// Whether a form is checked in any case: all that a format is to a shader is laid open by the embedding.
fn stands(kernel: KernelId, form: Form) -> bool {
    form.format.is_none_or(|format| kernel == KernelId::Embed || REPRESENTATIVES.contains(&format))
}

fn probe(
    backend: &mut dyn Backend,
    kernel: KernelId,
    variant: &'static str,
    cases: &[Case],
    work: &Work,
) -> Outcome<Probed> {
    let begun = Instant::now();
    // What was not checked is not right.
    let mut error = cases.is_empty().then(|| "there is no case to check".to_owned());
    for case in cases {
        work.check()?;
        match probe::check(backend, case) {
            Ok(()) => {}
            Err(wrong) if wrong.kind() == Kind::DeviceLost => return Err(wrong),
            Err(wrong) => {
                error = Some(wrong.to_string());
                break;
            }
        }
    }
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    Ok(Probed { kernel: kernel.kernel().name, variant, cases: cases.len(), milliseconds, error })
}

fn on_cpu(full: bool, work: &Work) -> Outcome<Finding> {
    let mut cpu = Cpu::new(CpuOptions { threads: None, exact: true })?;
    let name = cpu.caps().name.clone();
    let mut kernels = Vec::new();
    for &kernel in KernelId::ALL {
        kernels.push(probe(&mut cpu, kernel, "cpu", &cases(kernel, full), work)?);
    }
    Ok(talk(Finding { name, facts: Value::Null, kernels, ..Finding::nothing() }, Device::Cpu))
}

#[cfg(feature = "wgpu")]
fn on_gpu(device: &pocketlm::DeviceInfo, full: bool, work: &Work) -> Outcome<Finding> {
    use pocketlm::backend::wgpu::{Choice, Gpu, Options};
    let name = super::devices::describe(device);
    let tuning = serde_json::to_value(Picks::read(&models::cache_folder()?, device)).unwrap_or_default();
    let mut finding = Finding { name, facts: super::devices::facts(device), tuning, ..Finding::nothing() };
    // Each variant is compared here.
    let options = Options { trusted: true, ..Options::default() };
    let mut gpu = match Gpu::open(Choice::Index(device.index), options) {
        Ok(gpu) => gpu,
        Err(error) => {
            // A device that cannot be opened computes nothing wrong.
            finding.name += &format!("; left out: {error}");
            return Ok(finding);
        }
    };
    for &kernel in KernelId::ALL {
        let cases = cases(kernel, full);
        // A wrong variant is put aside and the next one tried, until one is right or none is left.
        loop {
            let variant = match gpu.variant(kernel) {
                Ok(variant) => variant,
                Err(error) => {
                    finding.error.get_or_insert_with(|| error.to_string());
                    break;
                }
            };
            match probe(&mut gpu, kernel, variant, &cases, work) {
                Ok(probed) => {
                    let is_right = probed.error.is_none();
                    finding.kernels.push(probed);
                    if is_right {
                        break;
                    }
                    gpu.exclude(kernel, variant);
                }
                Err(error) if error.kind() == Kind::Cancelled => return Err(error),
                Err(error) => {
                    finding.error = Some(error.to_string());
                    return Ok(finding);
                }
            }
        }
    }
    Ok(talk(finding, Device::Index(device.index)))
}

/// Lets the device tell the story; what stops it is written down.
fn talk(mut finding: Finding, device: Device) -> Finding {
    match story(device) {
        Ok((text, rate)) => (finding.story, finding.tokens_per_second) = (Some(text), Some(rate)),
        Err(error) => finding.error = finding.error.or(Some(error.to_string())),
    }
    finding
}

fn story(device: Device) -> Outcome<(String, f64)> {
    // Exact: only then must two devices agree to the letter.
    let engine = Engine::new(EngineOptions { device, exact: true, pinned: true, ..EngineOptions::default() });
    let options = LoadOptions { sessions: 1, ..LoadOptions::default() };
    let model = engine.load_bytes("stories260K", STORIES, &options, |_| Ok(()))?;
    let options = GenerateOptions {
        max_tokens: Some(STORY_TOKENS),
        sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
        ..GenerateOptions::default()
    };
    let finish = model.session().generate(&Prompt::Raw(String::new()), &options)?.finish()?;
    Ok((finish.text, finish.timings.decode_rate()))
}

/// An error where a device computes something wrong or cannot compute.
fn verdict(findings: &[Finding]) -> Outcome<()> {
    let told = findings.iter().find_map(|finding| finding.story.as_ref());
    for finding in findings {
        let wrong = |what: &str| Err(Error::new(Kind::WrongNumbers, format!("{}: {what}", finding.name)));
        if let Some((probed, error)) =
            finding.kernels.iter().find_map(|probed| Some((probed, probed.error.as_ref()?)))
        {
            return wrong(&format!("{} ({}) is wrong: {error}", probed.kernel, probed.variant));
        }
        if let Some(error) = &finding.error {
            return wrong(error);
        }
        if finding.story.is_some() && finding.story.as_ref() != told {
            return wrong("it tells another story than the first device");
        }
    }
    Ok(())
}

fn describe(finding: &Finding) -> anyhow::Result<()> {
    output::line(&finding.name)?;
    for Probed { kernel, variant, cases, milliseconds, error } in &finding.kernels {
        let verdict = error.as_ref().map_or_else(|| "right".to_owned(), |error| format!("WRONG: {error}"));
        output::line(&format!("  {kernel:9} {variant:16} {cases:4} cases {milliseconds:8.1} ms  {verdict}"))?;
    }
    for (kernel, pick) in finding.tuning.as_object().into_iter().flatten() {
        let micros = pick["micros"].as_object().into_iter().flatten().map(|(variant, micros)| {
            let mark = if pick["variant"] == variant.as_str() { "*" } else { "" };
            format!("{variant}{mark} {:.0}", micros.as_f64().unwrap_or_default())
        });
        let micros: Vec<String> = micros.collect();
        output::line(&format!("  {kernel:26} {} µs (* is used)", micros.join(", ")))?;
    }
    if let (Some(story), Some(rate)) = (&finding.story, finding.tokens_per_second) {
        output::line(&format!("  says at {rate:.0} tokens/s: {}", story.trim()))?;
    }
    if let Some(error) = &finding.error {
        output::line(&format!("  {error}"))?;
    }
    output::line("")
}

impl Finding {
    fn nothing() -> Self {
        Self {
            name: String::new(),
            facts: Value::Null,
            kernels: Vec::new(),
            story: None,
            tuning: Value::Null,
            tokens_per_second: None,
            error: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(story: &str) -> Finding {
        Finding { name: "device".into(), story: Some(story.into()), ..Finding::nothing() }
    }

    #[test]
    fn the_verdict_can_say_no() {
        assert!(verdict(&[finding("a"), finding("a")]).is_ok());
        let kind = |findings: &[Finding]| verdict(findings).unwrap_err().kind();
        assert_eq!(kind(&[finding("a"), finding("b")]), Kind::WrongNumbers);
        let probed = Probed {
            kernel: "rope",
            variant: "plain",
            cases: 1,
            milliseconds: 0.0,
            error: Some("off".into()),
        };
        assert_eq!(kind(&[Finding { kernels: vec![probed], ..finding("a") }]), Kind::WrongNumbers);
        assert_eq!(kind(&[Finding { error: Some("gone".into()), ..finding("a") }]), Kind::WrongNumbers);
    }

    #[test]
    fn each_form_of_each_kernel_is_checked_and_none_is_not_right() {
        let mut cpu = Cpu::new(CpuOptions { threads: Some(1), exact: true }).unwrap();
        let work = Work::begin();
        for &kernel in KernelId::ALL {
            let (few, all) = (cases(kernel, false), cases(kernel, true));
            let times = |case: &Case| few.iter().filter(|known| known.form == case.form).count();
            assert!(all.iter().all(|case| times(case) == usize::from(stands(kernel, case.form))));
            assert!(probe(&mut cpu, kernel, "cpu", &[], &work).unwrap().error.is_some());
        }
    }
}
