//! Hugging Face folders: two sound ones (`tests/fixtures/hf/make.py`), and copies with one thing changed.

use std::fs;

use pocketlm::format::{Checkpoint, Dialect, HuggingFace};
use pocketlm::model::{Blueprint, Pairing, Weights};
use pocketlm::quant::Matrix;
use pocketlm::{Format, Kind};
use serde_json::{Value, json};

use crate::data::{self, Scratch};
use crate::formats::{flip, load};

fn open(name: &str) -> (HuggingFace, Blueprint, Weights) {
    let checkpoint = Checkpoint::open(data::fixture("hf").join(name)).expect("opens");
    let blueprint = Blueprint::read(&checkpoint).expect("an architecture");
    let weights = Weights::gather(&checkpoint, &blueprint).expect("weights");
    let Dialect::HuggingFace(folder) = checkpoint.dialect else { panic!("another dialect") };
    (*folder, blueprint, weights)
}

/// The elements that `make.py` gives the tensor `name`.
fn values(name: &str, count: usize) -> Vec<f32> {
    let seed: usize = name.bytes().map(usize::from).sum();
    (0..count).map(|j| (((7 * j + seed) % 31) as f32 - 15.0) / 16.0).collect()
}

fn decode(matrix: &Matrix) -> Vec<f32> {
    let mut all = vec![0.0; matrix.rows() * matrix.cols()];
    all.chunks_exact_mut(matrix.cols()).enumerate().for_each(|(row, out)| matrix.decode_row(row, out));
    all
}

fn check_matrix(matrix: &Matrix, name: &str, format: Format, shape: (usize, usize)) {
    assert_eq!((matrix.name(), matrix.format(), (matrix.rows(), matrix.cols())), (name, format, shape));
    assert_eq!(decode(matrix), values(name, shape.0 * shape.1), "{name}");
}

fn check_rope(blueprint: &Blueprint, name: &str) {
    let text = fs::read(data::fixture("hf/expected.json")).expect("expected.json");
    let expected: Value = serde_json::from_slice(&text).expect("expected.json");
    let expected: Vec<f64> = serde_json::from_value(expected[name].clone()).expect("frequencies");
    assert_eq!(blueprint.ropes[0].pairing, Pairing::HalfSplit);
    assert_eq!(blueprint.ropes[0].inv_freq.len(), expected.len());
    for (got, expected) in blueprint.ropes[0].inv_freq.iter().zip(expected) {
        assert!((got / expected - 1.0).abs() < 1e-12, "{got}, expected {expected}");
    }
}

#[test]
fn a_single_file_is_read_as_it_was_written() {
    let (folder, blueprint, weights) = open("single");
    assert_eq!((blueprint.width, blueprint.vocab, blueprint.context), (16, 32, 1024));
    assert_eq!((blueprint.norm_eps, blueprint.tied, blueprint.blocks.len()), (1e-5, false, 2));
    let attention = &blueprint.blocks[1].attention;
    assert_eq!((attention.heads, attention.kv_heads, attention.head_dim, attention.scale), (4, 2, 4, 0.5));
    check_rope(&blueprint, "single");

    check_matrix(&weights.embedding, "model.embed_tokens.weight", Format::F32, (32, 16));
    let head = weights.head.expect("a head of its own");
    check_matrix(&head.base, "lm_head.weight", Format::F32, (32, 16));
    assert_eq!(weights.final_norm.gain, values("model.norm.weight", 16));
    for (i, block) in weights.blocks.iter().enumerate() {
        let at = |name: &str| format!("model.layers.{i}.{name}");
        let linears = [
            (&block.q, "self_attn.q_proj", (16, 16), true),
            (&block.k, "self_attn.k_proj", (8, 16), true),
            (&block.v, "self_attn.v_proj", (8, 16), true),
            (&block.o, "self_attn.o_proj", (16, 16), true),
            (block.gate.as_ref().expect("a gate"), "mlp.gate_proj", (24, 16), false),
            (&block.up, "mlp.up_proj", (24, 16), false),
            (&block.down, "mlp.down_proj", (16, 24), false),
        ];
        for (linear, name, shape, biased) in linears {
            check_matrix(&linear.base, &at(&format!("{name}.weight")), Format::F32, shape);
            let bias = biased.then(|| values(&at(&format!("{name}.bias")), shape.0));
            assert_eq!(linear.bias, bias, "{name}");
        }
        assert_eq!(block.attention_norm.gain, values(&at("input_layernorm.weight"), 16));
        assert_eq!(block.ffn_norm.gain, values(&at("post_attention_layernorm.weight"), 16));
    }
    assert_eq!(folder.chat_template.as_deref(), Some("yes"));
    assert!(folder.generation_config.expect("generation_config.json").get("eos_token_id").is_some());
    assert!(folder.tokenizer_json.is_none());
}

#[test]
fn shards_are_read_as_they_were_written() {
    let (folder, blueprint, weights) = open("sharded");
    assert!(blueprint.tied && weights.head.is_none());
    assert_eq!(blueprint.context, 64);
    check_rope(&blueprint, "sharded");
    check_matrix(&weights.embedding, "model.embed_tokens.weight", Format::F16, (32, 16));
    let down = |layer: usize| &weights.blocks[layer].down.base;
    check_matrix(down(0), "model.layers.0.mlp.down_proj.weight", Format::F16, (16, 24));
    check_matrix(down(1), "model.layers.1.mlp.down_proj.weight", Format::BF16, (16, 24));
    assert_eq!(weights.final_norm.gain, values("model.norm.weight", 16));
    assert_eq!(folder.chat_template.as_deref(), Some("{{ messages }}"));
}

#[test]
fn the_value_check_notices_a_swapped_pair_of_rows() {
    let (_, _, weights) = open("single");
    let name = "model.embed_tokens.weight";
    let mut got = decode(&weights.embedding);
    got[..32].rotate_left(16);
    assert_ne!(got, values(name, 512));
}

#[test]
fn folder_config_index_and_file_open_the_same_model() {
    let ways =
        ["single", "single/config.json", "single/model.safetensors", "sharded/model.safetensors.index.json"];
    for way in ways {
        load(&data::fixture("hf").join(way)).unwrap_or_else(|error| panic!("{way}: {error}"));
    }
}

/// A copy of a fixture with one key of one of its JSON files set; null is as good as absent.
fn changed(fixture: &str, file: &str, key: &str, value: &Value) -> Scratch {
    let copy = Scratch::new();
    for entry in data::fixture("hf").join(fixture).read_dir().expect("a fixture") {
        let from = entry.expect("a file").path();
        fs::write(copy.join(from.file_name().expect("a name")), fs::read(&from).expect("a file"))
            .expect("a copy");
    }
    let path = copy.join(file);
    let mut json: Value = serde_json::from_slice(&fs::read(&path).expect("a JSON file")).expect("JSON");
    json[key] = value.clone();
    fs::write(path, json.to_string()).expect("a copy");
    copy
}

#[test]
fn settings_that_contradict_are_refused() {
    use Kind::{BadFile, Unsupported};
    let null = Value::Null;
    let yarn = json!({"rope_type": "yarn", "factor": 2.0});
    let backwards = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0,
        "original_max_position_embeddings": 64});
    let zero = json!({"rope_type": "linear", "factor": 0.0});
    let cases = [
        ("architectures", json!(["ZorkForCausalLM"]), Unsupported, "\"ZorkForCausalLM\" is not supported"),
        ("architectures", null.clone(), BadFile, "architectures"),
        ("attention_bias", json!(false), BadFile, "a bias that the settings do not know"),
        ("head_dim", json!(0), BadFile, "elements is 0"),
        ("head_dim", json!(3), BadFile, "3 rotated elements"),
        ("hidden_act", json!("gelu"), Unsupported, "\"gelu\" is not supported"),
        ("hidden_size", json!(1 << 30), BadFile, "268435456"),
        ("hidden_size", json!(24), BadFile, "[32, 16]"),
        ("intermediate_size", json!(25), BadFile, "tensor model.layers.0.mlp.gate_proj.weight"),
        ("max_position_embeddings", json!(0), BadFile, "the context is 0"),
        ("mlp_bias", json!(true), BadFile, "the bias is missing"),
        ("num_attention_heads", json!(0), BadFile, "num_attention_heads"),
        ("num_hidden_layers", json!(3), BadFile, "model.layers.2"),
        ("num_hidden_layers", json!(4_294_967_295u32), BadFile, "4294967295"),
        ("num_hidden_layers", json!(1), Unsupported, "tensor model.layers.1.input_layernorm.weight"),
        ("num_hidden_layers", json!(0), BadFile, "the number of layers is 0"),
        ("num_key_value_heads", json!(3), BadFile, "3 key-value heads"),
        ("num_key_value_heads", json!(-1), BadFile, "num_key_value_heads"),
        ("partial_rotary_factor", json!(0.5), Unsupported, "partial_rotary_factor"),
        ("quantization_config", json!({"quant_method": "zork"}), Unsupported, "\"zork\" is not supported"),
        ("quantization_config", json!({"quant_method": "gptq"}), BadFile, "no tensor is as the settings say"),
        ("rms_norm_eps", null.clone(), BadFile, "rms_norm_eps"),
        ("rms_norm_eps", json!(0), BadFile, "epsilon"),
        ("rope_scaling", yarn, Unsupported, "\"yarn\" is not supported"),
        ("rope_scaling", backwards, BadFile, "high_freq_factor"),
        ("rope_scaling", zero, BadFile, "inf cannot be the rotary frequency"),
        ("rope_theta", json!(-1), BadFile, "-1 cannot be the base"),
        ("tie_word_embeddings", json!("no"), BadFile, "tie_word_embeddings"),
        ("vocab_size", json!(33), BadFile, "tensor model.embed_tokens.weight"),
        ("vocab_size", null, BadFile, "vocab_size"),
    ];
    for (key, value, kind, says) in &cases {
        let error = load(&changed("single", "config.json", key, value)).expect_err(key);
        assert!(error.kind() == *kind && error.to_string().contains(says), "{key} {value}: {error:?}");
    }
    let untied = changed("sharded", "config.json", "tie_word_embeddings", &json!(false));
    let error = load(&untied).expect_err("no head");
    assert!(error.to_string().contains("tensor lm_head.weight"), "{error}");
}

#[test]
fn flipped_settings_never_panic() {
    let valid = data::fixture("hf/single/config.json");
    let copy = changed("single", "config.json", "vocab_size", &json!(32));
    flip(&valid, &copy.join("config.json"), fs::metadata(&valid).expect("config.json").len() as usize, 4000);
}

#[test]
fn shards_stay_in_their_folder() {
    let outside = ["../model.safetensors", "/model.safetensors", "..", ".", "", "a/b", "a\\b", "C:x"];
    for shard in outside {
        let map = json!({"model.norm.weight": shard});
        let copy = changed("sharded", "model.safetensors.index.json", "weight_map", &map);
        let error = Checkpoint::open(&*copy).expect_err(shard);
        assert!(error.to_string().contains("is not a file name inside the folder"), "{shard}: {error}");
    }
}

#[test]
fn a_weight_of_integers_is_named() {
    let copy = changed("single", "config.json", "vocab_size", &json!(32));
    let path = copy.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("the weights");
    let from = b"{\"dtype\": \"F32\", \"shape\": [32, 16]";
    let at = bytes.windows(from.len()).position(|window| window == from).expect("the embedding");
    bytes[at + 11] = b'I';
    fs::write(&path, bytes).expect("a copy");
    let error = load(&copy).expect_err("I32");
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("I32 is not supported"), "{error}");
    assert!(error.to_string().contains("tensor model.embed_tokens.weight"), "{error}");
}

#[test]
fn a_folder_without_a_model_says_what_it_needs() {
    let empty = Scratch::new();
    let error = Checkpoint::open(&*empty).expect_err("nothing there");
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("*.safetensors"), "{error}");
    let error = Checkpoint::open(empty.join("absent.gguf")).expect_err("nothing there");
    assert_eq!(error.kind(), Kind::NotFound);
}
