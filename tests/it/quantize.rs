//! Smaller models of the small model: what is kept, what is lost, and what an interrupted run leaves.

use std::path::{Path, PathBuf};

use pocketlm::engine::calibrate;
use pocketlm::format::Checkpoint;
use pocketlm::model::quantize::{Coding, Importance, Recipe, Report, quantize};
use pocketlm::{Device, Engine, EngineOptions, Error, Format, Kind, LoadOptions, Result};

use crate::archs;
use crate::data::fixture;

const STORIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stories260k/stories260K-f32.gguf");

/// A path of this test's own.
fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("pocketlm-quantize-{}-{name}.gguf", std::process::id()))
}

/// The same for a folder, which is not there yet.
fn scratch_folder(name: &str) -> PathBuf {
    scratch(name).with_extension("")
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
        let most = if changed.to == Format::Q4_0.into() { 0.12 } else { 0.01 };
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

/// Parts of a model become one file.
#[test]
fn a_model_in_several_files_becomes_one() {
    let first = fixture("split/tiny-00001-of-00003.gguf");
    let out = scratch("one");
    let checkpoint = Checkpoint::open(&first).unwrap();
    quantize(&checkpoint, &Recipe::all(Format::F16), &Importance::default(), &out, 1, &mut |_, _| Ok(()))
        .unwrap();
    let whole = Checkpoint::open(&out).unwrap();
    assert_eq!(whole.tensors.keys().collect::<Vec<_>>(), checkpoint.tensors.keys().collect::<Vec<_>>());
    std::fs::remove_file(out).unwrap();
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

/// The logits of a model for some tokens, computed in f32.
fn logits(path: &Path) -> Vec<f32> {
    let engine = Engine::new(EngineOptions { device: Device::Cpu, exact: true, ..EngineOptions::default() });
    let options = LoadOptions { context: Some(64), outputs: 64, ..LoadOptions::default() };
    let model = engine.load(path, &options, |_| Ok(())).unwrap();
    let tokens: Vec<u32> = (0..48).map(|i| 1 + i * 37 % 500).collect();
    let mut all = Vec::new();
    model
        .logits(&tokens, 0, |_, row| {
            all.extend_from_slice(row);
            Ok(())
        })
        .unwrap();
    all
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |worst, (a, b)| (a - b).abs().max(worst))
}

/// The codes of a folder are those of a format of GGUF: so are the logits, but for the order of sums.
#[test]
fn folders_hold_the_numbers_of_blocks() {
    let (file, folder) = (scratch("blocks"), scratch_folder("folder"));
    let rules = "*down*=f16,model.embed_tokens.weight=f16";
    for (coding, format) in
        [(Coding::Int4, Format::Q4_0), (Coding::Int8, Format::Q8_0), (Format::Q5_1.into(), Format::Q5_1)]
    {
        let recipe = Recipe::all(format).with_rules("*down*=f16,token_embd.weight=f16").unwrap();
        smaller(&recipe, &Importance::default(), &file, 2).unwrap();
        let recipe = Recipe::all(coding).with_rules(rules).unwrap();
        let report = smaller(&recipe, &Importance::default(), &folder, 2).unwrap();
        assert_eq!(report.changed.iter().filter(|changed| changed.to == coding).count(), 5 * 6, "{coding}");
        let (expected, got) = (logits(&file), logits(&folder));
        let largest = expected.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
        assert!(distance(&expected, &got) < 1e-4 * largest, "{coding}");
        assert!(distance(&logits(Path::new(STORIES)), &got) > 1e-3 * largest, "{coding} changes nothing");
        std::fs::remove_file(&file).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

#[test]
fn nf4_and_corrections_of_low_rank_come_near() {
    let original = logits(Path::new(STORIES));
    let far = |recipe: Recipe, name: &str| {
        let folder = scratch_folder(name);
        let report = smaller(&recipe, &Importance::default(), &folder, 2).unwrap();
        let far = distance(&original, &logits(&folder));
        std::fs::remove_dir_all(&folder).unwrap();
        (far, report)
    };
    let (_, nf4) = far(Recipe::all(Coding::Nf4), "nf4");
    for changed in nf4.changed.iter().filter(|changed| changed.to == Coding::Nf4) {
        assert!((0.05..0.12).contains(&changed.error), "{changed:?}");
    }
    let two_bits = || Recipe::all(Format::Q2_0).with_rules("*down*=f16").unwrap();
    let (alone, plain) = far(two_bits(), "alone");
    let (beside, report) = far(two_bits().with_rank(16), "beside");
    let corrected: Vec<_> = report.changed.iter().filter(|changed| changed.uncorrected.is_some()).collect();
    assert_eq!(corrected.len(), 5 * 6);
    for changed in corrected {
        let before = plain.changed.iter().find(|before| before.name == changed.name).unwrap();
        assert!((before.error - changed.uncorrected.unwrap()).abs() < 1e-4, "{changed:?} {before:?}");
        assert!(changed.error < 0.8 * before.error, "{changed:?}");
    }
    assert!(beside < alone, "{beside} {alone}");
    assert!(report.bits_per_weight > plain.bits_per_weight);
}

#[test]
fn an_interrupted_folder_is_taken_up_again() {
    let (whole, out) = (scratch_folder("whole-folder"), scratch_folder("broken-folder"));
    let recipe = Recipe::all(Coding::Int4).with_rules("*down*=f16").unwrap();
    smaller(&recipe, &Importance::default(), &whole, 1).unwrap();
    let checkpoint = Checkpoint::open(STORIES).unwrap();
    let broken = quantize(&checkpoint, &recipe, &Importance::default(), &out, 2, &mut |done, total| {
        if 2 * done > total { Err(Error::new(Kind::Cancelled, "planted")) } else { Ok(()) }
    });
    assert_eq!(broken.unwrap_err().kind(), Kind::Cancelled);
    assert!(!out.exists());
    let report = smaller(&recipe, &Importance::default(), &out, 2).unwrap();
    assert!(report.resumed > 0);
    for file in std::fs::read_dir(&whole).unwrap() {
        let name = file.unwrap().file_name();
        assert!(
            std::fs::read(whole.join(&name)).unwrap() == std::fs::read(out.join(&name)).unwrap(),
            "{name:?}"
        );
    }
    let error = smaller(&recipe, &Importance::default(), &out, 2).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument, "what is there is not written over: {error}");
    for folder in [whole, out] {
        std::fs::remove_dir_all(folder).unwrap();
    }
}

/// What a dialect has no words for, by the names of both.
const UNSAID: &[&str] = &["llama4", "mobilellm", "mobilellm_pro"];

#[test]
fn a_model_in_the_other_dialect_has_the_same_logits() {
    for name in archs::ALL {
        let checkpoint = Checkpoint::open(fixture(&format!("archs/{name}"))).unwrap();
        let is_gguf = name.ends_with(".gguf");
        let label = format!("cross-{}", name.replace('.', "-"));
        let out = if is_gguf { scratch_folder(&label) } else { scratch(&label) };
        let done =
            quantize(&checkpoint, &Recipe::all(Format::F32), &Importance::default(), &out, 2, &mut |_, _| {
                Ok(())
            });
        if UNSAID.contains(name) {
            assert_eq!(done.unwrap_err().kind(), Kind::Unsupported, "{name}");
            continue;
        }
        done.unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Err(wrong) = archs::judge_copy(name, &out) {
            panic!("in the other dialect, {wrong}");
        }
        match is_gguf {
            true => std::fs::remove_dir_all(&out).unwrap(),
            false => std::fs::remove_file(&out).unwrap(),
        }
    }
}

#[test]
fn codings_that_do_not_go_together_are_refused() {
    let folder = scratch_folder("together");
    let refused = |recipe: Recipe, out: &Path, part: &str| {
        let error = smaller(&recipe, &Importance::default(), out, 1).unwrap_err();
        assert!(error.kind() == Kind::InvalidArgument && error.to_string().contains(part), "{error}");
    };
    refused(Recipe::all(Coding::Int4), &scratch("int4"), "GGUF has no int4");
    refused(Recipe::all(Format::Q2_0).with_rank(4), &scratch("rank"), "low rank");
    refused(Recipe::all(Coding::Nf4).with_rules("*q_proj*=q4_0").unwrap(), &folder, "nf4");
    // Models that are compressed with transforms would lose them.
    let low_rank = Recipe::all(Format::Q2_0).with_rules("*down*=f16").unwrap().with_rank(4);
    smaller(&low_rank, &Importance::default(), &folder, 2).unwrap();
    let compressed = Checkpoint::open(&folder).unwrap();
    let again = quantize(
        &compressed,
        &Recipe::all(Format::Q4_0),
        &Importance::default(),
        &scratch("again"),
        1,
        &mut |_, _| Ok(()),
    );
    assert_eq!(again.unwrap_err().kind(), Kind::Unsupported);
    std::fs::remove_dir_all(folder).unwrap();
    // So would embeddings that are products.
    let products = Checkpoint::open(fixture("tq/safetensors")).unwrap();
    let recipe = Recipe::all(Format::Q4_0);
    let refused =
        quantize(&products, &recipe, &Importance::default(), &scratch("products"), 1, &mut |_, _| Ok(()));
    let error = refused.unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.to_string().contains("embedding"), "{error}");
}
