//! Smaller models of the small model: what is kept, what is lost, and what an interrupted run leaves.

use std::path::{Path, PathBuf};

use pocketlm::engine::calibrate;
use pocketlm::format::Checkpoint;
use pocketlm::model::quantize::{Importance, Recipe, Report, quantize};
use pocketlm::{Error, Format, Kind, Result};

const STORIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stories260k/stories260K-f32.gguf");

/// A path of this test's own.
fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("pocketlm-quantize-{}-{name}.gguf", std::process::id()))
}

fn part(out: &Path) -> PathBuf {
    out.with_extension("gguf.part")
}

fn smaller(recipe: &Recipe, importance: &Importance, out: &Path, threads: usize) -> Result<Report> {
    quantize(&Checkpoint::open(STORIES)?, recipe, importance, out, threads, &mut |_, _| Ok(()))
}

/// The bytes of a file that is then gone.
fn taken(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).expect("the file was written");
    std::fs::remove_file(path).expect("the file can be removed");
    bytes
}

#[test]
fn matrices_change_and_all_else_stays() {
    let out = scratch("all");
    let recipe = Recipe::all(Format::Q4_0).with_rules("*attn_v*=q8_0").unwrap();
    let report = smaller(&recipe, &Importance::default(), &out, 2).unwrap();
    let (before, after) = (Checkpoint::open(STORIES).unwrap(), Checkpoint::open(&out).unwrap());
    assert_eq!(before.tensors.keys().collect::<Vec<_>>(), after.tensors.keys().collect::<Vec<_>>());
    for (name, tensor) in &after.tensors {
        let expected = match name.as_str() {
            _ if tensor.dims.len() == 1 => Format::F32,
            "token_embd.weight" => Format::Q8_0,
            name if name.contains("attn_v") => Format::Q8_0,
            // 172 columns are no whole blocks.
            name if name.contains("ffn_down") => Format::F16,
            _ => Format::Q4_0,
        };
        assert_eq!(tensor.format().unwrap(), expected, "{name}");
        if tensor.dims.len() == 1 {
            assert_eq!(*tensor.bytes, *before.tensors[name].bytes, "{name}");
        }
    }
    for changed in &report.changed {
        let most = if changed.to == Format::Q4_0 { 0.12 } else { 0.01 };
        assert!((0.0..most).contains(&changed.error), "{changed:?}");
    }
    assert_eq!(report.bytes, taken(&out).len() as u64);
}

#[test]
fn an_interrupted_run_is_taken_up_again() {
    let (whole, out) = (scratch("whole"), scratch("broken"));
    let recipe = Recipe::all(Format::Q8_0);
    smaller(&recipe, &Importance::default(), &whole, 1).unwrap();
    let whole = taken(&whole);
    let checkpoint = Checkpoint::open(STORIES).unwrap();
    // Ends somewhere inside.
    let broken = quantize(&checkpoint, &recipe, &Importance::default(), &out, 2, &mut |done, total| {
        if 2 * done > total { Err(Error::new(Kind::Cancelled, "planted")) } else { Ok(()) }
    });
    assert_eq!(broken.unwrap_err().kind(), Kind::Cancelled);
    assert!(!out.exists() && part(&out).exists());
    let report = smaller(&recipe, &Importance::default(), &out, 2).unwrap();
    assert!(report.resumed > 0 && !part(&out).exists());
    assert!(taken(&out) == whole, "the resumed file differs");

    // Nor what another model of the same shape has left, nor what another run still writes.
    std::fs::write(part(&out), &whole[..whole.len() / 2]).unwrap();
    let mut other = Checkpoint::open(STORIES).unwrap();
    let tensor = other.tensors.get_mut("blk.4.ffn_up.weight").unwrap();
    let mut bytes = tensor.bytes.to_vec();
    bytes[..4].copy_from_slice(&0.5f32.to_le_bytes());
    tensor.bytes = bytes.into();
    let report = quantize(&other, &recipe, &Importance::default(), &out, 2, &mut |_, _| Ok(())).unwrap();
    assert_eq!(report.resumed, 0);
    assert!(taken(&out) != whole, "the weights of two models are mixed");
    let busy = quantize(&checkpoint, &recipe, &Importance::default(), &out, 1, &mut |_, _| {
        let error = smaller(&recipe, &Importance::default(), &out, 1).unwrap_err();
        assert_eq!(error.kind(), Kind::Io, "{error}");
        Ok(())
    });
    assert!(busy.is_ok() && taken(&out) == whole);

    // What another recipe has left is not taken up.
    std::fs::write(part(&out), &whole[..whole.len() / 2]).unwrap();
    let report = smaller(&Recipe::all(Format::Q4_0), &Importance::default(), &out, 2).unwrap();
    assert_eq!(report.resumed, 0);
    assert!(taken(&out).len() < whole.len());
}

#[test]
fn a_file_gives_its_formats() {
    let (first, second) = (scratch("first"), scratch("second"));
    let rules = Recipe::all(Format::Q4_0).with_rules("*ffn_gate*=q5_1,*attn_q*=f16").unwrap();
    smaller(&rules, &Importance::default(), &first, 2).unwrap();
    let like = Recipe::all(Format::F32).like(&Checkpoint::open(&first).unwrap()).unwrap();
    smaller(&like, &Importance::default(), &second, 2).unwrap();
    let formats = |path: &Path| -> Vec<Format> {
        let checkpoint = Checkpoint::open(path).unwrap();
        checkpoint.tensors.values().map(|tensor| tensor.format().unwrap()).collect()
    };
    assert_eq!(formats(&first), formats(&second));
    for path in [first, second] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn calibration_weighs_the_errors_that_matter() {
    let checkpoint = Checkpoint::open(STORIES).unwrap();
    let tokens: Vec<u32> = (0..300).map(|i| 1 + i * 7 % 500).collect();
    let importance = calibrate(&checkpoint, &tokens, 64, Some(2), &mut |_, _| Ok(())).unwrap();
    let of = |name: &str| importance.of(&format!("{name}.weight")).expect("every matrix is known");
    assert_eq!(of("blk.0.attn_q"), of("blk.0.attn_v"), "one input, one importance");
    assert_ne!(of("blk.0.attn_q"), of("blk.1.attn_q"));
    assert_eq!((of("blk.3.ffn_down").len(), of("token_embd").len()), (172, 64));
    let mean = of("blk.2.ffn_up").iter().sum::<f32>() / 64.0;
    assert!((mean - 1.0).abs() < 1e-3, "{mean}");

    let (out, recipe) = (scratch("weighed"), Recipe::all(Format::Q4_0));
    let plain = smaller(&recipe, &Importance::default(), &out, 2).unwrap();
    let plain_file = taken(&out);
    let weighed = smaller(&recipe, &importance, &out, 2).unwrap();
    assert!(taken(&out) != plain_file);
    assert_eq!(plain.changed.len(), weighed.changed.len());
    for window in [0, 4096] {
        assert!(calibrate(&checkpoint, &tokens, window, Some(1), &mut |_, _| Ok(())).is_err());
    }
    assert!(calibrate(&checkpoint, &tokens[..10], 64, Some(1), &mut |_, _| Ok(())).is_err());
}

#[test]
fn what_cannot_be_is_refused() {
    let out = scratch("refused");
    let unused = Recipe::all(Format::Q4_0).with_rules("*zork*=f16").unwrap();
    let error = smaller(&unused, &Importance::default(), &out, 1).unwrap_err();
    assert!(error.kind() == Kind::InvalidArgument && error.to_string().contains("zork"), "{error}");

    let mut checkpoint = Checkpoint::open(STORIES).unwrap();
    let tensor = checkpoint.tensors.get_mut("blk.1.ffn_up.weight").unwrap();
    let mut bytes = tensor.bytes.to_vec();
    bytes[400..404].copy_from_slice(&f32::NAN.to_le_bytes());
    tensor.bytes = bytes.into();
    let none = Importance::default();
    let error =
        quantize(&checkpoint, &Recipe::all(Format::Q4_0), &none, &out, 1, &mut |_, _| Ok(())).unwrap_err();
    assert!(error.kind() == Kind::BadFile && error.to_string().contains("blk.1.ffn_up.weight"), "{error}");
    std::fs::remove_file(part(&out)).unwrap();
}
