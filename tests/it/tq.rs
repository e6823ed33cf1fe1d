//! TQCompressor's Kronecker products: tiny GPT-2s as it writes them (`tools/fixtures/tq.py`) against transformers with dense
//! matrices in float64, and copies with one thing changed.

use std::path::PathBuf;

use pocketlm::model::{Factors, Weights};
use pocketlm::{Device, Engine, EngineOptions, Kind, LoadOptions, Model};
use serde_json::json;

use crate::data;
use crate::forms::Change::{self, Bytes, First, Header, Renamed};
use crate::forms::changed_folder;
use crate::qlr::{FLOAT, Reference, devices};

/// Each folder, and whose logits it has.
const CASES: [(&str, &str); 3] = [("torch", "release"), ("safetensors", "release"), ("all", "all")];
/// Two layers of four maps in turn, each of Kronecker products and so of two; the embedding; and the head.
const STEPS: usize = 2 * 4 * 2 + 2;
/// Keys and values are rounded to f16 in each layer.
const HALVES: f64 = 4.0 / 2048.0;

fn fixture(name: &str) -> PathBuf {
    data::fixture("tq").join(name)
}

fn reference(name: &str) -> Reference {
    Reference::read(&fixture(&format!("{name}.json")))
}

/// `prefill` is how many rows are computed at once: 1 has only the plan of decoding.
fn load(path: &std::path::Path, device: Device, exact: bool, prefill: u32) -> pocketlm::Result<Model> {
    let engine = Engine::new(EngineOptions {
        device,
        exact,
        checked: true,
        limits: crate::data::limits(),
        ..EngineOptions::default()
    });
    let options = LoadOptions { context: Some(32), outputs: 16, prefill, ..LoadOptions::default() };
    engine.load(path, &options, |_| Ok(()))
}

fn off(path: &std::path::Path, of: &Reference) -> f64 {
    of.off(&load(path, Device::Cpu, true, 16).unwrap_or_else(|error| panic!("{error}")))
}

#[test]
fn products_and_embeddings_are_those_of_dense_matrices() {
    for (folder, name) in CASES {
        let reference = reference(name);
        for (&device, prefill) in devices().iter().flat_map(|device| [(device, 16), (device, 1)]) {
            let model =
                load(&fixture(folder), device, true, prefill).unwrap_or_else(|error| panic!("{error}"));
            let (off, allowed) = (reference.off(&model), reference.allowed(FLOAT, STEPS));
            assert!(
                off <= allowed,
                "{folder}, {device:?}, {prefill} rows: off by {off:.2e} of {allowed:.2e}"
            );
        }
        let model = load(&fixture(folder), Device::Cpu, false, 16).unwrap_or_else(|error| panic!("{error}"));
        let allowed = reference.allowed(FLOAT, STEPS) + reference.allowed(HALVES, 2);
        let off = reference.off(&model);
        assert!(off <= allowed, "{folder} as usual: off by {off:.2e} of {allowed:.2e}");
    }
}

#[test]
fn weights_stay_compressed() {
    for folder in ["torch", "safetensors"] {
        let (_, Weights { embedding, blocks, .. }) = crate::formats::load(&fixture(folder)).expect("loads");
        assert_eq!((embedding.rows(), embedding.cols()), (64, 6));
        let [dense, products] = &blocks[..] else { panic!("two blocks") };
        assert_eq!((dense.up.base.rows(), dense.up.base.cols(), &dense.up.factors), (96, 24, &None));
        let shapes = [&products.up, &products.down].map(|linear| {
            let Some(Factors { terms, rows, cols, .. }) = linear.factors else { panic!("no factors") };
            [linear.base.rows(), linear.base.cols(), terms as usize, rows as usize, cols as usize]
        });
        assert_eq!(shapes, [[3 * 32, 12, 3, 3, 2], [3 * 12, 24, 3, 2, 4]]);
        // The embedding, the attention of both blocks, the feed-forward network of the first and of the second, the head.
        let weights = 64 * 6 + 2 * 4 * 24 * 24 + 2 * 4 * 24 * 24 + 3 * (32 * 12 + 12 * 24) + 64 * 24;
        let model = load(&fixture(folder), Device::Cpu, true, 16).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(model.info().weight_bytes, 4 * weights);
    }
}

#[cfg(feature = "cli")]
#[test]
fn the_form_is_inspected() {
    let cache = data::Scratch::new();
    for (folder, _) in CASES {
        let path = fixture(folder);
        let words = ["inspect", path.to_str().expect("UTF-8"), "--tensors", "--plan"];
        let end = crate::program::offline(crate::program::pocketlm(&cache, &words));
        let said = end.fine();
        let due = ["form          tqcompressor", "mlp.c_fc.p_inv", "blk.1.ffn_gate_up.kronecker"];
        assert!(folder == "all" || due.iter().all(|due| said.contains(due)), "{folder}: {said}");
    }
}

/// Whole numbers of 32 bits after `edit`.
fn edited(bytes: &mut [u8], edit: impl Fn(&[i32]) -> Vec<i32>) {
    let words: Vec<i32> = bytes.as_chunks::<4>().0.iter().map(|word| i32::from_le_bytes(*word)).collect();
    let edited = edit(&words).into_iter().flat_map(i32::to_le_bytes).collect::<Vec<_>>();
    bytes.copy_from_slice(&edited);
}

/// The inverse permutation.
fn inverted(bytes: &mut [u8]) {
    edited(bytes, |order| {
        let mut places: Vec<i32> = (0..).take(order.len()).collect();
        places.sort_by_key(|&at| order[at as usize]);
        places
    });
}

fn identical(bytes: &mut [u8]) {
    edited(bytes, |order| (0..).take(order.len()).collect());
}

/// `N` by the rest, transposed.
fn transposed<const N: usize>(bytes: &mut [u8]) {
    edited(bytes, |words| {
        let cols = words.len() / N;
        (0..words.len()).map(|at| words[at % N * cols + at / N]).collect()
    });
}

/// Places in a product of N and the rest, where its factors have changed places.
fn other_factor_first<const N: i32>(bytes: &mut [u8]) {
    edited(bytes, |order| {
        let rest = order.len() as i32 / N;
        order.iter().map(|at| at % N * rest + at / N).collect()
    });
}

#[test]
fn the_comparison_sees_each_fault() {
    let swapped = [
        Renamed("wte.embedding.B", "wte.embedding.C"),
        Renamed("wte.B", "wte.embedding.B"),
        Renamed("wte.embedding.C", "wte.B"),
    ];
    let faults: [(&str, &[Change]); 12] = [
        ("the inverse of the permutation of the input", &[Bytes("mlp.c_fc.p_inv", inverted)]),
        ("that of the output", &[Bytes("mlp.c_fc.q", inverted)]),
        ("no permutation of the input", &[Bytes("mlp.c_proj.p_inv", identical)]),
        ("none of the output", &[Bytes("mlp.c_proj.q", identical)]),
        // One matrix of 2 by 3 for each of three terms.
        (
            "B transposed",
            &[Bytes("mlp.c_fc.B", |bytes| bytes.chunks_exact_mut(24).for_each(transposed::<2>))],
        ),
        (
            "A transposed",
            &[Bytes("mlp.c_fc.A", |bytes| bytes.chunks_exact_mut(1536).for_each(transposed::<32>))],
        ),
        ("terms in another order", &[Bytes("mlp.c_fc.B", |bytes| bytes.rotate_left(24))]),
        ("the input split the other way", &[Bytes("mlp.c_fc.p_inv", transposed::<12>)]),
        ("the output split the other way", &[Bytes("mlp.c_fc.q", other_factor_first::<3>)]),
        ("the inverse of the permutation of an embedding", &[Bytes("wte.p", inverted)]),
        (
            "the factors of the embedding split the other way",
            &[Bytes("wte.embedding.p", other_factor_first::<2>)],
        ),
        ("the factors of the embedding swapped", &swapped),
    ];
    let reference = reference("release");
    let allowed = reference.allowed(FLOAT, STEPS);
    let same = changed_folder(&fixture("safetensors"), &[]);
    assert!(off(&same, &reference) <= allowed);
    for (fault, changes) in faults {
        let copy = changed_folder(&fixture("safetensors"), &changes.iter().collect::<Vec<_>>());
        let off = off(&copy, &reference);
        assert!(off > 10.0 * allowed, "{fault}: off by {off:.2e}, allowed are {allowed:.2e}");
    }
}

#[test]
fn what_contradicts_is_refused_by_name() {
    use Kind::{BadFile, Unsupported};
    const NAN: &[u8] = &[0, 0, 0xc0, 0x7f];
    const INFINITE: &[u8] = &[0, 0, 0x80, 0x7f];
    let cases = [
        ("safetensors", First("mlp.c_fc.p_inv", &[24]), BadFile, "c_fc.p_inv", "element 0 is 24"),
        ("safetensors", First("mlp.c_fc.q", &[255; 4]), BadFile, "c_fc.q", "element 0 is -1"),
        ("safetensors", Bytes("mlp.c_fc.q", |b| b.copy_within(..4, 4)), BadFile, "c_fc.q", "element 1 is"),
        ("all", First("mlp.c_fc.q", &[0, 0, 0, 0, 1]), BadFile, "c_fc.q", "element 0 is 4294967296"),
        ("safetensors", First("wte.p", &[24]), BadFile, "wte.p", "element 0 is 24"),
        ("safetensors", Header("mlp.c_fc.q", "dtype", json!("F32")), BadFile, "c_fc.q", "whole numbers"),
        ("safetensors", Header("c_fc.q", "shape", json!([1, 96])), BadFile, "c_fc.q", "[1, 96]"),
        ("safetensors", Header("c_fc.B", "shape", json!([3, 3, 2])), BadFile, "c_fc.A", "[3, 3, 2]"),
        ("safetensors", Header("c_fc.B", "shape", json!([2, 3, 3])), BadFile, "c_fc.A", "[2, 3, 3]"),
        ("safetensors", Header("c_fc.B", "shape", json!([18])), BadFile, "c_fc.B", "[18]"),
        ("safetensors", Header("c_fc.A", "shape", json!([3, 12, 32])), BadFile, "c_fc.A", "[3, 12, 32]"),
        ("safetensors", First("c_fc.A", NAN), BadFile, "c_fc.A", "element 0 is NaN"),
        ("safetensors", First("c_fc.B", INFINITE), BadFile, "c_fc.B", "element 0 is inf"),
        ("safetensors", First("c_fc.b", NAN), BadFile, "c_fc.b", "element 0 is NaN"),
        ("safetensors", First("wte.B", NAN), BadFile, "wte.B", "element 0 is NaN"),
        ("safetensors", Header("c_fc.A", "dtype", json!("I32")), Unsupported, "c_fc.A", "I32"),
        ("safetensors", Renamed("c_fc.A", "c_fc.a"), BadFile, "c_fc.A", "missing"),
        ("safetensors", Renamed("c_fc.q", "c_fc.q_inv"), BadFile, "c_fc.q", "missing"),
        ("safetensors", Renamed("c_fc.b", "c_fc.beta"), BadFile, "c_fc.bias", "missing"),
        ("safetensors", Renamed("c_fc.p_inv", "c_fc.p"), BadFile, "c_fc.bias", "missing"),
        ("safetensors", Renamed("wte.p", "wte.q"), BadFile, "wte.p", "missing"),
        (
            "safetensors",
            Renamed("wte.embedding.B", "wte.embedding.C"),
            BadFile,
            "wte.embedding.weight",
            "missing",
        ),
        ("safetensors", Header("wte.B", "shape", json!([2, 1])), BadFile, "wte.B", "[2, 1]"),
        ("safetensors", Renamed("lm_head.weight", "head.weight"), Unsupported, "wte", "cannot be the head"),
        ("all", Renamed("lm_head.A", "lm_head.a"), BadFile, "lm_head.A", "missing"),
    ];
    for (folder, change, kind, place, says) in &cases {
        let error = crate::formats::load(&changed_folder(&fixture(folder), &[change])).expect_err(says);
        let said = error.to_string();
        assert!(
            error.kind() == *kind && said.contains(says) && said.contains(place),
            "{place}, {says}: {said}"
        );
    }
}
