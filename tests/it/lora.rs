//! LoRA adapters: those that PEFT and the package `gguf` wrote (`tools/fixtures/lora.py`) beside a tiny base, against
//! merged weights in float64.

use std::fs;
use std::path::{Path, PathBuf};

use pocketlm::base::Seed;
use pocketlm::format::{Checkpoint, Dtype, Tensor};
use pocketlm::{
    Adapter, Device, Engine, EngineOptions, Event, Format, GenerateOptions, Kind, LoadOptions, Model, Prompt,
    Result,
};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::data::{self, Scratch};
use crate::qlr::{FLOAT, Reference, devices};

/// Two layers of four maps in turn and the head, each with an adapter of two maps beside it.
const STEPS: usize = 9 * 3;

fn fixture(name: &str) -> PathBuf {
    data::fixture("lora").join(name)
}

fn load(base: &Path, adapters: &[(PathBuf, f32)], device: Device) -> Result<Model> {
    let engine = Engine::new(EngineOptions {
        device,
        exact: true,
        checked: true,
        limits: crate::data::limits(),
        ..EngineOptions::default()
    });
    let adapters = adapters.iter().map(|(path, weight)| Adapter { path: path.clone(), weight: *weight });
    let options = LoadOptions { context: Some(64), adapters: adapters.collect(), ..LoadOptions::default() };
    engine.load(base, &options, |_| Ok(()))
}

/// The logits for each mix of the weights of `first` and `second`.
fn references() -> Vec<([f32; 2], Reference)> {
    let text = fs::read(fixture("logits.json")).expect("the reference");
    let values: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    let weights = |value: &Value| serde_json::from_value(value["weights"].clone()).expect("two weights");
    values.iter().map(|value| (weights(value), Reference::of(value))).collect()
}

fn check(model: &Model, reference: &Reference, what: &str) {
    let (off, allowed) = (reference.off(model), reference.allowed(FLOAT, STEPS));
    assert!(off <= allowed, "{what}: off by {off:.2e}, allowed are {allowed:.2e}");
}

fn logits(model: &Model, tokens: &[u32]) -> Vec<u32> {
    let mut all = Vec::new();
    let look = |_, logits: &[f32]| {
        all.extend(logits.iter().map(|logit| logit.to_bits()));
        Ok(())
    };
    model.logits(tokens, 0, look).expect("logits");
    all
}

#[test]
fn adapters_compute_what_merged_weights_do_and_return() {
    let references = references();
    for &device in devices() {
        let adapters = [(fixture("first"), 1.0), (fixture("second"), 0.0)];
        let model = load(&fixture("base"), &adapters, device).unwrap_or_else(|error| panic!("{error}"));
        check(&model, &references[1].1, "as loaded");
        let tokens = &references[0].1.tokens;
        let before = logits(&model, tokens);
        for (weights, reference) in &references {
            model.weigh_adapters(weights).expect("weights");
            check(&model, reference, &format!("{device:?}, weights {weights:?}"));
        }
        assert_ne!(logits(&model, tokens), before);
        model.weigh_adapters(&[1.0, 0.0]).expect("weights");
        assert_eq!(logits(&model, tokens), before, "{device:?}: there and back");
    }
}

#[test]
fn every_pair_of_dialects_is_the_same_model() {
    let (_, reference) = &references()[1];
    for base in ["base", "base.gguf"] {
        for adapter in ["first", "first/adapter_model.safetensors", "first.gguf"] {
            let what = format!("{base} with {adapter}");
            let model = load(&fixture(base), &[(fixture(adapter), 1.0)], Device::Cpu)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&model, reference, &what);
        }
    }
}

/// Writes tensors of f32, and those of `kept` as they are.
fn write(path: &Path, kept: &[&Tensor], new: &[(String, [usize; 2], Vec<f32>)]) {
    let new: Vec<_> =
        new.iter().map(|(name, dims, values)| (name, dims, Format::F32.encode(values))).collect();
    let dims: Vec<Vec<usize>> =
        kept.iter().map(|tensor| tensor.dims.iter().map(|&dim| dim as usize).collect()).collect();
    let dtype = |tensor: &Tensor| match tensor.dtype {
        Dtype::Format(Format::F32) => safetensors::Dtype::F32,
        Dtype::Format(Format::F16) => safetensors::Dtype::F16,
        Dtype::Format(Format::BF16) => safetensors::Dtype::BF16,
        other => panic!("{}: {other:?}", tensor.name),
    };
    let view = |dtype, dims: &[usize], bytes| TensorView::new(dtype, dims.to_vec(), bytes).expect("a tensor");
    let kept = kept.iter().zip(&dims).map(|(t, dims)| (t.name.clone(), view(dtype(t), dims, &t.bytes[..])));
    let new = new
        .iter()
        .map(|(name, dims, bytes)| ((*name).clone(), view(safetensors::Dtype::F32, &dims[..], &bytes[..])));
    safetensors::serialize_to_file(kept.chain(new), None, path).expect("a file");
}

/// Of matrices that hold several linears, each takes its rows of B.
#[test]
fn adapters_of_joined_matrices_compute_what_merged_weights_do() {
    const RANK: usize = 2;
    let base = data::fixture("archs/phi3");
    let checkpoint = Checkpoint::open(&base).expect("opens");
    let stems = ["model.layers.0.self_attn.qkv_proj", "model.layers.1.mlp.gate_up_proj"];
    let mut seed = Seed::new(61);
    let (mut pairs, mut merged) = (Vec::new(), Vec::new());
    for stem in stems {
        let tensor = checkpoint.tensor(&format!("{stem}.weight")).expect("a matrix");
        let [rows, cols] = [tensor.dims[0] as usize, tensor.dims[1] as usize];
        let (a, b) = (seed.vector(RANK * cols, 0.3), seed.vector(rows * RANK, 0.3));
        let mut values = vec![0.0; rows * cols];
        tensor.format().expect("floats").decode(&tensor.bytes, &mut values);
        for (at, value) in values.iter_mut().enumerate() {
            let (row, col) = (at / cols, at % cols);
            let sum: f64 =
                (0..RANK).map(|r| f64::from(b[row * RANK + r]) * f64::from(a[r * cols + col])).sum();
            // α/r is 3.
            *value = (f64::from(*value) + 3.0 * sum) as f32;
        }
        merged.push((tensor.name.clone(), [rows, cols], values));
        pairs.push((format!("base_model.model.{stem}.lora_A.weight"), [RANK, cols], a));
        pairs.push((format!("base_model.model.{stem}.lora_B.weight"), [rows, RANK], b));
    }
    let (adapter, whole) = (Scratch::new(), Scratch::new());
    write(&adapter.join("adapter_model.safetensors"), &[], &pairs);
    fs::write(adapter.join("adapter_config.json"), r#"{"r": 2, "lora_alpha": 6}"#).expect("the settings");
    let is_kept = |tensor: &&Tensor| merged.iter().all(|(name, ..)| *name != tensor.name);
    let kept: Vec<&Tensor> = checkpoint.tensors.values().filter(is_kept).collect();
    write(&whole.join("model.safetensors"), &kept, &merged);
    fs::copy(base.join("config.json"), whole.join("config.json")).expect("a copy");

    let tokens: Vec<u32> = (1..20).collect();
    let of = |model: &Model| -> Vec<Vec<f64>> {
        let mut all = Vec::new();
        let look = |_, logits: &[f32]| {
            all.push(logits.iter().map(|&logit| f64::from(logit)).collect());
            Ok(())
        };
        model.logits(&tokens, 0, look).expect("logits");
        all
    };
    let whole = load(&whole, &[], Device::Cpu).unwrap_or_else(|error| panic!("{error}"));
    let reference = Reference { logits: of(&whole), tokens: tokens.clone() };
    let plain = load(&base, &[], Device::Cpu).unwrap_or_else(|error| panic!("{error}"));
    assert!(reference.off(&plain) > reference.allowed(FLOAT, STEPS), "the adapter changes nothing");
    let beside = load(&base, &[(adapter.to_path_buf(), 1.0)], Device::Cpu);
    check(&beside.unwrap_or_else(|error| panic!("{error}")), &reference, "phi3");
}

#[test]
fn the_comparison_sees_another_weight() {
    let references = references();
    let model = load(&fixture("base"), &[(fixture("first"), 1.01)], Device::Cpu).expect("loads");
    let (_, reference) = &references[1];
    assert!(reference.off(&model) > reference.allowed(FLOAT, STEPS));
}

#[test]
fn a_session_is_computed_again_under_other_weights() {
    let model = load(&fixture("base"), &[(fixture("first"), 1.0)], Device::Cpu).expect("loads");
    let prompt = Prompt::Tokens(vec![1, 17, 90, 4]);
    let options = GenerateOptions { max_tokens: Some(24), ignore_end: true, ..GenerateOptions::default() };
    let answer = |session: &mut pocketlm::Session| {
        session.generate(&prompt, &options).and_then(pocketlm::Stream::finish).expect("an answer")
    };
    let mut kept = model.session();
    let first = answer(&mut kept);
    model.weigh_adapters(&[0.0]).expect("weights");
    let without = answer(&mut kept);
    assert_eq!(without.timings.cached_tokens, 0);
    assert_eq!(without.tokens, answer(&mut model.session()).tokens);
    assert_ne!(without.tokens, first.tokens);
    // In the middle of an answer, what was said stays and what follows is of the new weights.
    let mut session = model.session();
    let mut stream = session.generate(&prompt, &options).expect("an answer");
    while !matches!(stream.next(), Some(Ok(Event::Prefill { done: 4, .. }))) {}
    model.weigh_adapters(&[1.0]).expect("weights");
    let changed = stream.finish().expect("an answer");
    let said = [&prompt_tokens(), &changed.tokens[..]].concat();
    let next = |at: usize| {
        let mut best = 0;
        let look = |_, logits: &[f32]| {
            best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
            Ok(())
        };
        model.logits(&said[..at], at - 1, look).expect("logits");
        best as u32
    };
    for (at, &token) in said.iter().enumerate().skip(6) {
        assert_eq!(token, next(at), "token {at}");
    }
}

fn prompt_tokens() -> Vec<u32> {
    vec![1, 17, 90, 4]
}

/// A copy of the adapter `first` with one key of its settings set.
fn changed(key: &str, value: Value) -> Scratch {
    let copy = Scratch::new();
    fs::copy(fixture("first/adapter_model.safetensors"), copy.join("adapter_model.safetensors"))
        .expect("a copy");
    let text = fs::read(fixture("first/adapter_config.json")).expect("the settings");
    let mut config: Value = serde_json::from_slice(&text).expect("JSON");
    config[key] = value;
    fs::write(copy.join("adapter_config.json"), config.to_string()).expect("a copy");
    copy
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    use Kind::{BadFile, NotFound, Unsupported};
    let cases = [
        ("use_dora", json!(true), Unsupported, "use_dora"),
        ("bias", json!("all"), Unsupported, "bias"),
        ("modules_to_save", json!(["lm_head"]), Unsupported, "modules_to_save"),
        ("init_lora_weights", json!("pissa_niter_4"), Unsupported, "pissa_niter_4"),
        ("peft_type", json!("IA3"), Unsupported, "\"IA3\""),
        ("r", json!(8), BadFile, "the rank is 4, where the settings say 8"),
        ("r", Value::Null, BadFile, "r)"),
        ("lora_alpha", json!("6"), BadFile, "lora_alpha"),
        ("rank_pattern", json!({"q_proj": 2}), BadFile, "q_proj.lora_A.weight"),
        ("alpha_pattern", json!({"(": 2}), BadFile, "pattern"),
    ];
    let refuse = |base: &Path, adapter: &Path, kind, says: &str| {
        let error = load(base, &[(adapter.to_owned(), 1.0)], Device::Cpu).expect_err(says);
        assert!(error.kind() == kind && error.to_string().contains(says), "{says}: {error}");
    };
    for (key, value, kind, says) in cases {
        refuse(&fixture("base"), &changed(key, value), kind, says);
    }
    let bare = Scratch::new();
    fs::copy(fixture("first/adapter_model.safetensors"), bare.join("adapter_model.safetensors"))
        .expect("a copy");
    refuse(&fixture("base"), &bare, NotFound, "adapter_config.json");
    refuse(&fixture("base"), &fixture("base.gguf"), BadFile, "\"model\" is no adapter");
    // Another base: other shapes.
    let other = data::fixture("stories260k/stories260K-f32.gguf");
    refuse(&other, &fixture("second"), BadFile, "lora_B.weight");
    refuse(&other, &fixture("first.gguf"), BadFile, "ffn_down.weight.lora_a");
    let model = load(&fixture("base"), &[(fixture("first"), 1.0)], Device::Cpu).expect("loads");
    for weights in [&[][..], &[1.0, 1.0], &[f32::NAN]] {
        let error = model.weigh_adapters(weights).expect_err("weights");
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    }
}

#[test]
fn without_adapters_the_plan_is_as_ever() {
    let steps = |model: &Model| model.inspect(|lowered| lowered.caches[0].decode.plan.steps.len());
    let plain = load(&fixture("base"), &[], Device::Cpu).expect("loads");
    let adapted = load(&fixture("base"), &[(fixture("first"), 1.0)], Device::Cpu).expect("loads");
    // Down, scale and up for each of five linears in two layers.
    assert_eq!(steps(&adapted) - steps(&plain), 3 * 5 * 2);
    assert!(plain.inspect(|lowered| lowered.ports.dials.is_empty()));
}
