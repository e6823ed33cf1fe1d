//! The layout `qlr`: a tiny model with each linear in another codec (`tools/fixtures/qlr.py`), and copies with one thing
//! changed.

use std::fs;
use std::path::{Path, PathBuf};

use pocketlm::format::{Checkpoint, Tensor};
use pocketlm::model::{Blueprint, Weights};
use pocketlm::{Device, Engine, EngineOptions, Format, Kind, LoadOptions, Model};
use serde_json::{Value, json};

use crate::data::{self, Scratch};

/// Logits of a row of tokens by an independent pass in float64.
pub(crate) struct Reference {
    pub(crate) tokens: Vec<u32>,
    pub(crate) logits: Vec<Vec<f64>>,
}

impl Reference {
    pub(crate) fn read(path: &Path) -> Self {
        Self::of(&serde_json::from_slice(&fs::read(path).expect("the reference")).expect("JSON"))
    }

    pub(crate) fn of(value: &Value) -> Self {
        Self {
            tokens: serde_json::from_value(value["tokens"].clone()).expect("tokens"),
            logits: serde_json::from_value(value["logits"].clone()).expect("logits"),
        }
    }

    /// The largest error of a logit.
    pub(crate) fn off(&self, model: &Model) -> f64 {
        let mut off = 0.0f64;
        let look = |at: usize, logits: &[f32]| {
            let errors = logits.iter().zip(&self.logits[at]).map(|(got, due)| (f64::from(*got) - due).abs());
            off = errors.fold(off, f64::max);
            Ok(())
        };
        model.logits(&self.tokens, 0, look).expect("logits");
        off
    }

    /// What rounding may do where each of `steps` maps, one after the other, is off by `each` of its size.
    pub(crate) fn allowed(&self, each: f64, steps: usize) -> f64 {
        let largest = self.logits.iter().flatten().fold(0.0f64, |largest, logit| largest.max(logit.abs()));
        each * steps as f64 * largest
    }
}

/// f32: a sum of K terms is off by K units in the last place; 96 is the largest K.
pub(crate) const FLOAT: f64 = 96.0 * f32::EPSILON as f64;
/// Activations of 8 bits.
pub(crate) const EIGHT_BITS: f64 = 1.0 / 127.0;
/// Two layers of four maps in turn (Q, K and V; O; gate and up; down), and the head, each with a transform before and after and
/// a low-rank path of two maps.
const STEPS: usize = 9 * 5;

pub(crate) fn devices() -> &'static [Device] {
    if cfg!(feature = "wgpu") { &[Device::Cpu, Device::Gpu] } else { &[Device::Cpu] }
}

pub(crate) fn load(path: &Path, device: Device, exact: bool) -> pocketlm::Result<Model> {
    let engine = Engine::new(EngineOptions {
        device,
        exact,
        checked: true,
        limits: crate::data::limits(),
        ..EngineOptions::default()
    });
    engine.load(path, &LoadOptions { context: Some(64), ..LoadOptions::default() }, |_| Ok(()))
}

fn fixture() -> PathBuf {
    data::fixture("qlr")
}

fn reference() -> Reference {
    Reference::read(&fixture().join("logits.json"))
}

#[test]
fn every_codec_and_transform_computes_what_the_reference_does() {
    let reference = reference();
    for &device in devices() {
        let model = load(&fixture(), device, true).unwrap_or_else(|error| panic!("{error}"));
        let (off, allowed) = (reference.off(&model), reference.allowed(FLOAT, STEPS));
        assert!(off <= allowed, "{device:?}: off by {off:.2e}, allowed are {allowed:.2e}");
    }
    let model = load(&fixture(), Device::Cpu, false).unwrap_or_else(|error| panic!("{error}"));
    let (off, allowed) = (reference.off(&model), reference.allowed(EIGHT_BITS, STEPS));
    assert!(off <= allowed, "default: off by {off:.2e}, allowed are {allowed:.2e}");
}

#[test]
fn codes_stay_whole_numbers() {
    let checkpoint = Checkpoint::open(fixture()).expect("opens");
    let blueprint = Blueprint::read(&checkpoint).expect("an architecture");
    let weights = Weights::gather(&checkpoint, &blueprint).expect("weights");
    let [first, second] = &weights.blocks[..] else { panic!("two layers") };
    let formats = [&first.q, &first.k, &first.v, &first.o, &first.down, &second.k, &second.v];
    let due = [Format::E8P, Format::Q4_0, Format::Z2, Format::Z8, Format::Z4, Format::F16, Format::Q4_0];
    assert_eq!(formats.map(|linear| linear.base.format()), due);
    let side = &first.q.side[0];
    assert_eq!([side.down.format(), side.up.format()], [Format::E8P, Format::E8P]);
}

/// A tensor and what becomes of its bytes.
type Edit<'a> = (&'a str, fn(&Tensor, &mut [u8]));

/// A copy of the folder after `change` of its settings, and of the bytes of the tensors that `edit` names.
fn changed(change: impl Fn(&mut Value), edit: &[Edit<'_>]) -> Scratch {
    let copy = Scratch::new();
    let text = fs::read(fixture().join("config.json")).expect("config.json");
    let mut config: Value = serde_json::from_slice(&text).expect("JSON");
    change(&mut config["quantization_config"]);
    fs::write(copy.join("config.json"), config.to_string()).expect("a copy");
    let path = fixture().join("model.safetensors");
    let checkpoint = Checkpoint::open(&path).expect("opens");
    let mut bytes = fs::read(&path).expect("the weights");
    for (name, edit) in edit {
        let tensor = checkpoint.tensor(name).unwrap_or_else(|error| panic!("{error}"));
        edit(tensor, &mut bytes[tensor.offset as usize..][..tensor.bytes.len()]);
    }
    fs::write(copy.join("model.safetensors"), bytes).expect("a copy");
    copy
}

fn nothing(_: &mut Value) {}

/// Rows become columns, but for the shape.
fn transpose(tensor: &Tensor, bytes: &mut [u8]) {
    let (rows, cols) = (tensor.dims[0] as usize, tensor.dims[1] as usize);
    let halves: Vec<[u8; 2]> = bytes.as_chunks::<2>().0.to_vec();
    for (at, to) in bytes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *to = halves[at % rows * cols + at / rows];
    }
}

#[test]
fn the_comparison_sees_each_fault() {
    let gate = "model.layers.0.mlp.gate_proj";
    let faults = [
        ("no Hadamard before", changed(|all| all["default"]["pre"] = json!(["mul:su"]), &[])),
        ("no Hadamard after", changed(|all| all["default"]["post"] = json!(["mul:sv"]), &[])),
        ("another order of the two", changed(|all| all["default"]["pre"] = json!(["had", "mul:su"]), &[])),
        ("another size of blocks", changed(|all| all["default"]["pre"] = json!(["mul:su", "had:32"]), &[])),
        ("transposed scales", changed(nothing, &[("lm_head.base.scales", transpose)])),
        ("another scale of the low-rank path", changed(|all| all["default"]["lr"]["scale"] = json!(0), &[])),
        ("one sign", changed(nothing, &[(&format!("{gate}.pre.su"), |_, bytes| bytes[1] ^= 128)])),
        ("one pattern", changed(nothing, &[(&format!("{gate}.base.table"), |_, bytes| bytes[8] ^= 6)])),
        (
            "a low-rank path of zeros",
            changed(nothing, &[("model.layers.1.mlp.down_proj.lr.r.scales", |_, bytes| bytes.fill(0))]),
        ),
        (
            "a zero point",
            changed(nothing, &[("model.layers.0.self_attn.o_proj.base.zeros", |_, b| b[0] ^= 1)]),
        ),
    ];
    let reference = reference();
    let allowed = reference.allowed(FLOAT, STEPS);
    for (fault, copy) in faults {
        let model = load(&copy, Device::Cpu, true).unwrap_or_else(|error| panic!("{fault}: {error}"));
        let off = reference.off(&model);
        assert!(off > allowed, "{fault}: off by {off:.2e}, allowed are {allowed:.2e}");
    }
}

#[test]
fn what_contradicts_is_refused_by_name() {
    use Kind::{BadFile, Unsupported};
    let q = "model.layers.0.self_attn.q_proj";
    let set = |path: &'static str, value: Value| {
        move |all: &mut Value| *all.pointer_mut(path).expect("a setting") = value.clone()
    };
    let module = |own: Value| move |all: &mut Value| all["modules"] = own.clone();
    let cases: [(Scratch, Kind, &str); 14] = [
        (changed(set("/version", json!(2)), &[]), Unsupported, "version 2"),
        (changed(set("/default/base/codec", json!("int5")), &[]), Unsupported, "\"int5\""),
        (changed(set("/default/base/codec", json!("e8p")), &[]), Unsupported, "\"e8p\""),
        (changed(set("/default/pre", json!(["fft"])), &[]), Unsupported, "\"fft\""),
        (changed(set("/default/pre", json!(["had:48"])), &[]), BadFile, "blocks of 48"),
        (changed(set("/default/pre", json!(["had:18"])), &[]), Unsupported, "18 elements"),
        (changed(set("/default/pre", json!(["mul:sx"])), &[]), BadFile, "q_proj.pre.sx"),
        (changed(set("/default/lr/rank", json!(64)), &[]), BadFile, "q_proj.lr.r.codes"),
        (changed(set("/default/lr/rank", json!(0)), &[]), BadFile, "rank"),
        (changed(set("/default/lr", Value::Null), &[]), Unsupported, "no place for the tensor"),
        (changed(module(json!({"(": {}})), &[]), BadFile, "pattern"),
        (changed(module(json!({"(a{1000}){1000}": {}})), &[]), BadFile, "pattern"),
        (
            changed(nothing, &[(&format!("{q}.base.scales"), |_, bytes| bytes.fill(0))]),
            BadFile,
            "q_proj.base.scales",
        ),
        (changed(nothing, &[(&format!("{q}.base.table"), |_, bytes| bytes[0] = 0)]), BadFile, "nibble 0"),
    ];
    for (copy, kind, says) in cases {
        let error = load(&copy, Device::Cpu, true).expect_err(says);
        assert!(error.kind() == kind && error.to_string().contains(says), "{says}: {error}");
    }
}
