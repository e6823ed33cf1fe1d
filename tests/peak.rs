//! What a load takes of the host's memory, measured in a process of its own: at no moment more than 64 MiB beside the
//! mapped file and the weights on their device, whatever the model; and what stays is what was estimated.
//!
//! Two scales. An allocator that counts sees each byte that this crate and what it builds on allocate, at each moment.
//! Packed weights of the CPU are mapped and not in it; the system's own count of the process is, and of the driver of a GPU
//! too.

#![cfg(all(feature = "cli", target_os = "linux"))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pocketlm::base::Resident;
use pocketlm::format::{Checkpoint, Dialect, Metadata, NewTensor, Value, write_gguf};
use pocketlm::model::synth::{Preset, write};
use pocketlm::{Device, Engine, EngineOptions, Format, GenerateOptions, LoadOptions, Model, Prompt, Trim};
use serde_json::json;

/// What a load may take beside the file and the device's memory.
const MOST: u64 = 64 << 20;

#[path = "it/data.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod data;

#[path = "peak/words.rs"]
mod words;

use data::{Scratch, fixture, real_model, shared};
use words::Words;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

fn grow(bytes: usize) {
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

/// What a child is told in its environment.
const TASK: &str = "POCKETLM_PEAK_TASK";

/// What a child measured, in bytes.
#[derive(Debug, serde::Deserialize)]
struct Measured {
    /// The most that was allocated during the load.
    heap_peak: u64,
    /// Of that, states and temps of the CPU.
    heap_device: u64,
    /// What the system gave the process for the load and a full session.
    resident: u64,
    /// The most that it had given at any moment of the load.
    resident_peak: u64,
    /// What a trim said that it gave back.
    trimmed: u64,
    /// What the system saw of that.
    given_back: u64,
    /// By the estimate.
    estimated: u64,
    /// By the meter.
    metered: u64,
}

/// Loads a model as `task` says, fills its context, and says on a line what that took.
#[test]
#[ignore = "a child of the other tests"]
#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn child() {
    let task = std::env::var(TASK).expect("only a parent runs this");
    let [device, how, context, path] = task.splitn(4, ' ').collect::<Vec<_>>()[..] else {
        panic!("the task is {task:?}");
    };
    let device = if device == "cpu" { Device::Cpu } else { Device::Gpu };
    let context: u32 = context.parse().expect("a number");
    let before = Resident::now().expect("Linux says it").own;
    PEAK.store(NOW.load(Ordering::Relaxed), Ordering::Relaxed);
    let heap = NOW.load(Ordering::Relaxed);
    let watch = Watch::start();
    let engine = Engine::new(EngineOptions { device, ..EngineOptions::default() });
    let options = LoadOptions { context: Some(context), sessions: 1, prefill: 64, ..LoadOptions::default() };
    let model = match how {
        // The fault that this file is about.
        "copied" => engine.load_bytes(path, std::fs::read(path).expect("the file"), &options, |_| Ok(())),
        _ => engine.load(path, &options, |_| Ok(())),
    };
    let model = model.expect("it loads");
    let heap_peak = PEAK.load(Ordering::Relaxed) - heap;
    let resident_peak = watch.stop() - before;
    if how == "filled" {
        fill(&model, context);
    }
    let resident = Resident::now().expect("Linux says it").own - before;
    let trimmed = model.trim(Trim::Critical).expect("it trims").bytes;
    let given_back = (resident + before).saturating_sub(Resident::now().expect("Linux says it").own);
    let estimate = &model.info().estimate;
    let heap_device = if estimate.backend == "cpu" { estimate.kv + estimate.scratch } else { 0 };
    let metered = model.info().device.meter.bytes();
    println!(
        "\nMEASURED {}",
        json!({
            "heap_peak": heap_peak, "heap_device": heap_device, "resident": resident,
            "trimmed": trimmed, "given_back": given_back, "resident_peak": resident_peak, "estimated": estimate.total(), "metered": metered,
        })
    );
}

/// Asks the system every few milliseconds.
struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Watch {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let thread = thread::spawn(move || {
            let mut most = 0;
            while !told.load(Ordering::Relaxed) {
                most = most.max(Resident::now().expect("Linux says it").own);
                thread::sleep(Duration::from_millis(5));
            }
            most
        });
        Self { over, thread }
    }

    fn stop(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it watched")
    }
}

/// Computes a session to the end of its context.
fn fill(model: &Model, context: u32) {
    let prompt = Prompt::Tokens((0..context - 2).map(|at| 300 + at % 50).collect());
    let options = GenerateOptions { max_tokens: Some(1), ignore_end: true, ..GenerateOptions::default() };
    model.session().generate(&prompt, &options).expect("begins").finish().expect("ends");
}

#[expect(clippy::print_stderr, reason = "the figures are worth reading")]
fn measure(device: &str, how: &str, context: u32, path: &Path) -> Measured {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(TASK, format!("{device} {how} {context} {}", path.display()))
        .output()
        .expect("a child starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find_map(|line| line.strip_prefix("MEASURED "));
    let line = line.unwrap_or_else(|| panic!("{said}\n{}", String::from_utf8_lossy(&output.stderr)));
    let measured = serde_json::from_str(line).expect("what it measured");
    eprintln!("{device}, {how}, {context} tokens, {}: {measured:?}", path.display());
    measured
}

/// The backends there are.
fn devices() -> &'static [&'static str] {
    let no_gpu = std::env::var("POCKETLM_NO_GPU").is_ok_and(|value| value == "1");
    if cfg!(feature = "wgpu") && !no_gpu { &["cpu", "gpu"] } else { &["cpu"] }
}

fn synthetic(scratch: &Scratch, preset: Preset, format: Format) -> PathBuf {
    let path = scratch.join("model.gguf");
    let mut file = BufWriter::new(File::create(&path).expect("a file"));
    write(&preset, format, 1, &mut file, &mut |_, _| Ok(())).expect("a model");
    path
}

fn is_bounded(measured: &Measured) -> bool {
    measured.heap_peak - measured.heap_device <= MOST
}

/// The most that the process has during a load beside what it has after it, and on the CPU beside the weights. On a GPU in
/// software the driver takes memory of the host's for itself, which stays.
fn beside(measured: &Measured, device: &str) -> u64 {
    let stays = if device == "cpu" { measured.metered } else { measured.resident };
    measured.resident_peak.saturating_sub(stays)
}

#[test]
fn a_gibibyte_of_weights_loads_in_64_mebibytes_beside_them() {
    let scratch = Scratch::new();
    let path = synthetic(&scratch, Preset::named("llama-3.2-1b").expect("a preset"), Format::Q8_0);
    let bytes = std::fs::metadata(&path).expect("the file").len();
    assert!(bytes > 1 << 30);
    for device in devices() {
        let measured = measure(device, "loaded", 64, &path);
        assert!(is_bounded(&measured) && beside(&measured, device) <= MOST, "{device}: {measured:?}");
        assert!(measured.metered > bytes * 9 / 10, "the weights are there: {measured:?}");
        let copied = measure(device, "copied", 64, &path);
        assert!(!is_bounded(&copied), "{device}: a second copy is not seen: {copied:?}");
        assert!(*device == "gpu" || beside(&copied, device) > MOST, "nor by the system: {copied:?}");
    }
}

/// A small model with a vocabulary of `tokens` from the metadata of another.
fn with_words(scratch: &Scratch, tokens: u32, words: &Metadata) -> PathBuf {
    let small = Preset {
        layers: 1,
        width: 64,
        heads: 1,
        kv_heads: 1,
        ffn_width: 64,
        vocab: tokens,
        ..Preset::named("llama-3.2-1b").expect("a preset")
    };
    let shape = Checkpoint::open(synthetic(scratch, small, Format::Q8_0)).expect("a model");
    let Dialect::Gguf(shape_says) = &shape.dialect else { panic!("another dialect") };
    let mut metadata = Metadata::default();
    let is_word = |key: &str| key.starts_with("tokenizer.");
    let of_shape = shape_says.iter().filter(|(key, _)| !is_word(key));
    for (key, value) in of_shape.chain(words.iter().filter(|(key, _)| is_word(key))) {
        metadata.insert(key.to_owned(), value.clone()).expect("a key once");
    }
    let tensors: Vec<NewTensor> = shape
        .tensors
        .values()
        .map(|tensor| NewTensor {
            name: tensor.name.clone(),
            dims: tensor.dims.clone(),
            format: tensor.format().expect("a format"),
        })
        .collect();
    let path = scratch.join("words.gguf");
    let mut file = BufWriter::new(File::create(&path).expect("a file"));
    write_gguf(&mut file, &metadata, &tensors, |tensor, out| {
        Ok(out.write_all(&shape.tensors[&tensor.name].bytes)?)
    })
    .expect("a model");
    path
}

#[test]
fn a_large_vocabulary_is_read_in_64_mebibytes() {
    let words =
        Checkpoint::open(shared("vocab/ggml-vocab-llama-bpe.gguf")).expect("the vocabulary of Llama 3");
    let Dialect::Gguf(words) = &words.dialect else { panic!("another dialect") };
    assert!(matches!(words.get("tokenizer.ggml.merges"), Some(Value::Array(_))));
    let scratch = Scratch::new();
    let measured = measure("cpu", "loaded", 64, &with_words(&scratch, 128_256, words));
    assert!(is_bounded(&measured), "{measured:?}");
}

/// In each form that a file can have it in.
#[test]
fn a_vocabulary_of_262144_tokens_is_read_in_64_mebibytes() {
    let byte_level = Words::byte_level();
    let merges = byte_level.merges().len();
    assert!((500_000..=530_000).contains(&merges), "{merges} merges");
    let pieces = Words::sentence_piece();
    for (is_byte_level, words) in [(true, &byte_level), (false, &pieces)] {
        let scratch = Scratch::new();
        let path = with_words(&scratch, words::COUNT, &words.metadata(is_byte_level));
        let measured = measure("cpu", "loaded", 64, &path);
        assert!(is_bounded(&measured), "GGUF, byte-level: {is_byte_level}: {measured:?}");
    }
    for name in ["tokenizer.json", "tokenizer.model"] {
        let scratch = Scratch::new();
        words::write_folder(&fixture("archs/gemma3"), &scratch);
        let path = scratch.join(name);
        if name == "tokenizer.json" {
            pieces.write_json(&path)
        } else {
            pieces.write_model(&path)
        }
        let measured = measure("cpu", "loaded", 64, &scratch);
        assert!(is_bounded(&measured), "{name}: {measured:?}");
    }
}

/// The CPU keeps all in memory of the host's, and the system says how much that is.
#[test]
fn what_stays_on_the_host_is_what_was_estimated() {
    let scratch = Scratch::new();
    let shape = Preset { layers: 12, ..Preset::named("mobilellm-350m").expect("a preset") };
    let models = [(synthetic(&scratch, shape, Format::Q6_K), 128), (real_model(), 512)];
    for (path, context) in models {
        let measured = measure("cpu", "filled", context, &path);
        let Measured { resident, estimated, trimmed, given_back, .. } = measured;
        assert!(resident.abs_diff(estimated) * 100 <= 3 * resident, "{resident} and not {estimated}");
        // What the allocator gives on to the system depends on the sizes of its blocks; what it was given does not.
        assert!(trimmed > 0 && given_back <= resident, "{trimmed} were said to be free, {given_back} are");
    }
}
