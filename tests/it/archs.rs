//! Tiny checkpoints of each architecture against logits that are not ours (`tools/fixtures/archs.py`), in both dialects, and
//! the same with one mechanism broken, which must be seen.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pocketlm::backend::cpu::{Cpu, CpuOptions};
use pocketlm::backend::{Backend, Status};
use pocketlm::format::Checkpoint;
use pocketlm::kernel::{KvType, PAGE};
use pocketlm::model::{
    Blueprint, CacheOptions, Ffn, LowerOptions, Naming, Norm, Pairing, Part, Stems, Temperature, Weights,
    lower,
};
use pocketlm::plan::Inputs;
use pocketlm::{Device, Engine, EngineOptions, GenerateOptions, LoadOptions, Model, Prompt};
use serde::Deserialize;

use crate::data::{fixture, limits};

/// Every fixture; those with a file of GGUF beside the folder are listed twice.
pub(crate) const ALL: &[&str] = &[
    "gemma2",
    "gemma2.gguf",
    "gemma3",
    "gemma3.gguf",
    "gpt2",
    "gpt2.gguf",
    "llama4",
    "mistral",
    "mobilellm",
    "mobilellm_pro",
    "phi3",
    "phi3.gguf",
    "qwen2",
    "qwen2.gguf",
    "qwen3",
    "qwen3.gguf",
    "smollm3",
    "smollm3.gguf",
];

const VOCAB: usize = 64;

/// What the reference says.
#[derive(Deserialize)]
struct Expected {
    tokens: Vec<u32>,
    greedy: Vec<u32>,
}

fn floats(path: &str) -> Vec<f32> {
    let bytes = std::fs::read(fixture(path)).expect("logits");
    bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().expect("four bytes"))).collect()
}

fn expected(name: &str) -> (Expected, Vec<f32>) {
    let folder = name.trim_end_matches(".gguf");
    let text = std::fs::read(fixture(&format!("archs/{folder}/expected.json"))).expect("expected.json");
    let expected = serde_json::from_slice(&text).expect("expected.json");
    (expected, floats(&format!("archs/{folder}/logits.bin")))
}

pub(crate) fn read(name: &str) -> (Checkpoint, Blueprint) {
    let checkpoint = Checkpoint::open(fixture(&format!("archs/{name}"))).expect("opens");
    let blueprint = Blueprint::read(&checkpoint).expect("an architecture");
    (checkpoint, blueprint)
}

/// How far logits may be off. Each of some sixteen operations on a row in a block rounds it once more, by half a unit of
/// f32 and, of what goes into the cache, of f16 where that holds it; the last norm makes of all that a share of
/// ‖h‖ ≤ √width · max|gain|, and a logit has it times the norm of its row of the head. Errors do not all point the
/// same way, so their number stands for what blocks make of the errors before them.
fn tolerance(name: &str, is_exact: bool) -> f32 {
    let (checkpoint, blueprint) = read(name);
    let weights = Weights::gather(&checkpoint, &blueprint).expect("weights");
    let head = weights.head.as_ref().map_or(&weights.embedding, |head| &head.base);
    let mut row = vec![0.0; head.cols()];
    let norms = (0..head.rows()).map(|index| {
        head.decode_row(index, &mut row);
        row.iter().map(|w| w * w).sum::<f32>().sqrt()
    });
    let gain = weights.final_norm.gain.iter().fold(0.0f32, |most, gain| most.max(gain.abs()));
    let (blocks, unit, half) = (blueprint.blocks.len() as f32, f32::EPSILON / 2.0, 2f32.powi(-11));
    let share = 16.0 * blocks * unit + if is_exact { 0.0 } else { 2.0 * blocks * half };
    share * (blueprint.width as f32).sqrt() * gain * norms.fold(0.0, f32::max)
}

/// The largest difference, and where it is; NaN is the largest of all.
fn distance(got: &[f32], expected: &[f32]) -> (f32, usize) {
    assert_eq!(got.len(), expected.len());
    let apart = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs());
    let apart = apart.map(|apart| if apart.is_nan() { f32::INFINITY } else { apart }).zip(0..);
    apart.fold((0.0, 0), |worst, here| if here.0 > worst.0 { here } else { worst })
}

fn load(engine: &Engine, path: &Path, context: u32) -> pocketlm::Result<Model> {
    let options = LoadOptions { context: Some(context), outputs: 16, prefill: 16, ..LoadOptions::default() };
    engine.load(path, &options, |_| Ok(()))
}

/// The same weights in another file of `path`: whether they still have the logits of the fixture.
pub(crate) fn judge_copy(name: &str, path: &Path) -> Result<(), String> {
    let engine = Engine::new(EngineOptions { device: Device::Cpu, exact: true, ..EngineOptions::default() });
    let context = expected(name).0.tokens.len() as u32;
    judge_logits(&load(&engine, path, context).map_err(|error| format!("{name}: {error}"))?, name, true)
}

fn judge_logits(model: &Model, name: &str, is_exact: bool) -> Result<(), String> {
    let (expected, logits) = expected(name);
    let mut got = Vec::new();
    let keep = |_, row: &[f32]| {
        got.extend_from_slice(row);
        Ok(())
    };
    model.logits(&expected.tokens, 0, keep).map_err(|error| format!("{name}: {error}"))?;
    let (tolerance, (worst, at)) = (tolerance(name, is_exact), distance(&got, &logits));
    match worst > tolerance {
        false => Ok(()),
        true => Err(format!(
            "{name}: off by {worst:e} at token {} of row {}, where {tolerance:e} is allowed",
            at % VOCAB,
            at / VOCAB
        )),
    }
}

/// Prompts in slices of 16 rows and of one, which are two plans, and a greedy answer.
fn judge(engine: &Engine, name: &str, is_exact: bool) -> Result<(), String> {
    let (expected, _) = expected(name);
    let path = fixture(&format!("archs/{name}"));
    let load = |context| load(engine, &path, context).map_err(|error| format!("{name}: {error}"));
    let mut model: Model = load(expected.tokens.len() as u32)?;
    judge_logits(&model, name, is_exact)?;
    // The reference changes frequencies when a sequence outgrows those for short ones; here the context has chosen.
    if read(name).1.ropes.iter().any(|rope| rope.long.is_some()) {
        model = load(32)?;
    }
    let prompt = Prompt::Tokens(expected.tokens[..expected.tokens.len() / 2].to_vec());
    let greedy = GenerateOptions {
        max_tokens: Some(expected.greedy.len() as u32),
        ignore_end: true,
        ..GenerateOptions::default()
    };
    let finish = model.session().generate(&prompt, &greedy).and_then(|stream| stream.finish());
    let tokens = finish.map_err(|error| format!("{name}: {error}"))?.tokens;
    match tokens == expected.greedy {
        true => Ok(()),
        false => Err(format!("{name}: answers {tokens:?}, where {:?} was expected", expected.greedy)),
    }
}

#[test]
fn a_blueprint_counts_the_parameters_of_its_file() {
    for name in ALL {
        let (checkpoint, blueprint) = read(name);
        let counted = |name: &str| !name.ends_with(".bias") && !name.starts_with("rope_");
        let tensors = checkpoint.tensors.values().filter(|tensor| counted(&tensor.name));
        let elements: u64 = tensors.map(|tensor| tensor.dims.iter().product::<u64>()).sum();
        assert_eq!(blueprint.parameters(), elements, "{name}");
    }
}

fn judge_all(device: Device, exact: bool, names: &[&str]) {
    let engine = Engine::new(EngineOptions { device, exact, limits: limits(), ..EngineOptions::default() });
    let wrong: Vec<String> = names.iter().filter_map(|name| judge(&engine, name, exact).err()).collect();
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), names.len(), wrong.join("\n"));
}

#[test]
fn the_exact_cpu_has_the_logits_of_the_reference() {
    judge_all(Device::Cpu, true, ALL);
}

#[test]
fn the_cpu_has_the_logits_of_the_reference() {
    judge_all(Device::Cpu, false, ALL);
}

/// One dialect: what the device computes does not know the other.
#[cfg(feature = "wgpu")]
#[test]
fn the_gpu_has_the_logits_of_the_reference() {
    let folders: Vec<&str> = ALL.iter().copied().filter(|name| !name.ends_with(".gguf")).collect();
    judge_all(Device::Gpu, true, &folders);
}

/// The logits of all rows on the exact CPU, with the blueprint as it is given.
fn logits_of(checkpoint: &Checkpoint, blueprint: &Blueprint, tokens: &[u32]) -> Vec<f32> {
    let weights = Weights::gather(checkpoint, blueprint).expect("weights");
    let rows = tokens.len() as u32;
    let options = LowerOptions {
        context: rows,
        caches: vec![CacheOptions::full(KvType::F32, rows, 1)],
        prefill_rows: rows,
        decode_rows: 1,
        outputs: rows,
        top: 1,
        max_matrix_bytes: u64::MAX,
        fused: false,
        calibrates: false,
        int8_activations: false,
    };
    let lowered = lower(blueprint, &weights, options).expect("a plan");
    let mut cpu = Cpu::new(CpuOptions { exact: true, ..CpuOptions::default() }).expect("a CPU");
    cpu.load(&lowered.store, &mut |_, _| Ok(())).expect("loads");
    let prefill = &lowered.caches[0].prefill;
    let program = cpu.prepare(Arc::clone(&prefill.plan)).expect("prepares");
    let ports = &lowered.ports;
    let words: Vec<u32> = (0..).zip(tokens).flat_map(|(at, &token)| [token, at, 0, 0]).collect();
    let numbers: Vec<u32> = (0..rows).collect();
    cpu.write(ports.rows, 0, bytemuck::cast_slice(&words)).expect("rows");
    cpu.write(ports.outputs, 0, bytemuck::cast_slice(&numbers)).expect("outputs");
    cpu.write(ports.pages, 0, bytemuck::cast_slice(&numbers[..rows.div_ceil(PAGE) as usize])).expect("pages");
    let inputs = Inputs { rows, outputs: rows, kv_len: rows };
    let ticket = cpu.submit(&program, 0..prefill.logits, inputs).expect("submits");
    assert!(matches!(cpu.poll(ticket, Duration::ZERO), Ok(Status::Finished(_))));
    let mut logits = vec![0.0f32; tokens.len() * VOCAB];
    cpu.read(ports.logits, 0, bytemuck::cast_slice_mut(&mut logits)).expect("logits");
    logits
}

/// LongRoPE has two sets of frequencies; the context chooses, and here it is not longer than the first training.
#[test]
fn short_contexts_turn_by_the_short_factors() {
    for name in ["phi3", "phi3.gguf"] {
        let (checkpoint, blueprint) = read(name);
        let (reference, long) = expected(name);
        let short = floats("archs/phi3/logits_short.bin");
        let got = logits_of(&checkpoint, &blueprint, &reference.tokens[..32]);
        assert!(distance(&got, &short).0 <= tolerance(name, true), "{name}: {:?}", distance(&got, &short));
        let (apart, _) = distance(&got, &long[..got.len()]);
        assert!(apart > tolerance(name, true), "{name}: long factors make no difference");
    }
}

/// Gives the windows of all blocks that have one another width.
fn windows(blueprint: &mut Blueprint, change: fn(u32) -> u32) {
    blueprint.blocks.iter_mut().for_each(|block| block.attention.window = block.attention.window.map(change));
}

/// Where queries and keys have each other's gains.
const SWAPPED: Stems =
    Stems { parts: &[(Part::QNorm, "self_attn.k_norm"), (Part::KNorm, "self_attn.q_norm")], ..Stems::LLAMA };

type Fault = (&'static str, &'static str, fn(&mut Blueprint));

/// A broken mechanism each.
const FAULTS: &[Fault] = &[
    ("mistral", "a window of one more", |b| windows(b, |window| window + 1)),
    ("mistral", "a window of one less", |b| windows(b, |window| window - 1)),
    ("mistral", "no window", |b| windows(b, |_| u32::MAX)),
    ("mistral", "other pairs", |b| b.ropes[0].pairing = Pairing::Interleaved),
    ("qwen3", "another epsilon", |b| b.norm_eps = 1e-4),
    ("qwen3", "gains of heads swapped", |b| b.layout.naming = Naming::HuggingFace(&SWAPPED)),
    ("smollm3", "rotation in all layers", |b| b.blocks[3].attention.rope = Some(0)),
    ("smollm3.gguf", "other pairs", |b| b.ropes[0].pairing = Pairing::HalfSplit),
    ("mobilellm", "layers once", |b| b.blocks = b.layers().cloned().collect()),
    ("mobilellm", "layers twice, but in turns", |b| b.blocks.swap(1, 2)),
    ("mobilellm_pro", "one local layer global", |b| b.blocks[2].attention.window = None),
    ("mobilellm_pro", "one global layer local", |b| b.blocks[4].attention.window = Some(7)),
    ("llama4", "no norm of heads", |b| b.blocks[0].attention.head_norm = None),
    ("llama4", "no temperature", |b| b.blocks[3].attention.tempered = false),
    ("llama4", "steps of the temperature", |b| {
        b.temperature = b.temperature.map(|t| Temperature { floor: t.floor + 1.0, ..t });
    }),
    ("llama4", "other pairs", |b| b.ropes[0].pairing = Pairing::HalfSplit),
    ("phi3", "short factors for long", |b| b.ropes[0].long = None),
    ("phi3", "turns that are not longer", |b| b.ropes[0].attention_factor = 1.0),
    ("phi3", "a window of one more", |b| windows(b, |window| window + 1)),
    ("gemma2", "gains as they are stored", |b| b.layout.gain_offset = 0.0),
    ("gemma2", "scores as they are", |b| b.blocks[0].attention.cap = None),
    ("gemma2", "logits as they are", |b| b.logit_cap = None),
    ("gemma2", "another cap", |b| b.logit_cap = b.logit_cap.map(|cap| cap + 0.1)),
    ("gemma2", "the usual scale", |b| b.blocks[1].attention.scale = 0.25),
    ("gemma2", "embeddings as they are", |b| b.embedding_scale = 1.0),
    ("gemma2", "another activation", |b| b.blocks[1].ffn = Ffn::SwiGlu),
    ("gemma3", "ropes swapped", |b| b.ropes.swap(0, 1)),
    ("gemma3", "the global layer local", |b| b.blocks[5].attention.window = Some(7)),
    ("gpt2", "no positions", |b| b.positions = false),
    ("gpt2", "another epsilon", |b| b.norm_eps = 1e-3),
];

#[test]
fn a_broken_mechanism_is_seen() {
    let mut unseen = Vec::new();
    for (name, what, plant) in FAULTS {
        let (checkpoint, mut blueprint) = read(name);
        let (reference, logits) = expected(name);
        let sound = logits_of(&checkpoint, &blueprint, &reference.tokens);
        assert!(distance(&sound, &logits).0 <= tolerance(name, true), "{name} without a fault");
        plant(&mut blueprint);
        let (apart, _) = distance(&logits_of(&checkpoint, &blueprint, &reference.tokens), &logits);
        if apart <= tolerance(name, true) {
            unseen.push(format!("{name}, {what}: off by {apart:e} alone"));
        }
    }
    assert!(unseen.is_empty(), "not seen:\n{}", unseen.join("\n"));
}

/// A mechanism that the settings leave out leaves tensors behind, which is refused.
#[test]
fn tensors_that_nothing_reads_are_refused() {
    let faults: &[Fault] = &[
        ("qwen3", "attn", |b| b.blocks.iter_mut().for_each(|block| block.attention.head_norm = None)),
        ("gemma3", "layernorm", |b| b.blocks.iter_mut().for_each(|block| block.post_norms = false)),
        ("gpt2", "ln_", |b| b.norm = Norm::RootMeanSquare),
        ("mobilellm", "model.layers.1", |b| b.blocks.truncate(2)),
    ];
    for (name, says, plant) in faults {
        let (checkpoint, mut blueprint) = read(name);
        plant(&mut blueprint);
        let error = Weights::gather(&checkpoint, &blueprint).expect_err(name).to_string();
        assert!(error.contains("has no place for the tensor") && error.contains(says), "{name}: {error}");
    }
}
