//! Models said in another dialect: settings and tokenizers cross, and cross back, and are the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use pocketlm::format::{
    Array, Checkpoint, Config, Dialect, Dtype, HuggingFace, Meta, Metadata, Tensor, Value,
};
use pocketlm::model::dialects::{Beside, Target, to_gguf, to_hugging_face};
use pocketlm::model::{Blueprint, Pairing, Part, Slot};
use pocketlm::text::{self, Special, Tokenizer};
use pocketlm::{Error, Format, Kind};

use crate::archs::{ALL, read};
use crate::data;
use crate::text::{Vector, altered, assert_right, metadata, smollm2_vectors, vocab, vocab_vectors};

/// What GGUF has no words for, and what the refusal says.
const REFUSED: &[(&str, &str)] = &[
    ("llama4", "a temperature of attention"),
    ("mobilellm", "layers that are computed twice"),
    ("mobilellm_pro", "the window of layer 0"),
];

/// The files of a folder as they are read.
fn folder(files: &[(&str, Vec<u8>)]) -> Dialect {
    let bytes = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| bytes.clone());
    let config = |name: &str| bytes(name).map(|bytes| Config::parse(&bytes).expect("JSON"));
    let tokenizer_config = config("tokenizer_config.json");
    Dialect::HuggingFace(Box::new(HuggingFace {
        config: config("config.json"),
        generation_config: config("generation_config.json"),
        tokenizer_json: bytes("tokenizer.json").map(Into::into),
        tokenizer_model: bytes("tokenizer.model").map(Into::into),
        chat_template: tokenizer_config.as_ref().and_then(Config::chat_template),
        tokenizer_config,
        ..HuggingFace::default()
    }))
}

/// A checkpoint of the target, with the tensors that readers of settings look up.
fn crossed(source: &Checkpoint, blueprint: &Blueprint, target: &Target) -> Checkpoint {
    let dialect = match &target.beside {
        Beside::Gguf(metadata) => Dialect::Gguf(metadata.clone()),
        Beside::HuggingFace(files) => folder(files),
    };
    let naming = target.blueprint.layout.naming;
    let embedding = source.tensor(&blueprint.layout.naming.weight(Slot::Embedding)).expect("an embedding");
    let head = (!blueprint.tied).then_some(Slot::Head);
    let tensor = |name: String, dims: &[u64], values: &[f32]| {
        let (dims, bytes, file) =
            (dims.to_vec(), Format::F32.encode(values).into(), Arc::from(source.path.as_path()));
        Tensor { name, dims, dtype: Dtype::Format(Format::F32), bytes, file, offset: 0 }
    };
    let matrices = [Slot::Embedding].into_iter().chain(head);
    let matrices = matrices.map(|slot| Tensor { name: naming.weight(slot), ..embedding.clone() });
    let vectors = target
        .vectors
        .iter()
        .map(|(slot, values)| tensor(naming.weight(*slot), &[values.len() as u64], values));
    let parts =
        [Part::Q, Part::K, Part::V, Part::Qkv, Part::O, Part::Gate, Part::Up, Part::GateUp, Part::Down];
    let slots = (0..blueprint.blocks.len()).flat_map(|layer| parts.map(|part| Slot::Block(layer, part)));
    let biases = slots
        .filter(|slot| source.tensors.contains_key(&blueprint.layout.naming.bias(*slot)))
        .map(|slot| tensor(naming.bias(slot), &[1], &[0.0]));
    let tensors: BTreeMap<_, _> =
        matrices.chain(vectors).chain(biases).map(|tensor| (tensor.name.clone(), tensor)).collect();
    Checkpoint { path: source.path.clone(), dialect, tensors }
}

fn cross(source: &Checkpoint, blueprint: &Blueprint) -> Result<Target, Error> {
    match source.dialect {
        Dialect::Gguf(_) => to_hugging_face(source, blueprint),
        _ => to_gguf(source, blueprint),
    }
}

/// Frequencies that are the same but for divisors in f32 become those of `given`.
fn with_frequencies(mut blueprint: Blueprint, given: &Blueprint) -> Blueprint {
    assert_eq!(blueprint.ropes.len(), given.ropes.len());
    let settle = |freqs: &mut Vec<f64>, given: &Vec<f64>| {
        if freqs.iter().zip(given).all(|(a, b)| (a / b - 1.0).abs() < f64::from(f32::EPSILON)) {
            freqs.clone_from(given);
        }
    };
    for (rope, given) in blueprint.ropes.iter_mut().zip(&given.ropes) {
        settle(&mut rope.inv_freq, &given.inv_freq);
        if let (Some((_, freqs)), Some((_, given))) = (&mut rope.long, &given.long) {
            settle(freqs, given);
        }
    }
    blueprint
}

#[test]
fn every_architecture_crosses_and_returns_or_is_refused_by_name() {
    for name in
        ALL.iter().chain(&["../lora/base", "../lora/base.gguf", "../stories260k/stories260K-f32.gguf"])
    {
        let (checkpoint, blueprint) = read(name);
        let target = cross(&checkpoint, &blueprint);
        if let Some((_, says)) = REFUSED.iter().find(|(refused, _)| refused == name) {
            let error = target.expect_err(name);
            assert!(error.kind() == Kind::Unsupported && error.to_string().contains(says), "{name}: {error}");
            continue;
        }
        let target = target.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(target.notes, [""; 0], "{name}");
        let there = crossed(&checkpoint, &blueprint, &target);
        let read_there = Blueprint::read(&there).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read_there, target.blueprint, "{name}: is read as it was judged");
        assert_ne!(read_there.layout, blueprint.layout);
        let back = cross(&there, &read_there).unwrap_or_else(|error| panic!("{name}, back: {error}"));
        assert_eq!(with_frequencies(back.blueprint, &blueprint), blueprint, "{name}");
    }
}

#[test]
fn the_same_dialect_stays_as_it_is() {
    for name in ["gemma3", "gemma3.gguf", "phi3.gguf"] {
        let (checkpoint, blueprint) = read(name);
        let target = match checkpoint.dialect {
            Dialect::Gguf(_) => to_gguf(&checkpoint, &blueprint),
            _ => to_hugging_face(&checkpoint, &blueprint),
        };
        let target = target.expect(name);
        assert_eq!(target.blueprint, blueprint);
        let again = crossed(&checkpoint, &blueprint, &target);
        assert_eq!(Blueprint::read(&again).expect(name), blueprint, "{name}");
    }
}

#[test]
fn folders_of_meta_cross_to_both() {
    for name in ["../pth/meta", "../pth/spinquant", "../pth/qlora"] {
        let (checkpoint, blueprint) = read(name);
        let gguf = to_gguf(&checkpoint, &blueprint).unwrap_or_else(|error| panic!("{name}: {error}"));
        let folder =
            to_hugging_face(&checkpoint, &blueprint).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(gguf.blueprint.ropes[0].pairing, Pairing::Interleaved);
        assert_eq!(folder.blueprint.ropes[0].pairing, Pairing::HalfSplit);
        for target in [gguf, folder] {
            let there = crossed(&checkpoint, &blueprint, &target);
            assert_eq!(Blueprint::read(&there).expect(name), target.blueprint);
        }
    }
}

/// The factor of Llama 3.2 comes back as the setting that it was, from a tensor of divisors in f32.
#[test]
fn llama_3_scaling_crosses_as_a_tensor_and_returns_as_a_setting() {
    let (checkpoint, blueprint) = read("../lora/base");
    let Dialect::HuggingFace(files) = checkpoint.dialect else { panic!("no folder") };
    let scaling = r#"{"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}"#;
    let config =
        files.config.expect("config.json").with("rope_scaling", serde_json::from_str(scaling).expect("JSON"));
    let config = config.with("rope_parameters", serde_json::Value::Null).with("rope_theta", 5e5.into());
    let dialect =
        Dialect::HuggingFace(Box::new(HuggingFace { config: Some(config), ..HuggingFace::default() }));
    let scaled = Checkpoint { dialect, ..checkpoint };
    let read = Blueprint::read(&scaled).expect("Llama 3.2");
    assert_ne!(read, blueprint);
    let target = to_gguf(&scaled, &read).expect("GGUF's words");
    let [(Slot::RopeFactors, divisors)] = &target.vectors[..] else { panic!("{:?}", target.vectors) };
    assert_eq!((divisors.first(), divisors.last()), (Some(&1.0), Some(&32.0)));
    let there = crossed(&scaled, &read, &target);
    let back = to_hugging_face(&there, &target.blueprint).expect("the words of before");
    assert_eq!(back.blueprint, read, "not off by the rounding of a divisor");
}

#[test]
fn pairs_turn_as_the_dialect_has_them() {
    let (checkpoint, blueprint) = read("mistral");
    let target = to_gguf(&checkpoint, &blueprint).expect("Llama's words");
    assert_eq!((target.blueprint.arch, target.blueprint.ropes[0].pairing), ("llama", Pairing::Interleaved));
}

/// The judge: a blueprint with another mechanism than its settings can say.
#[test]
fn what_a_dialect_cannot_say_is_refused() {
    type Fault = (&'static str, &'static str, fn(&mut Blueprint));
    let faults: &[Fault] = &[
        ("qwen2", "the window of layer 1", |b| b.blocks[0].attention.window = Some(7)),
        ("mistral", "the rotation of layer 1", |b| b.blocks[1].attention.rope = None),
        ("mistral", "its scale of the embedding", |b| b.embedding_scale = 1.1),
        ("mistral", "its cap of logits", |b| b.logit_cap = Some(3.0)),
        ("smollm3", "the rotation of layer 0", |b| b.blocks[0].attention.rope = None),
        ("smollm3.gguf", "the scale of scores of layer 1", |b| b.blocks[1].attention.scale = 1.0),
        ("phi3.gguf", "the heads of layer 1", |b| b.blocks[1].attention.kv_heads = 4),
        ("gemma3", "its rotary frequencies", |b| b.ropes[1].inv_freq[1] *= 1.001),
        ("gemma2.gguf", "the norms behind each half of layer 1", |b| b.blocks[1].post_norms = false),
        ("gemma2", "the cap of scores of layer 0", |b| b.blocks[0].attention.cap = None),
        ("qwen3", "its rotary frequencies", |b| {
            b.ropes[0].long = Some((8, b.ropes[0].inv_freq.iter().map(|freq| freq / 2.0).collect()));
        }),
        ("gpt2", "the feed-forward network of layer 1", |b| b.blocks[1].ffn_width = 44),
        ("gpt2.gguf", "the scale of scores of layer 0", |b| b.blocks[0].attention.scale = 1.0),
    ];
    for (name, says, plant) in faults {
        let (checkpoint, mut blueprint) = read(name);
        cross(&checkpoint, &blueprint).unwrap_or_else(|error| panic!("{name}: {error}"));
        plant(&mut blueprint);
        let error = cross(&checkpoint, &blueprint).expect_err(says);
        assert!(error.kind() == Kind::Unsupported && error.to_string().contains(says), "{name}: {error}");
    }
}

fn of(dialect: &Dialect) -> Tokenizer {
    Tokenizer::of(dialect).unwrap_or_else(|error| panic!("{error}")).expect("a tokenizer")
}

fn in_gguf(dialect: &Dialect, rows: usize) -> Dialect {
    let words = text::to_gguf(dialect, rows as u32).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(words.notes, [""; 0]);
    let mut metadata = Metadata::default();
    words.entries.into_iter().for_each(|(key, value)| metadata.insert(key, value).expect("a key once"));
    Dialect::Gguf(metadata)
}

fn in_hugging_face(dialect: &Dialect) -> Dialect {
    let words = text::to_hugging_face(dialect).unwrap_or_else(|error| panic!("{error}"));
    folder(&words.files)
}

/// A tokenizer in `dialect` goes to both others and back, and remains what it is.
fn assert_crosses(name: &str, dialect: Dialect, vectors: &[Vector]) {
    let tokenizer = of(&dialect);
    let rows = tokenizer.vocab_size() + 5;
    let there = in_hugging_face(&dialect);
    let gguf = in_gguf(&there, rows);
    let back = in_hugging_face(&gguf);
    for (way, dialect) in [("tokenizer.json", there), ("GGUF", gguf), ("tokenizer.json again", back)] {
        let crossed = of(&dialect);
        let way = format!("{name} as {way}");
        assert_right(&way, &crossed, vectors);
        for vector in vectors {
            for keep in [false, true] {
                assert_eq!(crossed.decode(&vector.ids, keep), tokenizer.decode(&vector.ids, keep), "{way}");
            }
        }
        for id in 0..tokenizer.vocab_size() as u32 {
            assert_eq!(
                (crossed.token_bytes(id), crossed.is_special(id)),
                (tokenizer.token_bytes(id), tokenizer.is_special(id)),
                "{way}: token {id}"
            );
        }
        assert_eq!(
            (crossed.bos(), crossed.eos(), crossed.add_bos(), crossed.ends()),
            (tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos(), tokenizer.ends()),
            "{way}"
        );
    }
}

#[test]
fn tokenizers_cross_and_return() {
    for name in ["gpt-2", "llama-bpe", "qwen2", "llama-spm"] {
        assert_crosses(name, Dialect::Gguf(vocab(name)), &vocab_vectors(name));
    }
    let smollm2 = metadata(&data::real_model());
    assert_crosses("SmolLM2", Dialect::Gguf(smollm2), &smollm2_vectors());
    let stories = metadata(&data::shared("stories260k/stories260K-f32.gguf"));
    assert_crosses("stories", Dialect::Gguf(stories), &[]);
}

/// `tokenizer.model` in its forms, alone in a folder or beside `params.json`.
#[test]
fn tokenizer_models_cross() {
    let file =
        |name: &str| std::fs::read(data::fixture(&format!("tokenizers/{name}.model"))).expect("a model");
    for name in ["llama2", "llama3"] {
        let alone = || folder(&[("tokenizer.model", file(name))]);
        let meta = Meta { params: None, tokenizer_model: Some(file(name).into()) };
        let tokenizer = of(&alone());
        let vectors = crate::tokenizer_model::vectors(name).into_iter();
        let vectors: Vec<Vector> =
            vectors.map(|(text, ids)| Vector { text, ids, special: Special::Plain }).collect();
        assert_right(name, &tokenizer, &vectors);
        assert_crosses(name, alone(), &vectors);
        assert_crosses(name, Dialect::Meta(Box::new(meta)), &vectors);
    }
    for name in ["unigram", "unknown"] {
        let dialect = folder(&[("tokenizer.model", file(name))]);
        let refusals = [text::to_gguf(&dialect, 4096).err(), text::to_hugging_face(&dialect).err()];
        for error in refusals.map(|error| error.expect(name)) {
            assert!(error.kind() == Kind::Unsupported && error.to_string().contains("unigram"), "{error}");
        }
    }
}

#[test]
fn the_chat_template_crosses() {
    let source = Dialect::Gguf(metadata(&data::real_model()));
    let template = |dialect: &Dialect| {
        Tokenizer::chat_template(dialect, Some(&of(dialect))).expect("a text").expect("a template")
    };
    let there = in_hugging_face(&source);
    assert_eq!(template(&there), template(&source));
    assert_eq!(template(&in_gguf(&there, 49152)), template(&source));
}

#[test]
fn tokenizers_that_a_dialect_cannot_say_are_refused() {
    let Dialect::HuggingFace(files) = in_hugging_face(&Dialect::Gguf(vocab("llama-bpe"))) else {
        panic!("no folder");
    };
    let json = String::from_utf8(files.tokenizer_json.expect("tokenizer.json").to_vec()).expect("UTF-8");
    let rows = 200_000;
    let refused = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        let dialect = folder(&[("tokenizer.json", json.replacen(from, to, 1).into_bytes())]);
        let error = text::to_gguf(&dialect, rows).expect_err(to);
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        error.to_string()
    };
    let error = refused(r"\\p{N}{1,3}", r"\\p{N}{1,4}");
    assert!(error.contains("no name for this way to cut words") && error.contains(r"\p{N}{1,4}"), "{error}");
    let error = refused(r#""ignore_merges":true"#, r#""ignore_merges":false"#);
    assert!(error.contains("no name for this way to cut words"), "{error}");
    let error = refused(r#""normalizer":null"#, r#""normalizer":{"type": "Lowercase"}"#);
    assert!(error.contains("rewrites text"), "{error}");
    let dialect = folder(&[("tokenizer.json", json.clone().into_bytes())]);
    let error = text::to_gguf(&dialect, 1000).expect_err("fewer rows than tokens");
    assert!(error.to_string().contains("the embedding 1000 rows"), "{error}");

    // Two tokens with the same text have one id in tokenizer.json.
    let gpt2 = vocab("gpt-2");
    let mut texts = gpt2.texts("tokenizer.ggml.tokens").expect("texts").expect("tokens").to_vec();
    texts[50256] = texts[300].clone();
    let twice = altered(&gpt2, "tokenizer.ggml.tokens", Value::Array(Array::Text(texts)));
    let error = text::to_hugging_face(&Dialect::Gguf(twice)).expect_err("one id for each text");
    assert!(error.to_string().contains("tokens 300 and 50256"), "{error}");
}

/// SentencePiece's file stands in for a `tokenizer.json` with a step that GGUF has no words for.
#[test]
fn the_other_file_is_taken_where_it_crosses() {
    let model = std::fs::read(data::fixture("tokenizers/llama2.model")).expect("a model");
    let Dialect::HuggingFace(files) = in_hugging_face(&folder(&[("tokenizer.model", model.clone())])) else {
        panic!("no folder");
    };
    let json = String::from_utf8(files.tokenizer_json.expect("tokenizer.json").to_vec()).expect("UTF-8");
    let metaspace =
        r#""pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":false}"#;
    let json = json.replacen(r#""pre_tokenizer":null"#, metaspace, 1).into_bytes();
    assert!(text::to_gguf(&folder(&[("tokenizer.json", json.clone())]), 4096).is_err());
    let both = folder(&[("tokenizer.json", json), ("tokenizer.model", model)]);
    let words = text::to_gguf(&both, 4096).expect("SentencePiece's words");
    assert!(words.notes.len() == 1 && words.notes[0].contains("tokenizer.model"), "{:?}", words.notes);
}

/// What GGUF leaves out by custom is said.
#[test]
fn what_is_left_out_is_noted() {
    let Dialect::HuggingFace(files) = in_hugging_face(&Dialect::Gguf(vocab("qwen2"))) else {
        panic!("no folder");
    };
    let json = String::from_utf8(files.tokenizer_json.expect("tokenizer.json").to_vec()).expect("UTF-8");
    let json = json.replacen(r#""normalizer":null"#, r#""normalizer":{"type": "NFC"}"#, 1);
    let words =
        text::to_gguf(&folder(&[("tokenizer.json", json.into_bytes())]), 152_064).expect("Qwen's words");
    assert!(words.notes.len() == 1 && words.notes[0].contains("NFC"), "{:?}", words.notes);
}
