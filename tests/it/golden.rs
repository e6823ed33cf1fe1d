//! The real model against the float64 oracle, and the small one against itself.
//!
//! `oracle.json` holds, for each prompt, the log-probabilities of the five likeliest tokens after every token of the
//! prompt and of the greedy answer. The distance of two distributions is the Kullback–Leibler divergence over these
//! five and the rest taken together.

#![allow(clippy::print_stdout, reason = "the figures are worth reading")]

use std::fmt;
use std::path::PathBuf;

use pocketlm::{Device, Engine, EngineOptions, Finish, GenerateOptions, KvType, LoadOptions, Model, Prompt};
use serde::Deserialize;

#[cfg(feature = "wgpu")]
use crate::data::Scratch;
use crate::data::{limits, real_model, shared};
#[cfg(feature = "wgpu")]
use pocketlm::Format;
#[cfg(feature = "wgpu")]
use pocketlm::backend::wgpu::{Options, Picks};

#[derive(Deserialize)]
struct Oracle {
    name: String,
    prompt: String,
    prompt_ids: Vec<u32>,
    greedy_ids: Vec<u32>,
    prompt_top5: Vec<Vec<(u32, f64)>>,
    greedy_top5: Vec<Vec<(u32, f64)>>,
    top1_minus_top2: Vec<f64>,
}

/// What a path through the engine must keep to.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    mean_kl: f64,
    /// The largest gap of the oracle's two likeliest tokens at which another token may be taken.
    pub(crate) gap: f64,
    /// The largest error of a log-probability.
    off: f64,
}

pub(crate) const DEFAULT: Limits = Limits { mean_kl: 2e-3, gap: 0.25, off: f64::INFINITY };
#[cfg(feature = "wgpu")]
pub(crate) const FLOAT: Limits = Limits { mean_kl: 1e-4, gap: 0.1, off: f64::INFINITY };
const EXACT: Limits = Limits { mean_kl: 1e-6, gap: 0.0, off: 1e-3 };

/// How far a path is from the oracle on one prompt.
#[derive(Debug)]
struct Distance {
    mean_kl: f64,
    worst_kl: f64,
    off: f64,
    /// The first greedy token that differs, and the oracle's gap there.
    split: Option<(usize, f64)>,
    /// The largest gap at which the likeliest token, given the oracle's past, is another.
    gap: f64,
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mean_kl, worst_kl, off, split, gap } = self;
        write!(f, "mean KL {mean_kl:.2e}, worst {worst_kl:.2e}, log-probability off by {off:.2e}, ")?;
        write!(f, "first split {split:?}, largest gap overturned {gap:.3}")
    }
}

impl Distance {
    fn keeps(&self, limits: Limits) -> bool {
        self.mean_kl < limits.mean_kl
            && self.off <= limits.off
            && self.gap <= limits.gap
            && self.split.is_none_or(|(_, gap)| gap <= limits.gap)
    }
}

fn oracle() -> Vec<Oracle> {
    let bytes = std::fs::read(shared("smollm2/oracle.json")).expect("the oracle can be read");
    serde_json::from_slice(&bytes).expect("the oracle is as its README says")
}

/// Log-probabilities of `logits`.
pub(crate) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |largest, &logit| largest.max(f64::from(logit)));
    let total: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
    logits.iter().map(|&logit| f64::from(logit) - largest - total.ln()).collect()
}

/// Kullback–Leibler divergence over the oracle's five tokens and the rest.
pub(crate) fn divergence(top: &[(u32, f64)], ours: &[f64]) -> f64 {
    let seen = |log: &dyn Fn(&(u32, f64)) -> f64| top.iter().map(|entry| log(entry).exp()).sum::<f64>();
    let known: f64 = top.iter().map(|&(token, log)| log.exp() * (log - ours[token as usize])).sum();
    let rest = (1.0 - seen(&|&(_, log)| log)).max(1e-12);
    let our_rest = (1.0 - seen(&|&(token, _)| ours[token as usize])).max(1e-12);
    known + rest * (rest / our_rest).ln()
}

fn distance(model: &Model, oracle: &Oracle) -> Distance {
    let greedy =
        GenerateOptions { max_tokens: Some(oracle.greedy_ids.len() as u32), ..GenerateOptions::default() };
    let prompt = Prompt::Raw(oracle.prompt.clone());
    assert_eq!(model.tokens(&prompt).expect("the prompt is sound"), oracle.prompt_ids, "{}", oracle.name);
    let stream = model.session().generate(&prompt, &greedy).expect("an answer begins");
    let Finish { tokens, .. } = stream.finish().expect("an answer ends");
    let split = tokens.iter().zip(&oracle.greedy_ids).position(|(ours, oracle)| ours != oracle);
    let split = split.map(|at| (at, oracle.top1_minus_top2[at]));

    let steps: Vec<&Vec<(u32, f64)>> = oracle.prompt_top5.iter().chain(&oracle.greedy_top5[1..]).collect();
    let mut past = oracle.prompt_ids.clone();
    past.extend(&oracle.greedy_ids[..oracle.greedy_ids.len() - 1]);
    assert_eq!(past.len(), steps.len(), "{}: a distribution for each token", oracle.name);
    let (mut divergences, mut off, mut gap) = (Vec::new(), 0.0f64, 0.0f64);
    let look = |at: usize, logits: &[f32]| {
        let ours = log_softmax(logits);
        let top = steps[at];
        divergences.push(divergence(top, &ours));
        off = top.iter().map(|&(token, log)| (ours[token as usize] - log).abs()).fold(off, f64::max);
        let best = (0..ours.len()).max_by(|&a, &b| ours[a].total_cmp(&ours[b])).expect("a vocabulary");
        if best as u32 != top[0].0 {
            gap = gap.max(top[0].1 - top[1].1);
        }
        Ok(())
    };
    model.logits(&past, 0, look).expect("logits of the oracle's tokens");
    let mean_kl = divergences.iter().sum::<f64>() / divergences.len() as f64;
    Distance { mean_kl, worst_kl: divergences.iter().copied().fold(0.0, f64::max), off, split, gap }
}

fn load(device: Device, exact: bool, tuning: Option<PathBuf>) -> Model {
    let engine =
        Engine::new(EngineOptions { device, exact, tuning, limits: limits(), ..EngineOptions::default() });
    load_by(&engine, &LoadOptions::default())
}

fn load_by(engine: &Engine, options: &LoadOptions) -> Model {
    let options = LoadOptions { context: Some(512), outputs: 16, prefill: 64, ..options.clone() };
    engine.load(real_model(), &options, |_| Ok(())).expect("the real model loads")
}

fn keeps_to_the_oracle(device: Device, exact: bool, limits: Limits) {
    let path = format!("{device:?}, exact {exact}");
    model_keeps_to_the_oracle(&load(device, exact, None), &path, &oracle(), limits);
}

#[expect(clippy::print_stderr, reason = "the distances are measured here")]
fn model_keeps_to_the_oracle(model: &Model, path: &str, oracle: &[Oracle], limits: Limits) {
    let distances: Vec<(String, Distance)> =
        oracle.iter().map(|oracle| (oracle.name.clone(), distance(model, oracle))).collect();
    let report: Vec<String> =
        distances.iter().map(|(name, distance)| format!("{name}: {distance}")).collect();
    let mean_kl =
        distances.iter().map(|(_, distance)| distance.mean_kl).sum::<f64>() / distances.len() as f64;
    eprintln!("{path}: mean KL {mean_kl:.2e}\n  {}", report.join("\n  "));
    assert!(
        distances.iter().all(|(_, distance)| distance.keeps(limits)),
        "too far from the oracle:\n{}",
        report.join("\n")
    );
}

#[cfg(feature = "wgpu")]
#[test]
fn the_gpu_keeps_to_the_oracle() {
    keeps_to_the_oracle(Device::Gpu, false, FLOAT);
}

#[cfg(feature = "wgpu")]
#[test]
fn the_exact_gpu_keeps_to_the_oracle() {
    keeps_to_the_oracle(Device::Gpu, true, EXACT);
}

/// A folder in which these variants are the fastest on the device, for each format that has them.
#[cfg(feature = "wgpu")]
fn picked(variants: [(&str, &str); 3]) -> Option<Scratch> {
    let gpu = crate::gpu::open(Options::default())?;
    let pick = |format: &Format| {
        variants.map(|(kernel, variant)| {
            (format!("{kernel} {format}"), serde_json::json!({ "variant": variant, "micros": {} }))
        })
    };
    let picks: serde_json::Map<_, _> = Format::ALL.iter().flat_map(pick).collect();
    let folder = Scratch::new();
    serde_json::from_value::<Picks>(picks.into()).unwrap().write(&folder, gpu.info()).unwrap();
    Some(folder)
}

/// A GPU may find them the fastest: then the answers are theirs. Software takes its time, so only the shortest prompt.
#[cfg(feature = "wgpu")]
#[test]
fn variants_that_round_keep_to_the_oracle() {
    for [few, many] in [["team_i8", "tile_i8"], ["team_f16", "tile_f16"]] {
        let Some(folder) = picked([("matvec", few), ("matvec_swiglu", few), ("matmul", many)]) else {
            return;
        };
        let model = load(Device::Gpu, false, Some(folder.to_path_buf()));
        model_keeps_to_the_oracle(&model, many, &oracle()[..1], FLOAT);
    }
}

#[test]
fn the_cpu_keeps_to_the_oracle() {
    keeps_to_the_oracle(Device::Cpu, false, DEFAULT);
}

#[test]
fn the_exact_cpu_keeps_to_the_oracle() {
    keeps_to_the_oracle(Device::Cpu, true, EXACT);
}

/// The model with keys and values in blocks.
fn in_blocks(device: Device, kv_type: KvType, kv_turned: Option<bool>) -> Model {
    let engine = Engine::new(EngineOptions { device, limits: limits(), ..EngineOptions::default() });
    load_by(&engine, &LoadOptions { kv_type: Some(kv_type), kv_turned, ..LoadOptions::default() })
}

#[test]
fn keys_and_values_in_8_bits_keep_to_the_oracle() {
    let model = in_blocks(Device::Cpu, KvType::Q8, None);
    model_keeps_to_the_oracle(&model, "keys and values in 8 bits", &oracle(), DEFAULT);
}

/// The divergence of two distributions grows with the square of what is small between them. Steps of 4 bits are 127 / 8 times
/// those of 8; twice that square leaves room for what is no longer small. Without the transform it is far more.
#[test]
fn four_bits_are_as_far_as_their_steps_are_large() {
    let mean_kl = |kv_type, kv_turned| {
        let model = in_blocks(Device::Cpu, kv_type, kv_turned);
        let distances = oracle().iter().map(|oracle| distance(&model, oracle).mean_kl).collect::<Vec<_>>();
        distances.iter().sum::<f64>() / distances.len() as f64
    };
    let eight = mean_kl(KvType::Q8, None);
    let [four, plain] = [None, Some(false)].map(|turned| mean_kl(KvType::Q4, turned));
    println!("mean KL of 8 bits {eight:.2e}, of 4 bits {four:.2e}, not turned {plain:.2e}");
    let due = 2.0 * (127.0f64 / 8.0).powi(2) * eight;
    assert!(four <= due, "{four:.2e} in 4 bits, {eight:.2e} in 8");
    assert!(plain > 2.0 * four, "{plain:.2e} without the transform, {four:.2e} with it");
}
