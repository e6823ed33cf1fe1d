//! torch checkpoints: those that torch wrote (`tools/fixtures/pth.py`), and copies with one thing changed.

use std::fs;
use std::path::Path;

use pocketlm::format::{Checkpoint, Dialect, Dtype, Tensor};
use pocketlm::{Device, Engine, EngineOptions, Format, Kind, LoadOptions, Model};
use serde_json::{Value, json};

use crate::data::{self, Scratch};
use crate::formats::flip;

fn fixture(name: &str) -> std::path::PathBuf {
    data::fixture("pth").join(name)
}

fn tensors(name: &str) -> Checkpoint {
    Checkpoint::open(fixture(name)).unwrap_or_else(|error| panic!("{error}"))
}

/// The little-endian elements of a tensor of 4 bytes each.
fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn every_type_of_element_is_read_as_torch_wrote_it() {
    let checkpoint = tensors("types.pth");
    let tensor = |name: &str| checkpoint.tensor(name).unwrap_or_else(|error| panic!("{error}"));
    let numbers = [0, 1, 2, 3, 100, 5];
    let integers =
        [("int64", 8), ("int32", 4), ("int16", 2), ("int8", 1), ("uint8", 1), ("uint16", 2), ("uint32", 4)];
    for (name, width) in integers {
        let tensor = tensor(name);
        let expected: Vec<u8> =
            numbers.iter().flat_map(|number: &u64| number.to_le_bytes()[..width].to_vec()).collect();
        assert_eq!((&tensor.dims[..], &*tensor.bytes), (&[2, 3][..], &expected[..]), "{name}");
        let dtype = name.replace("uint", "U").replace("int", "I");
        assert!(matches!(tensor.dtype, Dtype::Other(other) if other.to_string() == dtype), "{name}");
    }
    assert_eq!(&*tensor("bool").bytes, &[0, 1, 1, 1, 1, 1]);
    for (name, format) in [("float32", Format::F32), ("float16", Format::F16), ("bfloat16", Format::BF16)] {
        let tensor = tensor(name);
        let mut out = [0.0; 6];
        format.decode(&tensor.bytes, &mut out);
        assert_eq!((tensor.dtype, out), (Dtype::Format(format), [0.0, 1.0, 2.0, 3.0, 100.0, 5.0]));
    }
    assert_eq!(tensor("float64").bytes.len(), 48);
    assert_eq!(tensor("float8_e4m3fn").bytes.len(), 6);

    let whole: Vec<f32> = (0..24u8).map(f32::from).collect();
    assert_eq!(floats(tensor("parameter")), whole);
    assert_eq!(floats(tensor("cut")), &whole[6..18]);
    let transposed: Vec<f32> =
        (0..6).flat_map(|column| (0..4).map(move |row| (6 * row + column) as f32)).collect();
    assert_eq!((&tensor("transposed").dims[..], floats(tensor("transposed"))), (&[6, 4][..], transposed));
    assert_eq!((&tensor("none").dims[..], tensor("none").bytes.len()), (&[0, 6][..], 0));
    assert_eq!((&tensor("scalar").dims[..], floats(tensor("scalar"))), (&[][..], vec![7.5]));
    // Nothing was copied that need not be.
    let file = fs::read(fixture("types.pth")).expect("the fixture");
    let cut = tensor("cut");
    assert_eq!(&file[cut.offset as usize..][..cut.bytes.len()], &*cut.bytes);
}

#[test]
fn what_is_no_state_dict_is_refused_with_what_would_work() {
    let cases = [
        ("strided.pth", "tensor holes", "save the tensor contiguous"),
        ("whole.pth", "\"torch.nn.modules.linear.Linear\"", "save the state_dict alone"),
        ("legacy.pth", "before torch 1.6", "load it in torch and save it again"),
    ];
    for (name, place, hint) in cases {
        let error = Checkpoint::open(fixture(name)).expect_err(name);
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.to_string().contains(place) && error.to_string().contains(hint), "{error}");
    }
}

/// A model with its logits from an independent forward pass in float64.
struct Reference {
    tokens: Vec<u32>,
    logits: Vec<Vec<f64>>,
    /// With activations of 8 bits, where there are such.
    rounded: Vec<Vec<f64>>,
}

impl Reference {
    fn read(name: &str) -> Self {
        let text = fs::read(fixture(name)).expect("the reference");
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        let of = |key: &str| value[key].clone();
        Self {
            tokens: serde_json::from_value(of("tokens")).expect("tokens"),
            logits: serde_json::from_value(of("logits")).expect("logits"),
            rounded: serde_json::from_value(of("rounded")).unwrap_or_default(),
        }
    }

    /// The largest error of a logit.
    fn off(&self, model: &Model) -> f64 {
        let mut off = 0.0f64;
        let look = |at: usize, logits: &[f32]| {
            let errors = logits.iter().zip(&self.logits[at]).map(|(got, due)| (f64::from(*got) - due).abs());
            off = errors.fold(off, f64::max);
            Ok(())
        };
        model.logits(&self.tokens, 0, look).expect("logits");
        off
    }

    /// How far the logits are from those of rounded activations, in units of how far these are from the others.
    fn off_rounded(&self, model: &Model) -> f64 {
        let (mut off, mut apart) = (0.0, 0.0);
        let look = |at: usize, logits: &[f32]| {
            let (plain, rounded) = (&self.logits[at], &self.rounded[at]);
            off += logits.iter().zip(rounded).map(|(got, due)| (f64::from(*got) - due).abs()).sum::<f64>();
            apart += plain.iter().zip(rounded).map(|(plain, rounded)| (plain - rounded).abs()).sum::<f64>();
            Ok(())
        };
        model.logits(&self.tokens, 0, look).expect("logits");
        off / apart
    }

    /// What rounding may do: each product of K terms adds at most K units in the last place, and the model has
    /// `products` one after the other.
    fn allowed(&self, k: usize, products: usize) -> f64 {
        let largest = self.logits.iter().flatten().fold(0.0f64, |largest, logit| largest.max(logit.abs()));
        f64::from(f32::EPSILON) * (k * products) as f64 * largest
    }
}

fn load(path: &Path, device: Device) -> Model {
    load_with(path, EngineOptions { device, ..EngineOptions::default() })
}

fn load_with(path: &Path, options: EngineOptions) -> Model {
    let engine = Engine::new(EngineOptions { exact: true, checked: true, ..options });
    let options = LoadOptions { context: Some(64), ..LoadOptions::default() };
    engine.load(path, &options, |_| Ok(())).unwrap_or_else(|error| panic!("{error}"))
}

fn devices() -> &'static [Device] {
    if cfg!(feature = "wgpu") { &[Device::Cpu, Device::Gpu] } else { &[Device::Cpu] }
}

#[test]
fn a_folder_of_meta_computes_what_the_reference_does() {
    let reference = Reference::read("logits.json");
    // Two layers of seven products and the head; 96 is the largest K.
    let allowed = reference.allowed(96, 15);
    for &device in devices() {
        let model = load(&fixture("meta"), device);
        let off = reference.off(&model);
        assert!(off <= allowed, "{device:?}: off by {off:.2e}, allowed are {allowed:.2e}");
    }
}

#[test]
fn quantized_folders_of_meta_compute_what_the_reference_does() {
    for name in ["spinquant", "qlora"] {
        let reference = Reference::read(&format!("{name}.json"));
        for &device in devices() {
            let off = reference.off(&load(&fixture(name), device));
            let allowed = reference.allowed(128, QUANTIZED_PRODUCTS);
            assert!(off <= allowed, "{name}, {device:?}: off by {off:.2e}, allowed are {allowed:.2e}");
        }
    }
}

/// An element within a rounding of half a step may go to either side, and moves all that come after it: so the distance
/// is measured in what the option changes. A GPU's quotients and exponentials are less exact, and send more elements to the
/// other side.
#[test]
fn activations_of_8_bits_compute_what_the_reference_does() {
    for name in ["spinquant", "qlora"] {
        let reference = Reference::read(&format!("{name}.json"));
        for &device in devices() {
            let off = |int8_activations| {
                let options = EngineOptions { device, int8_activations, ..EngineOptions::default() };
                reference.off_rounded(&load_with(&fixture(name), options))
            };
            let (rounded, plain) = (off(true), off(false));
            let allowed = if device == Device::Cpu { 0.1 } else { 0.5 };
            assert!(rounded < allowed && plain > 0.9, "{name}, {device:?}: {rounded:.3}, without {plain:.3}");
        }
    }
}

/// A folder as MobileLLM's: `pytorch_model.bin`, and `tokenizer.model` for want of a `tokenizer.json`.
#[test]
fn a_hugging_face_folder_of_a_torch_file_computes_what_transformers_does() {
    let reference = Reference::read("hf.json");
    let folder = Scratch::new();
    for name in ["pytorch_model.bin", "config.json"] {
        fs::copy(fixture("hf").join(name), folder.join(name)).expect("a copy");
    }
    let tokenizer = data::fixture("tokenizers").join("llama2.model");
    fs::copy(tokenizer, folder.join("tokenizer.model")).expect("a copy");
    let model = load(&folder, Device::Cpu);
    // A layer of seven products and the head; 48 is the largest K.
    let (off, allowed) = (reference.off(&model), reference.allowed(48, 8));
    assert!(off <= allowed, "off by {off:.2e}, allowed are {allowed:.2e}");
    assert_eq!(model.tokenizer().expect("SentencePiece's").vocab_size(), 700);
}

/// Two layers of seven products, each with a rotation or two products beside it, and the head.
const QUANTIZED_PRODUCTS: usize = 43;

/// A copy of the folder `name` with keys of `params.json` set; null is as good as absent.
fn copy(name: &str, changes: &[(&str, Value)]) -> Scratch {
    let copy = Scratch::new();
    let folder = fixture(name);
    fs::copy(folder.join("consolidated.00.pth"), copy.join("consolidated.00.pth")).expect("a copy");
    let text = fs::read(folder.join("params.json")).expect("params.json");
    let mut params: Value = serde_json::from_slice(&text).expect("JSON");
    changes.iter().for_each(|(key, value)| params[*key] = value.clone());
    fs::write(copy.join("params.json"), params.to_string()).expect("a copy");
    copy
}

/// A copy of the folder `name` with the bytes of a tensor changed.
fn altered(name: &str, tensor: &str, alter: fn(&mut [u8])) -> Scratch {
    let copy = copy(name, &[]);
    let path = copy.join("consolidated.00.pth");
    let checkpoint = Checkpoint::open(&path).expect("opens");
    let tensor = checkpoint.tensor(tensor).unwrap_or_else(|error| panic!("{error}"));
    let (start, length) = (tensor.offset as usize, tensor.bytes.len());
    let mut bytes = fs::read(&path).expect("the weights");
    alter(&mut bytes[start..start + length]);
    drop(checkpoint);
    fs::write(&path, bytes).expect("a copy");
    copy
}

#[test]
fn the_references_notice_planted_faults() {
    let notices = |name: &str, what: &str, folder: Scratch| {
        let reference = Reference::read(&format!("{name}.json"));
        let off = reference.off(&load(&folder, Device::Cpu));
        let allowed = reference.allowed(128, QUANTIZED_PRODUCTS);
        assert!(off > allowed, "{name}, {what}: off by {off:.2e} only");
    };
    let (wq, scales) = ("layers.0.attention.wq.weight", "layers.1.feed_forward.w2.scales");
    let plain = json!({"spinquant": false});
    notices("spinquant", "no rotation", copy("spinquant", &[("quantization_args", plain)]));
    notices(
        "spinquant",
        "a code",
        altered("spinquant", wq, |codes| codes[65] = if codes[65] < 8 { 0xf8 } else { 7 }),
    );
    notices(
        "spinquant",
        "transposed scales",
        altered("spinquant", scales, |bytes| {
            let scales: Vec<[u8; 4]> = bytes.as_chunks::<4>().0.to_vec();
            let transposed = (0..64).flat_map(|row| (0..4).map(move |group| 64 * group + row));
            let transposed: Vec<u8> = transposed.flat_map(|at| scales[at % 256]).collect();
            bytes.copy_from_slice(&transposed);
        }),
    );
    notices("spinquant", "the head", altered("spinquant", "output.scales", |bytes| bytes.rotate_left(4)));
    let half = json!({"rank": 16, "scale": 1.0});
    notices("qlora", "half the adaptor", copy("qlora", &[("lora_args", half)]));
    notices(
        "qlora",
        "an adaptor",
        altered("qlora", "layers.1.attention.wo.adaptor.B.weight", |b| b.rotate_left(32)),
    );
}

#[test]
fn quantized_tensors_that_make_no_sense_are_refused() {
    use Kind::BadFile;
    let wq = "layers.0.attention.wq";
    let cases = [
        (altered("qlora", &format!("{wq}.weight"), |codes| codes[0] = 8), BadFile, "a code is outside"),
        (altered("qlora", &format!("{wq}.weight"), |codes| codes[9] = 0x80), BadFile, "a code is outside"),
        (
            altered("qlora", &format!("{wq}.scales"), |scales| scales[..4].fill(0xff)),
            BadFile,
            "element 0 is NaN",
        ),
        (
            altered("qlora", "output.scales", |scales| scales[2..4].copy_from_slice(&[0x80, 0x7f])),
            BadFile,
            "element 0 is",
        ),
        (
            copy("qlora", &[("lora_args", json!({"rank": 8}))]),
            BadFile,
            "lora_args say rank 8, the tensors 16",
        ),
        (copy("qlora", &[("lora_args", json!(2))]), BadFile, "params.json, lora_args"),
        (copy("spinquant", &[("ffn_dim_multiplier", json!(0.5))]), BadFile, "feed_forward.w1.weight"),
        (copy("meta", &[("quantization_args", json!({}))]), BadFile, "no tensor is as the settings say"),
    ];
    for (folder, kind, says) in cases {
        let error = crate::formats::load(&folder).expect_err(says);
        assert!(error.kind() == kind && error.to_string().contains(says), "{says}: {error:?}");
    }
}

#[test]
fn the_reference_notices_what_the_settings_say() {
    let reference = Reference::read("logits.json");
    let allowed = reference.allowed(96, 15);
    let same = [("vocab_size", json!(-1)), ("max_seq_len", json!(100)), ("rope_scaling_factor", json!(32))];
    assert!(reference.off(&load(&copy("meta", &same), Device::Cpu)) <= allowed);
    let wrong = [
        ("rope_scaling_factor", json!(8)),
        ("use_scaled_rope", json!(false)),
        ("rope_theta", json!(10000.0)),
        ("norm_eps", json!(1e-3)),
    ];
    for (key, value) in wrong {
        let off = reference.off(&load(&copy("meta", &[(key, value)]), Device::Cpu));
        assert!(off > allowed, "{key}: off by {off:.2e} only");
    }
}

#[test]
fn settings_that_contradict_the_tensors_are_refused() {
    use Kind::{BadFile, Unsupported};
    let cases = [
        ("dim", json!(null), BadFile, "params.json, dim"),
        ("dim", json!(66), BadFile, "66 does not divide into 4 heads"),
        ("dim", json!(128), BadFile, "tensor tok_embeddings.weight"),
        ("ffn_dim_multiplier", json!(1e300), BadFile, "4294967295 cannot be rounded up"),
        ("ffn_dim_multiplier", json!(1.0), BadFile, "tensor layers.0.feed_forward.w1.weight"),
        ("multiple_of", json!(0), BadFile, "multiple_of"),
        ("moe", json!({"num_experts": 8}), Unsupported, "mixture of experts"),
        ("n_layers", json!(1), Unsupported, "tensor layers.1.attention.wk.weight"),
        ("n_layers", json!(3), BadFile, "layers.2"),
        ("n_heads", json!(0), BadFile, "n_heads"),
        ("n_kv_heads", json!(null), BadFile, "tensor layers.0.attention.wk.weight"),
        ("norm_eps", json!(null), BadFile, "norm_eps"),
        ("vocab_size", json!(97), BadFile, "97 tokens, but the embedding has 96 rows"),
    ];
    for (key, value, kind, says) in cases {
        let error = crate::formats::load(&copy("meta", &[(key, value.clone())])).expect_err(key);
        assert!(error.kind() == kind && error.to_string().contains(says), "{key} {value}: {error:?}");
    }
    let alone = copy("meta", &[]);
    fs::remove_file(alone.join("params.json")).expect("removed");
    let error = crate::formats::load(&alone).expect_err("no settings");
    assert!(error.to_string().contains("no params.json beside the weights"), "{error}");
    fs::write(alone.join("consolidated.01.pth"), "").expect("a second part");
    let error = Checkpoint::open(&*alone).expect_err("two parts");
    assert!(error.to_string().contains("cut over several files"), "{error}");
}

#[test]
fn shards_of_torch_files_make_one_model() {
    let folder = Scratch::new();
    fs::copy(fixture("types.pth"), folder.join("a.bin")).expect("a copy");
    fs::copy(fixture("meta/consolidated.00.pth"), folder.join("b.bin")).expect("a copy");
    let index = json!({"weight_map": {"cut": "a.bin", "norm.weight": "b.bin"}});
    fs::write(folder.join("pytorch_model.bin.index.json"), index.to_string()).expect("an index");
    let checkpoint = Checkpoint::open(&*folder).expect("opens");
    assert_eq!(checkpoint.tensors.keys().collect::<Vec<_>>(), ["cut", "norm.weight"]);
    assert!(matches!(checkpoint.dialect, Dialect::HuggingFace(_)));
    let index = json!({"weight_map": {"cut": "b.bin"}});
    fs::write(folder.join("pytorch_model.bin.index.json"), index.to_string()).expect("an index");
    let error = Checkpoint::open(&*folder).expect_err("no such tensor");
    assert!(error.to_string().contains("but it does not"), "{error}");
}

#[test]
fn flipped_and_cut_files_never_panic() {
    let copy = Scratch::new();
    for (name, rounds) in [("types.pth", 8000), ("strided.pth", 2000)] {
        let whole = fs::read(fixture(name)).expect("the fixture");
        flip(&fixture(name), &copy.join("flipped.pth"), whole.len(), rounds);
        for end in (0..whole.len()).step_by(7) {
            fs::write(copy.join("cut.pth"), &whole[..end]).expect("a copy");
            let error = Checkpoint::open(copy.join("cut.pth")).expect_err("cut");
            assert_eq!(error.kind(), Kind::BadFile, "cut at {end}: {error}");
        }
    }
}

/// 512 MiB of address space hold the program and these small files many times over, and no number that one of them
/// claims.
#[cfg(all(feature = "cli", target_os = "linux"))]
#[test]
fn hostile_files_take_no_memory_by_their_numbers() {
    let cache = Scratch::new();
    let hostile = [
        "size_wraps",
        "storage_too_large",
        "stride_0_large",
        "unicode_length_max",
        "memo_index_max",
        "zip_bomb",
        "deep_marks",
    ];
    for name in hostile {
        let path = data::shared("badfiles").join(format!("pt_{name}.pth"));
        let program = crate::program::pocketlm(&cache, &["inspect", path.to_str().expect("UTF-8")]);
        let mut limited = std::process::Command::new("sh");
        limited
            .args(["-c", "ulimit -v 524288; exec \"$@\"", "sh"])
            .arg(program.get_program())
            .args(program.get_args());
        let end = crate::program::End::of(&limited.output().expect("the program starts"));
        end.fails(3, &[name]);
    }
}
