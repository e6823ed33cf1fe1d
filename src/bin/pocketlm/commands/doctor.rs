//! `doctor`: whether this machine's devices compute what they should.
//!
//! On each device every kernel runs the smallest case of each form, in the weight formats that stand for all (the embedding in
//! each), and is compared with its twin; a variant that is wrong is put aside and the next one tried. With --full every
//! variant runs every case. Then the device talks: a model of 260,000 weights continues a story, and all devices must tell
//! the same. A report has all of it, to attach to a bug report.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use pocketlm::backend::Backend;
use pocketlm::backend::cpu::{Cpu, CpuOptions};
use pocketlm::{
    Device, Engine, EngineOptions, Error, Estimate, GenerateOptions, Kind, LoadOptions, Prompt,
    Result as Outcome, Sampling,
};
use serde::Serialize;
use serde_json::{Value, json};

#[cfg(feature = "wgpu")]
use pocketlm::backend::wgpu::{Gpu, Picks, Quarantined};

use crate::args::{DeviceChoice, JsonArgs};
use crate::checks::{Checks, Probed, Scope};
use crate::interrupt::Work;
use crate::{models, output, soak};

/// The model that talks: stories260K (MIT), see tests/fixtures/stories260k.
const STORIES: &[u8] = include_bytes!("../../../../tests/fixtures/stories260k/stories260K-f32.gguf");
const STORY_TOKENS: u32 = 60;

/// Checks every kernel on every device, and lets each device tell a story
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    scope: Scope,
    /// Write all that was found to FILE, as JSON: to attach to a bug report
    #[arg(long, value_name = "FILE", conflicts_with = "soak")]
    report: Option<PathBuf>,
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
    /// Forget which kernels were measured to be fastest, and which were found right or wrong; the next start finds out again
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
    #[serde(flatten)]
    checks: Checks,
    story: Option<String>,
    tokens_per_second: Option<f64>,
    /// Of the model that told the story.
    memory: Option<Memory>,
    /// By kernel and format: microseconds of each variant, and the one that is used.
    tuning: Value,
    /// What is not used of the device, and why.
    left_out: Vec<String>,
    /// What went wrong beside the kernels.
    error: Option<String>,
}

/// What a model takes of memory to compute, in bytes.
#[derive(Clone, Copy, Serialize)]
struct Memory {
    /// Before it was loaded.
    estimated: u64,
    /// What was allocated.
    held: u64,
}

impl Memory {
    /// Within 3 %.
    fn is_as_estimated(self) -> bool {
        self.held.abs_diff(self.estimated) * 100 <= 3 * self.held
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    #[cfg(feature = "wgpu")]
    if args.forget_tuning {
        Picks::forget(&models::cache_folder()?)?;
        Quarantined::forget(&models::cache_folder()?)?;
    }
    // A file that cannot be written is told before minutes have passed.
    if let Some(file) = &args.report {
        write(file, b"")?;
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
    show(on_cpu(args, &work)?)?;
    #[cfg(feature = "wgpu")]
    for device in pocketlm::devices() {
        show(on_gpu(&device, args, &work)?)?;
    }
    let verdict = verdict(&findings);
    let wrong = verdict.as_ref().err().map(ToString::to_string);
    let report = json!({ "pocketlm": env!("CARGO_PKG_VERSION"), "machine": machine(), "full": args.scope.full,
        "devices": findings, "wrong": wrong });
    if args.json.json {
        output::json(&report)?;
    }
    if let Some(file) = &args.report {
        write(file, &serde_json::to_vec_pretty(&report)?)?;
        output::note(&format!("the report is in {}: attach it to a bug report", file.display()));
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

fn write(file: &Path, bytes: &[u8]) -> Outcome<()> {
    // Not an error of a model's file, whatever it is.
    let refused = |error: std::io::Error| Error::new(Kind::Io, error.to_string()).in_file(file);
    std::fs::write(file, bytes).map_err(refused)
}

/// What a bug report has to say of the machine beside its devices.
fn machine() -> Value {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let release = read("/etc/os-release");
    let name =
        release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"'));
    json!({
        "os": std::env::consts::OS, "arch": std::env::consts::ARCH, "name": name,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "threads": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    })
}

fn on_cpu(args: &Args, work: &Work) -> Outcome<Finding> {
    let mut cpu = Cpu::new(CpuOptions { threads: None, exact: true })?;
    let mut finding = Finding { name: cpu.caps().name.clone(), ..Finding::nothing() };
    for kernel in args.scope.kernels() {
        finding.checks.record(&mut cpu, (kernel, "cpu"), &args.scope.cases(kernel), &args.scope, work)?;
    }
    Ok(talk(finding, Device::Cpu))
}

#[cfg(feature = "wgpu")]
fn on_gpu(device: &pocketlm::DeviceInfo, args: &Args, work: &Work) -> Outcome<Finding> {
    use pocketlm::backend::wgpu::{Choice, Options};
    let tuning = serde_json::to_value(Picks::read(&models::cache_folder()?, device)).unwrap_or_default();
    let name = super::devices::describe(device);
    let left_out = super::devices::left_out(device);
    let mut finding =
        Finding { name, facts: super::devices::facts(device), tuning, left_out, ..Finding::nothing() };
    // Each variant is compared here.
    let options = Options { trusted: true, ..Options::default() };
    let gpu = match Gpu::open(Choice::Index(device.index), options) {
        Ok(gpu) => gpu,
        Err(error) => {
            // A device that cannot be opened computes nothing wrong.
            finding.name += &format!("; left out: {error}");
            return Ok(finding);
        }
    };
    for kernel in args.scope.kernels() {
        match finding.checks.on_gpu(&gpu, kernel, &args.scope, work) {
            Ok(()) => {}
            // Of the other kernels something can be said all the same.
            Err(error) if error.kind() == Kind::Unsupported => {
                finding.error.get_or_insert_with(|| error.to_string());
            }
            Err(error) if error.kind() == Kind::Cancelled => return Err(error),
            Err(error) => {
                finding.error = Some(error.to_string());
                return Ok(finding);
            }
        }
    }
    Ok(talk(finding, Device::Index(device.index)))
}

/// Lets the device tell the story; what stops it is written down.
fn talk(mut finding: Finding, device: Device) -> Finding {
    match story(device) {
        Ok((text, rate, memory)) => {
            (finding.story, finding.tokens_per_second, finding.memory) =
                (Some(text), Some(rate), Some(memory));
        }
        Err(error) => finding.error = finding.error.or(Some(error.to_string())),
    }
    finding
}

fn story(device: Device) -> Outcome<(String, f64, Memory)> {
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
    let Estimate { weights, kv, scratch, .. } = &model.info().estimate;
    let memory = Memory { estimated: weights + kv + scratch, held: model.info().device.meter.bytes() };
    Ok((finish.text, finish.timings.decode_rate(), memory))
}

/// An error where a device computes something wrong or cannot compute.
fn verdict(findings: &[Finding]) -> Outcome<()> {
    let told = findings.iter().find_map(|finding| finding.story.as_ref());
    for finding in findings {
        let wrong = |what: &str| Err(Error::new(Kind::WrongNumbers, format!("{}: {what}", finding.name)));
        if let Some((probed, error)) =
            finding.checks.kernels.iter().find_map(|probed| Some((probed, probed.error.as_ref()?)))
        {
            return wrong(&format!("{} ({}) is wrong: {error}", probed.kernel, probed.variant));
        }
        if let Some(error) = &finding.error {
            return wrong(error);
        }
        if let Some(memory) = finding.memory.filter(|memory| !memory.is_as_estimated()) {
            return wrong(&format!("{} bytes were estimated and {} are held", memory.estimated, memory.held));
        }
        if finding.story.is_some() && finding.story.as_ref() != told {
            return wrong("it tells another story than the first device");
        }
    }
    Ok(())
}

fn describe(finding: &Finding) -> anyhow::Result<()> {
    output::line(&finding.name)?;
    finding.left_out.iter().try_for_each(|line| output::line(&format!("  {line}")))?;
    for Probed { kernel, variant, cases, milliseconds, error } in &finding.checks.kernels {
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
    if let Some(Memory { estimated, held }) = finding.memory {
        let [held, estimated] = [held, estimated].map(|bytes| bytes as f64 / 1024.0);
        output::line(&format!("  holds {held:.1} KiB for it, {estimated:.1} KiB were estimated"))?;
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
            checks: Checks::default(),
            left_out: Vec::new(),
            story: None,
            tuning: Value::Null,
            tokens_per_second: None,
            memory: None,
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
        assert_eq!(
            kind(&[Finding {
                checks: Checks { kernels: vec![probed], ..Checks::default() },
                ..finding("a")
            }]),
            Kind::WrongNumbers
        );
        assert_eq!(kind(&[Finding { error: Some("gone".into()), ..finding("a") }]), Kind::WrongNumbers);
        let holds = |held| Finding { memory: Some(Memory { estimated: 1000, held }), ..finding("a") };
        assert!(verdict(&[holds(1030)]).is_ok());
        assert_eq!(kind(&[holds(1032)]), Kind::WrongNumbers);
        assert_eq!(kind(&[holds(0)]), Kind::WrongNumbers);
    }
}
