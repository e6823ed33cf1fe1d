//! Compressed folders: what other libraries wrote (`tools/fixtures/forms.py`), and copies with one thing changed.

use std::fs;
use std::path::{Path, PathBuf};

use pocketlm::format::Checkpoint;
use pocketlm::model::{Blueprint, Linear, Weights};
use pocketlm::{Device, Kind, Model};
use serde_json::{Value, json};

use crate::data::{self, Scratch};
use crate::qlr::{Reference, devices};

/// Every fixture, as `form/case`.
fn cases() -> Vec<String> {
    let folders = |path: &Path| -> Vec<PathBuf> {
        path.read_dir().expect("a folder").map(|entry| entry.expect("a folder").path()).collect()
    };
    let name = |path: &Path| path.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
    let forms = folders(&data::fixture("forms"));
    let cases =
        forms.iter().flat_map(|form| folders(form).into_iter().map(|case| name(form) + "/" + &name(&case)));
    let mut cases: Vec<_> = cases.collect();
    cases.sort();
    cases
}

fn fixture(case: &str) -> PathBuf {
    data::fixture("forms").join(case)
}

fn load(path: &Path, device: Device, exact: bool) -> Model {
    crate::qlr::load(path, device, exact).unwrap_or_else(|error| panic!("{error}"))
}

fn reference(case: &str) -> Reference {
    Reference::read(&fixture(case).join("expected.json"))
}

fn linears(weights: &Weights) -> impl Iterator<Item = &Linear> {
    let blocks = weights.blocks.iter();
    let of_blocks = blocks.flat_map(|b| [&b.q, &b.k, &b.v, &b.o, &b.up, &b.down].into_iter().chain(&b.gate));
    of_blocks.chain(&weights.head)
}

/// How far a model may be from its reference: a layer has four maps in turn, and the head is one. Sums of K terms, 128 at
/// most, are off by K units in the last place; what rounds activations to 16 bits is off by 2⁻¹⁵ in each of the terms, which
/// add up as their root.
fn allowed(reference: &Reference, layers: usize, exact: bool) -> f64 {
    let each = if exact { 128.0 * f64::from(f32::EPSILON) } else { 128f64.sqrt() * 2f64.powi(-15) };
    reference.allowed(each, 4 * layers + 1)
}

/// Checks logits, and that the likeliest token is the reference's wherever rounding cannot decide.
fn check(case: &str, model: &Model, exact: bool) {
    let reference = reference(case);
    let layers = open(&fixture(case)).expect("loads").0.blocks.len();
    let allowed = allowed(&reference, layers, exact);
    let off = reference.off(model);
    assert!(off <= allowed, "{case}: off by {off:.2e}, allowed are {allowed:.2e}");
    let look = |at: usize, logits: &[f32]| {
        let due = &reference.logits[at];
        let likeliest = (0..due.len()).max_by(|&a, &b| due[a].total_cmp(&due[b])).expect("a token");
        let ours = (0..due.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("a token");
        assert!(due[likeliest] - due[ours] <= 2.0 * allowed, "{case}: token {ours} after {at}");
        Ok(())
    };
    model.logits(&reference.tokens, 0, look).expect("logits");
}

#[test]
fn every_form_computes_what_its_library_does() {
    let cases = cases();
    assert!(!cases.is_empty());
    for case in &cases {
        for exact in [true, false] {
            check(case, &load(&fixture(case), Device::Cpu, exact), exact);
        }
    }
}

#[test]
fn every_form_computes_the_same_on_the_gpu() {
    // One of each format that matrices become; what wrote it makes no difference behind that.
    let mut seen = Vec::new();
    for case in cases() {
        let (_, weights) = open(&fixture(&case)).expect("loads");
        let kinds: Vec<_> = linears(&weights).map(|l| (l.base.format(), l.pre.len(), l.post.len())).collect();
        if devices().contains(&Device::Gpu) && kinds.iter().any(|kind| !seen.contains(kind)) {
            check(&case, &load(&fixture(&case), Device::Gpu, true), true);
        }
        seen.extend(kinds);
    }
}

fn open(path: &Path) -> pocketlm::Result<(Blueprint, Weights)> {
    crate::formats::load(path)
}

#[cfg(feature = "cli")]
#[test]
fn every_form_is_inspected() {
    let cache = Scratch::new();
    for case in cases() {
        let path = fixture(&case);
        let words = ["inspect", path.to_str().expect("UTF-8"), "--tensors"];
        let end = crate::program::offline(crate::program::pocketlm(&cache, &words));
        assert!(end.fine().contains("self_attn.q_proj"), "{case}: {end:?}");
    }
}

/// Settings in a file of their own.
const BESIDE: &str = "hf_quant_config.json";

/// A change of a fixture.
pub(crate) enum Change {
    /// A key of the settings; null is as good as absent.
    Setting(&'static str, Value),
    /// The bytes of all tensors with this ending.
    Bytes(&'static str, fn(&mut [u8])),
    /// The first bytes of the first tensor with this ending.
    First(&'static str, &'static [u8]),
    /// The name of all tensors with this ending.
    Renamed(&'static str, &'static str),
    /// A part of what the header says of all tensors with this ending.
    Header(&'static str, &'static str, Value),
}

use Change::{Bytes, First, Header, Renamed, Setting};

/// A copy of a fixture with changes.
fn changed(case: &str, changes: &[&Change]) -> Scratch {
    changed_folder(&fixture(case), changes)
}

/// A copy of a folder of safetensors with changes.
pub(crate) fn changed_folder(folder: &Path, changes: &[&Change]) -> Scratch {
    let copy = Scratch::new();
    let settings = fs::read(folder.join("config.json")).expect("config.json");
    let mut settings: Value = serde_json::from_slice(&settings).expect("JSON");
    let beside = fs::read(folder.join(BESIDE)).ok();
    let mut beside: Option<Value> = beside.map(|beside| serde_json::from_slice(&beside).expect("JSON"));
    let mut bytes = fs::read(folder.join("model.safetensors")).expect("the weights");
    let length = u64::from_le_bytes(*bytes.first_chunk().expect("a length")) as usize;
    let mut data = bytes.split_off(8 + length);
    let mut header: Value = serde_json::from_slice(&bytes[8..]).expect("a header");
    for change in changes {
        let entries = header.as_object_mut().expect("an object");
        let ending = match change {
            Setting(..) => "",
            Bytes(ending, _) | First(ending, _) | Renamed(ending, _) | Header(ending, ..) => ending,
        };
        let names: Vec<String> = entries.keys().filter(|name| name.ends_with(ending)).cloned().collect();
        assert!(!names.is_empty(), "{} has no {ending}", folder.display());
        let range = |entry: &Value| -> std::ops::Range<usize> {
            let [start, end] =
                serde_json::from_value(entry["data_offsets"].clone()).expect("offsets of a tensor");
            start..end
        };
        match change {
            Setting(key, value) => {
                let config = ["quantization_config", "quantization"];
                let at = config.into_iter().find(|&at| settings.get(at).is_some());
                let said = match at {
                    Some(at) => &mut settings[at],
                    None => &mut beside.as_mut().expect("settings")["quantization"],
                };
                said[*key] = value.clone();
            }
            Bytes(_, edit) => names.iter().for_each(|name| edit(&mut data[range(&entries[name])])),
            First(_, bytes) => data[range(&entries[&names[0]])][..bytes.len()].copy_from_slice(bytes),
            Renamed(ending, to) => {
                for name in names {
                    let entry = entries.remove(&name).expect("a tensor");
                    entries.insert(name.strip_suffix(ending).expect("the ending").to_owned() + to, entry);
                }
            }
            Header(_, key, value) => names.iter().for_each(|name| entries[name][*key] = value.clone()),
        }
    }
    let header = header.to_string();
    let whole = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    fs::write(copy.join("model.safetensors"), whole).expect("a copy");
    fs::write(copy.join("config.json"), settings.to_string()).expect("a copy");
    if let Some(beside) = beside {
        fs::write(copy.join(BESIDE), beside.to_string()).expect("a copy");
    }
    copy
}

fn swap_nibbles(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte = byte.rotate_left(4));
}

/// Elements of `N` bytes in an order that a transposed matrix of an even number of columns has.
fn interleave<const N: usize>(bytes: &mut [u8]) {
    let (elements, _) = bytes.as_chunks_mut::<N>();
    let (low, high) = elements.split_at(elements.len() / 2);
    let mixed: Vec<_> = low.iter().zip(high).flat_map(|(low, high)| [*low, *high]).collect();
    elements.copy_from_slice(&mixed);
}

fn reverse_words(bytes: &mut [u8]) {
    bytes.as_chunks_mut::<4>().0.reverse();
}

/// Of floats of 16 bits.
fn turn_signs(bytes: &mut [u8]) {
    bytes.iter_mut().skip(1).step_by(2).for_each(|byte| *byte ^= 128);
}

/// Adds 1 to the first of each eight numbers of 4 bits.
fn next_zero(bytes: &mut [u8]) {
    bytes.iter_mut().step_by(4).for_each(|byte| *byte = byte.wrapping_add(1));
}

#[test]
fn a_fault_in_each_form_is_noticed() {
    let faults = [
        ("gptq/w4", Bytes(".qweight", swap_nibbles)),
        ("gptq/w4", Bytes(".scales", interleave::<2>)),
        ("gptq/w4", Setting("checkpoint_format", json!("gptq_v2"))),
        ("gptq/w4-order", Bytes(".g_idx", reverse_words)),
        ("gptq/w4-order", Renamed(".g_idx", ".perm")),
        ("gptq/w3", Setting("checkpoint_format", json!("gptq_v2"))),
        ("gptq/w8", Bytes(".qweight", |bytes| bytes.reverse())),
        ("awq/gemm", Bytes(".qweight", swap_nibbles)),
        ("awq/gemm", Bytes(".qzeros", next_zero)),
        ("awq/gemm", Bytes(".scales", interleave::<2>)),
        ("bitsandbytes/nf4", Bytes("_proj.weight", swap_nibbles)),
        ("bitsandbytes/nf4", Bytes(".absmax", interleave::<4>)),
        ("bitsandbytes/nf4-nested", Bytes(".absmax", interleave::<1>)),
        ("bitsandbytes/nf4-nested", Bytes(".nested_quant_map", interleave::<4>)),
        ("bitsandbytes/fp4", Bytes(".absmax", interleave::<4>)),
        ("bitsandbytes/int8", Bytes(".SCB", interleave::<4>)),
        ("mlx/w4", Bytes("_proj.weight", swap_nibbles)),
        ("mlx/w4", Bytes("_proj.scales", interleave::<2>)),
        ("mlx/w4", Bytes("embed_tokens.biases", interleave::<2>)),
        (
            "mlx/mixed",
            Bytes("_proj.weight", |bytes| bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|w| w.reverse())),
        ),
        ("compressed-tensors/w4", Bytes(".weight_packed", swap_nibbles)),
        ("compressed-tensors/w4", Bytes(".weight_scale", interleave::<2>)),
        ("compressed-tensors/w4-zeros", Bytes(".weight_zero_point", next_zero)),
        ("compressed-tensors/w4-order", Bytes(".weight_g_idx", reverse_words)),
        ("compressed-tensors/w8-packed", Bytes(".weight_packed", swap_nibbles)),
        (
            "compressed-tensors/int8",
            Bytes(".weight_zero_point", |bytes| bytes.iter_mut().for_each(|b| *b ^= 1)),
        ),
        (
            "compressed-tensors/float8",
            Bytes("_proj.weight", |bytes| bytes.iter_mut().for_each(|b| *b ^= 128)),
        ),
        ("compressed-tensors/float8", Bytes(".weight_scale", interleave::<2>)),
        ("compressed-tensors/float8-block", Bytes(".weight_scale", interleave::<2>)),
        ("mlx/mxfp4", Bytes("_proj.weight", swap_nibbles)),
        ("mlx/nvfp4", Bytes(".scales", interleave::<1>)),
        ("compressed-tensors/mxfp4", Bytes(".weight_scale", interleave::<1>)),
        ("compressed-tensors/nvfp4", Bytes(".weight_packed", swap_nibbles)),
        ("compressed-tensors/nvfp4", Bytes(".weight_global_scale", |bytes| bytes[3] ^= 1)),
        ("modelopt/nvfp4", Bytes(".weight_scale_2", |bytes| bytes[3] ^= 1)),
        ("modelopt/nvfp4", Bytes(".weight_scale", interleave::<1>)),
        ("modelopt/float8-beside", Bytes(".weight_scale", |bytes| bytes[3] ^= 1)),
        ("torchao/int4-unpacked", Bytes("._weight_scale", interleave::<4>)),
        ("torchao/int4", Bytes("._weight_qdata", swap_nibbles)),
        ("torchao/int4", Bytes("._weight_qdata", |bytes| bytes.iter_mut().for_each(|b| *b ^= 0x88))),
        ("torchao/int4", Bytes("._weight_scale", interleave::<2>)),
        ("torchao/int4", Bytes("._weight_zero_point", interleave::<2>)),
        ("torchao/int4", Bytes("._weight_zero_point", turn_signs)),
        ("torchao/int4-symmetric", Bytes("._weight_scale", interleave::<2>)),
        ("torchao/int4-symmetric", Bytes("._weight_act_pre_scale", interleave::<2>)),
        ("torchao/int4-symmetric", Renamed("._weight_act_pre_scale", "._weight_scale_of_inputs")),
        ("torchao/int8", Bytes("._weight_qdata", |bytes| bytes.iter_mut().for_each(|b| *b ^= 128))),
        ("hqq/w4", Bytes(".W_q", swap_nibbles)),
        ("hqq/w4", Bytes(".scale", interleave::<2>)),
        ("hqq/mixed", Bytes(".zero", interleave::<2>)),
    ];
    for (index, (case, fault)) in faults.iter().enumerate() {
        let copy = changed(case, &[fault]);
        if matches!(fault, Renamed(..)) {
            // What nobody reads is refused: it would be wrong in silence.
            assert_eq!(open(&copy).expect_err("a tensor too many").kind(), Kind::Unsupported);
            continue;
        }
        let model = load(&copy, Device::Cpu, true);
        let reference = reference(case);
        let (off, allowed) = (reference.off(&model), allowed(&reference, 2, true));
        assert!(off > allowed, "fault {index} in {case}: off by {off:.2e} only, allowed are {allowed:.2e}");
    }
}

#[test]
fn a_copy_without_a_change_computes_the_same() {
    for case in cases() {
        check(&case, &load(&changed(&case, &[]), Device::Cpu, true), true);
    }
}

#[test]
fn what_contradicts_is_refused() {
    use Kind::{BadFile, Unsupported};
    const NAN: &[u8] = &[0, 0x7e];
    const INFINITE: &[u8] = &[0, 0, 0x80, 0x7f];
    let cases = [
        ("gptq/w4", Setting("bits", json!(5)), Unsupported, "5 bits"),
        ("gptq/w4", Setting("bits", json!(8)), BadFile, "q_proj.qweight"),
        ("gptq/w4", Setting("bits", json!("4")), BadFile, "a string where an integer"),
        ("gptq/w4", Setting("group_size", json!(0)), BadFile, "groups of 0"),
        ("gptq/w4", Setting("group_size", json!(-2)), BadFile, "group_size"),
        ("gptq/w4", Setting("group_size", json!(48)), BadFile, "groups of 48"),
        ("gptq/w4", Setting("group_size", json!(64)), BadFile, "q_proj.qzeros"),
        ("gptq/w4", Setting("checkpoint_format", json!("marlin")), Unsupported, "\"marlin\""),
        ("gptq/w4", First(".scales", NAN), BadFile, "element 0 is NaN"),
        ("gptq/w4", Renamed(".scales", ".scale"), BadFile, "q_proj.scales"),
        ("gptq/w4", Renamed(".qzeros", ".zeros"), BadFile, "q_proj.qzeros"),
        ("gptq/w4", Header(".qweight", "dtype", json!("F32")), BadFile, "q_proj.qweight"),
        ("gptq/w4-order", First(".g_idx", &[2]), BadFile, "the groups do not hold 32 inputs"),
        ("gptq/w4-order", First(".g_idx", &[255; 4]), BadFile, "the groups do not hold 32 inputs"),
        ("gptq/w4-order", Header(".g_idx", "shape", json!([1, 64])), BadFile, "g_idx"),
        ("awq/gemm", Setting("bits", json!(8)), Unsupported, "8 bits"),
        ("awq/gemm", Setting("version", json!("gemv")), Unsupported, "\"gemv\""),
        ("awq/gemm", Setting("group_size", json!(0)), BadFile, "groups of 0"),
        ("awq/gemm", Setting("group_size", json!(64)), BadFile, "q_proj.qzeros"),
        ("awq/gemm", First(".scales", NAN), BadFile, "element 0 is NaN"),
        ("awq/gemm", Renamed(".scales", ".scale"), BadFile, "q_proj.scales"),
        ("bitsandbytes/nf4", First(".absmax", INFINITE), BadFile, "element 0 is inf"),
        ("bitsandbytes/nf4", First(".quant_map", &[0, 0, 0, 0]), Unsupported, "code 0 stands for 0"),
        ("bitsandbytes/nf4", Renamed("__nf4", "__nf5"), BadFile, "no weight.quant_state"),
        ("bitsandbytes/nf4", Renamed("__nf4", "__fp4"), BadFile, "the quant_type is \"nf4\""),
        ("bitsandbytes/nf4", First("__nf4", b"["), BadFile, "bitsandbytes__nf4"),
        ("bitsandbytes/nf4", Renamed(".quant_map", ".map"), BadFile, "q_proj.weight.quant_map"),
        ("bitsandbytes/nf4-nested", First(".nested_absmax", INFINITE), BadFile, "nested_absmax"),
        ("bitsandbytes/nf4-nested", Renamed(".nested_absmax", ".x"), BadFile, "q_proj.weight.nested_absmax"),
        ("bitsandbytes/int8", First(".SCB", INFINITE), BadFile, "element 0 is inf"),
        ("bitsandbytes/int8", First(".weight_format", &[1]), Unsupported, "order of elements"),
        ("mlx/w4", Setting("bits", json!(7)), Unsupported, "7 bits"),
        ("mlx/w4", Setting("bits", json!(8)), BadFile, "embed_tokens.weight"),
        ("mlx/w4", Setting("group_size", json!(32)), BadFile, "embed_tokens.scales"),
        ("mlx/w4", Setting("group_size", json!(0)), BadFile, "groups of 0"),
        ("mlx/w4", Setting("mode", json!("mxfp8")), Unsupported, "\"mxfp8\""),
        ("mlx/mxfp4", First(".scales", &[255]), BadFile, "element 0 is 255"),
        ("mlx/nvfp4", First(".scales", &[127]), BadFile, "element 0 is 127"),
        ("mlx/nvfp4", Setting("mode", json!("mxfp4")), BadFile, "q_proj.scales"),
        (
            "compressed-tensors/nvfp4",
            First(".weight_global_scale", &[0; 4]),
            BadFile,
            "the factor of the matrix",
        ),
        ("mlx/w4", Renamed("q_proj.biases", "q_proj.b"), BadFile, "q_proj.biases"),
        ("mlx/w4", First("q_proj.scales", &[0x80, 0x7f]), BadFile, "element 0 is inf"),
        (
            "mlx/mixed",
            Setting("model.layers.0.self_attn.q_proj", json!({"bits": 4})),
            BadFile,
            "q_proj.weight",
        ),
        ("compressed-tensors/w4", Setting("config_groups", json!({})), BadFile, "no group says"),
        ("compressed-tensors/w4", Setting("transform_config", json!({"r1": 1})), Unsupported, "transforms"),
        (
            "compressed-tensors/w4",
            Setting("config_groups", json!({"a": {"weights": {"num_bits": 8}}})),
            BadFile,
            "4 bits",
        ),
        (
            "compressed-tensors/w4",
            Setting("config_groups", json!({"a": {"weights": {"num_bits": 9}}})),
            Unsupported,
            "9 bits",
        ),
        (
            "compressed-tensors/w4",
            Header(".weight_packed", "shape", json!([8, 64])),
            BadFile,
            "weight_packed",
        ),
        ("compressed-tensors/w4", First(".weight_shape", &[1]), BadFile, "weight_shape"),
        ("compressed-tensors/w4", First(".weight_scale", NAN), BadFile, "element 0 is NaN"),
        ("compressed-tensors/w4", Renamed(".weight_scale", ".scale"), BadFile, "q_proj.weight_scale"),
        ("compressed-tensors/w4-zeros", Renamed(".weight_zero_point", ".zp"), BadFile, "without zero points"),
        (
            "compressed-tensors/w4-order",
            First(".weight_g_idx", &[2]),
            BadFile,
            "the groups do not hold 32 inputs",
        ),
        ("compressed-tensors/float8", First("_proj.weight", &[127]), BadFile, "element 0 is NaN"),
        ("modelopt/nvfp4", Setting("quant_algo", json!("W4A8_AWQ")), Unsupported, "\"W4A8_AWQ\""),
        ("modelopt/nvfp4", Renamed(".weight_scale_2", ".x"), BadFile, "q_proj.weight_scale_2"),
        ("modelopt/float8-beside", Setting("quant_algo", json!("W4A8_AWQ")), Unsupported, BESIDE),
        ("modelopt/float8-beside", Setting("quant_algo", json!(8)), BadFile, "hf_quant_config.json"),
        ("modelopt/float8-beside", Setting("quant_algo", Value::Null), Unsupported, "F8_E4M3"),
        ("torchao/int8", Header("._weight_qdata", "dtype", json!("U8")), Unsupported, "q_proj._weight_qdata"),
        ("torchao/int4", Header("._weight_qdata", "dtype", json!("U8")), Unsupported, "NVFP4Tensor"),
        ("torchao/int4", First("._weight_scale", &[0x80, 0x7f]), BadFile, "element 0 is inf"),
        ("torchao/int4", First("._weight_zero_point", &[0x80, 0x7f]), BadFile, "element 0 is inf"),
        ("torchao/int4", Renamed("._weight_zero_point", "._weight_zero"), BadFile, "_weight_zero_point"),
        (
            "torchao/int4",
            Header("v_proj._weight_scale", "shape", json!([32, 2])),
            BadFile,
            "v_proj._weight_scale",
        ),
        (
            "torchao/int4",
            Header("v_proj._weight_scale", "shape", json!([64])),
            BadFile,
            "v_proj._weight_scale",
        ),
        ("torchao/int8", First("._weight_scale", INFINITE), BadFile, "element 0 is inf"),
        ("hqq/w4", First(".nbits", &[7]), Unsupported, "7 bits"),
        ("hqq/w4", First(".nbits", &[8]), BadFile, "do not hold"),
        ("hqq/w4", First(".axis", &[2]), BadFile, "the axis is 2"),
        ("hqq/w4", First(".group_size", &[0]), BadFile, "groups of 64"),
        ("hqq/w4", First(".scale", &[0, 0x7c]), BadFile, "element 0 is inf"),
        ("hqq/w4", Renamed(".zero", ".zeros"), BadFile, "q_proj.zero"),
    ];
    for (case, change, kind, says) in &cases {
        let error = open(&changed(case, &[change])).expect_err(says);
        let says_all = error.to_string().contains(says) && error.kind() == *kind;
        let is_placed = ["config.json", BESIDE, "model.embed_tokens.", "model.layers.0."]
            .iter()
            .any(|at| error.to_string().contains(at));
        assert!(says_all && is_placed, "{case}, {says}: {error:?}");
    }
}

#[test]
fn tiles_of_a_gpu_are_refused_by_name() {
    let cases = [("Int4TilePackedTo4dTensor", json!([4, 1, 8, 8])), ("Int4PlainInt32Tensor", json!([32, 8]))];
    for (name, shape) in cases {
        let at = "v_proj._weight_qdata";
        let changes = [Header(at, "dtype", json!("I32")), Header(at, "shape", shape)];
        let error = open(&changed("torchao/int4", &[&changes[0], &changes[1]])).expect_err(name);
        assert!(error.kind() == Kind::Unsupported && error.to_string().contains(name), "{error:?}");
    }
}

#[test]
fn rows_of_whatever_bytes_are_made() {
    for case in cases() {
        let copy = changed(&case, &[]);
        let path = copy.join("model.safetensors");
        let whole = fs::read(&path).expect("the weights");
        for round in 0..12u8 {
            let mut bytes = whole.clone();
            let length = u64::from_le_bytes(*bytes.first_chunk().expect("a length")) as usize;
            let (mut state, odd) = (u32::from(round) + 1, usize::from(round) + 3);
            for byte in bytes[8 + length..].iter_mut().step_by(odd) {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
            fs::write(&path, bytes).expect("a copy");
            match open(&copy) {
                Ok((_, weights)) => linears(&weights).for_each(|linear| {
                    let mut out = vec![0.0; linear.base.cols()];
                    (0..linear.base.rows()).for_each(|row| linear.base.decode_row(row, &mut out));
                }),
                Err(error) => assert_ne!(error.kind(), Kind::Internal, "{case}: {error}"),
            }
        }
        let checkpoint = Checkpoint::open(fixture(&case)).expect("opens");
        assert!(checkpoint.tensors.len() > 8);
    }
}
