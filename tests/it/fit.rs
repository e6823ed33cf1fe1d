//! It fits, or it says so before it is loaded: the estimate is what is then allocated, a budget is kept to the byte, and
//! what is proposed instead does fit.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use pocketlm::model::synth::{Preset, write};
use pocketlm::{
    Device, Engine, EngineOptions, Error, Estimate, Format, GenerateOptions, Kind, KvType, LoadOptions,
    LoadStage, Prompt, Trim, Verdict,
};
use serde_json::Value;

use crate::data::{Scratch, fixture, limits, real_model};
use crate::program::{End, pocketlm};

fn stories() -> PathBuf {
    fixture("stories260k/stories260K-f32.gguf")
}

/// A model with the shape of a published one and two layers.
fn synthetic(scratch: &Scratch, shape: &str, format: Format) -> PathBuf {
    let path = scratch.join(format!("{shape}-{format}.gguf"));
    let preset = Preset { layers: 2, ..Preset::named(shape).expect("a preset") };
    let mut file = BufWriter::new(File::create(&path).expect("a file"));
    write(&preset, format, 1, &mut file, &mut |_, _| Ok(())).expect("a model");
    path
}

fn engine(device: Device, exact: bool) -> Engine {
    Engine::new(EngineOptions { device, exact, limits: limits(), ..EngineOptions::default() })
}

fn small(context: u32) -> LoadOptions {
    LoadOptions { context: Some(context), sessions: 1, prefill: 32, ..LoadOptions::default() }
}

/// Bytes that compute.
fn computing(estimate: &Estimate) -> u64 {
    estimate.weights + estimate.kv + estimate.scratch
}

fn within_three_percent(actual: u64, estimated: u64) -> bool {
    actual.abs_diff(estimated) * 100 <= 3 * actual
}

/// The devices that tests run on.
fn devices() -> Vec<Device> {
    #[cfg(feature = "wgpu")]
    if crate::gpu::gpu().is_some() {
        return vec![Device::Cpu, Device::Gpu];
    }
    vec![Device::Cpu]
}

#[test]
fn what_is_loaded_is_what_was_estimated() {
    let scratch = Scratch::new();
    let files = [
        (real_model(), 512),
        (synthetic(&scratch, "mobilellm-350m", Format::Q8_0), 96),
        (synthetic(&scratch, "mobilellm-125m", Format::MXFP4), 64),
        (fixture("archs/gemma3"), 32),
        (stories(), 512),
    ];
    for (path, context) in &files {
        for device in devices() {
            let blocks: &[_] = if *path == stories() { &[Some(KvType::Q8), Some(KvType::Q4)] } else { &[] };
            for &kv_type in [None, Some(KvType::F32)].iter().chain(blocks) {
                let exact = kv_type == Some(KvType::F32);
                let (engine, options) = (engine(device, exact), LoadOptions { kv_type, ..small(*context) });
                let estimate = engine.estimate(path, &options).expect("an estimate");
                let model = engine.load(path, &options, |_| Ok(())).expect("it fits");
                let case = format!("{} on {device:?}, {kv_type:?}: {estimate:?}", path.display());
                let actual = model.info().device.meter.bytes();
                assert!(within_three_percent(actual, computing(&estimate)), "{actual} bytes: {case}");
                let told = &model.info().estimate;
                let parts = |estimate: &Estimate| (estimate.total(), estimate.mapped, estimate.staging);
                assert_eq!(parts(told), parts(&estimate), "{case}");
                assert_eq!((&told.device, told.backend), (&estimate.device, estimate.backend), "{case}");
                let half = LoadOptions { kv_type, ..small(context / 2) };
                let half = engine.estimate(path, &half).expect("an estimate");
                let is_seen = within_three_percent(actual, computing(&half));
                assert!(!is_seen || half.kv * 25 < actual, "half of the keys are not missed: {case}");
            }
        }
    }
}

/// The stages that a load came to, and how it ended.
fn loaded(engine: &Engine, path: &Path, options: &LoadOptions) -> (Vec<LoadStage>, Result<(), Error>) {
    let mut stages = Vec::new();
    let outcome = engine.load(path, options, |progress| {
        stages.push(progress.stage);
        Ok(())
    });
    (stages, outcome.map(drop))
}

#[test]
fn a_budget_is_kept_to_the_byte_and_before_weights_are_read() {
    for device in devices() {
        let engine = engine(device, true);
        let options = small(512);
        let peak = engine.estimate(stories(), &options).unwrap().peak();
        let with = |memory| LoadOptions { memory: Some(memory), ..options.clone() };
        assert!(loaded(&engine, &stories(), &with(peak)).1.is_ok());
        let (stages, refused) = loaded(&engine, &stories(), &with(peak - 1));
        let error = refused.expect_err("a byte too much");
        assert_eq!(error.kind(), Kind::OutOfMemory);
        assert!(error.to_string().contains("what would fit: "), "{error}");
        assert!(!stages.contains(&LoadStage::Uploading), "{stages:?}");
        let verdict = engine.estimate(stories(), &with(peak - 1)).unwrap().verdict;
        assert_eq!(verdict, Verdict::OverBudget);
    }
}

#[test]
fn what_is_proposed_fits() {
    let engine = engine(Device::Cpu, false);
    let options = LoadOptions { context: Some(4096), sessions: 8, ..LoadOptions::default() };
    let whole = engine.estimate(real_model(), &options).unwrap();
    let mut kinds = [0; 3];
    for share in [95, 80, 60, 40, 30, 20] {
        let memory = whole.peak() / 100 * share;
        let tight = LoadOptions { memory: Some(memory), ..options.clone() };
        let estimate = engine.estimate(real_model(), &tight).unwrap();
        assert!(!estimate.fits() && !estimate.remedies.is_empty(), "{share} %");
        for remedy in &estimate.remedies {
            assert!(remedy.peak <= memory, "{remedy:?}");
            kinds[usize::from(remedy.context < 4096)] += 1;
            kinds[2] += usize::from(remedy.kv_type == KvType::Q8);
            let taken = LoadOptions {
                kv_type: Some(remedy.kv_type),
                context: Some(remedy.context),
                sessions: remedy.sessions,
                prefill: remedy.prefill,
                outputs: remedy.outputs,
                ..tight.clone()
            };
            let taken = engine.estimate(real_model(), &taken).unwrap();
            assert!(remedy.format.is_some() || taken.peak() == remedy.peak, "{remedy:?}");
        }
        let Some(context) = estimate.largest_context else { continue };
        let of = |context| LoadOptions { context: Some(context), ..tight.clone() };
        assert!(engine.estimate(real_model(), &of(context)).unwrap().fits(), "{context}");
        assert!(!engine.estimate(real_model(), &of(context + 1)).unwrap().fits(), "{context} + 1");
    }
    assert!(kinds.iter().all(|&count| count > 0), "each kind of remedy: {kinds:?}");
}

/// What a format would save is what a file in it saves.
#[test]
fn a_proposed_format_takes_what_was_said() {
    let scratch = Scratch::new();
    let [large, small] =
        [Format::Q8_0, Format::Q5_K].map(|format| synthetic(&scratch, "mobilellm-350m", format));
    for device in devices() {
        let engine = engine(device, false);
        let options = |memory| LoadOptions { memory, ..self::small(64) };
        let wanted = engine.estimate(&small, &options(None)).unwrap().peak();
        let estimate = engine.estimate(&large, &options(Some(wanted))).unwrap();
        let found = estimate.remedies.iter().find(|remedy| remedy.format == Some(Format::Q5_K));
        let remedy = found.unwrap_or_else(|| panic!("q5_k is not proposed: {estimate:?}"));
        assert_eq!(remedy.peak, wanted, "{device:?}");
    }
}

#[test]
fn more_than_the_machine_has_is_refused() {
    let engine = engine(Device::Cpu, true);
    let options = LoadOptions { context: Some(8192), sessions: 1024, ..LoadOptions::default() };
    let estimate = engine.estimate(real_model(), &options).unwrap();
    if cfg!(target_os = "linux") {
        let most = estimate.budget.most.expect("Linux says what it has");
        assert!(estimate.total() > most, "a machine of {most} bytes is too large for this test");
        assert_eq!(estimate.verdict, Verdict::OverMachine);
        let error = loaded(&engine, &real_model(), &options).1.expect_err("more than there is");
        assert!(
            error.kind() == Kind::OutOfMemory && error.to_string().contains("the machine has"),
            "{error}"
        );
    }
    let absurd = LoadOptions { context: Some(8193), ..LoadOptions::default() };
    assert_eq!(engine.estimate(real_model(), &absurd).unwrap_err().kind(), Kind::InvalidArgument);
}

#[test]
fn the_command_says_what_fits_and_ends_as_a_load_would() {
    let cache = Scratch::new();
    let stories = stories();
    let path = stories.to_str().expect("a path in UTF-8");
    let run = |more: &[&str]| {
        let words = ["fit", path, "--device", "cpu", "--exact"];
        End::of(&pocketlm(&cache, &[&words, more].concat()).output().expect("the program starts"))
    };
    let told = run(&[]);
    for words in
        ["keys and values", "512 tokens × 1", "in all", "it fits", "all that the model was trained for"]
    {
        assert!(told.fine().contains(words), "{words:?} is not in {told:?}");
    }
    let told: Value = serde_json::from_str(run(&["--json", "--context", "128"]).fine()).unwrap();
    let options = LoadOptions { prefill: 256, ..small(128) };
    let estimate = engine(Device::Cpu, true).estimate(&stories, &options).unwrap();
    assert_eq!(told["total"], estimate.total());
    assert_eq!((&told["fits"], &told["verdict"]), (&true.into(), &"fits".into()));
    assert_eq!(told["largest_context"], 512);

    let refused = run(&["--memory", "2500KiB"]);
    assert_eq!(refused.code, Some(5), "{refused:?}");
    let says = |text: &str, due: &str| assert!(text.contains(due), "{due:?} is not in {refused:?}");
    says(&refused.stdout, "it takes more than is allowed");
    says(&refused.stdout, "would fit: 32 rows of prefill");
    says(&refused.stderr, "error: the model takes");
    // What generates is refused alike, in one line.
    let words = ["generate", "-m", path, "--device", "cpu", "-p", "x", "--memory", "2500KiB"];
    let end = End::of(&pocketlm(&cache, &words).output().expect("the program starts"));
    end.fails(5, &["2.4 MiB are allowed", "what would fit: "]);
}

/// What is given back comes back when it is needed, and nobody sees it in the tokens.
#[test]
fn memory_is_given_back_and_answers_go_on() {
    for device in devices() {
        let engine = engine(device, true);
        let model = engine.load(stories(), &small(512), |_| Ok(())).expect("it loads");
        let options = |tokens| GenerateOptions { max_tokens: Some(tokens), ..GenerateOptions::default() };
        let prompt = Prompt::Raw("Once upon a time".into());
        let whole = model.session().generate(&prompt, &options(60)).unwrap().finish().unwrap();
        let held = || model.info().device.meter.bytes();
        let estimate = &model.info().estimate;
        let before = held();
        let idle = model.trim(Trim::Idle).expect("it trims").bytes;
        // 64 of 512 positions were filled, in pages of 32.
        let due = if device == Device::Cpu { estimate.kv / 8 } else { estimate.kv };
        assert!(idle >= due && idle <= before, "{idle} bytes of {estimate:?}");
        assert!(device == Device::Cpu || held() == before - idle);
        assert_eq!(model.trim(Trim::Critical).unwrap().bytes, 0, "it is gone already");

        // In the middle of an answer.
        let mut session = model.session();
        let mut stream = session.generate(&prompt, &options(60)).unwrap();
        for _ in 0..12 {
            stream.next().expect("an event").expect("no error");
        }
        assert_eq!(held(), before, "what is needed has come back");
        assert_eq!(model.trim(Trim::Idle).unwrap().bytes, 0, "somebody waits for it");
        assert!(model.trim(Trim::Critical).unwrap().bytes > 0);
        assert_eq!(stream.finish().unwrap().tokens, whole.tokens, "{device:?}");
        assert_eq!(held(), before);
    }
}
