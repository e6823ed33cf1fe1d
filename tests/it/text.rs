//! Tokenizers and streams against other implementations' vectors.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pocketlm::format::{Array, Checkpoint, Config, Dialect, Metadata, Value};
use pocketlm::text::{Special, Tokenizer};
use pocketlm::{Error, Kind};

use crate::data;

pub(crate) fn metadata(path: &Path) -> Metadata {
    let checkpoint = Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"));
    let Dialect::Gguf(metadata) = checkpoint.dialect else { panic!("{} is no GGUF", path.display()) };
    metadata
}

/// The metadata with one key set to something else.
pub(crate) fn altered(metadata: &Metadata, key: &str, value: Value) -> Metadata {
    let mut altered = Metadata::default();
    for (old, value) in metadata.iter().filter(|(old, _)| *old != key) {
        altered.insert(old.to_owned(), value.clone()).expect("unique keys");
    }
    altered.insert(key.to_owned(), value).expect("a new key");
    altered
}

pub(crate) struct Vector {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
    pub(crate) special: Special,
}

/// llama.cpp's vectors: special tokens recognised, none added.
pub(crate) fn vocab_vectors(name: &str) -> Vec<Vector> {
    let read = |suffix: &str| {
        fs::read_to_string(data::shared(&format!("vocab/ggml-vocab-{name}.gguf.{suffix}"))).expect("UTF-8")
    };
    let (input, output) = (read("inp"), read("out"));
    let texts: Vec<&str> = input.split_terminator("\n__ggml_vocab_test__\n").collect();
    let ids =
        output.lines().map(|line| line.split_whitespace().map(|id| id.parse().expect("an id")).collect());
    let vectors: Vec<Vector> = texts
        .iter()
        .zip(ids)
        .map(|(text, ids)| Vector { text: (*text).to_owned(), ids, special: Special::Parse })
        .collect();
    assert_eq!((vectors.len(), texts.len(), output.lines().count()), (46, 46, 46));
    vectors
}

pub(crate) fn smollm2_vectors() -> Vec<Vector> {
    #[derive(serde::Deserialize)]
    struct Line {
        text: String,
        ids_special: Vec<u32>,
        ids_plain: Vec<u32>,
    }
    let lines = fs::read_to_string(data::shared("smollm2/tokens.jsonl")).expect("UTF-8");
    let lines: Vec<Line> = lines.lines().map(|line| serde_json::from_str(line).expect("a case")).collect();
    assert_eq!(lines.len(), 320);
    let both = |line: Line| {
        let plain = Vector { text: line.text.clone(), ids: line.ids_plain, special: Special::Plain };
        [Vector { text: line.text, ids: line.ids_special, special: Special::Parse }, plain]
    };
    lines.into_iter().flat_map(both).collect()
}

/// The vectors that come out differently.
fn wrong<'a>(tokenizer: &Tokenizer, vectors: &'a [Vector]) -> Vec<(&'a Vector, Vec<u32>)> {
    let encoded = vectors.iter().map(|vector| {
        (vector, tokenizer.encode(&vector.text, vector.special).unwrap_or_else(|error| panic!("{error}")))
    });
    encoded.filter(|(vector, ids)| *ids != vector.ids).collect()
}

pub(crate) fn assert_right(name: &str, tokenizer: &Tokenizer, vectors: &[Vector]) {
    let wrong = wrong(tokenizer, vectors);
    let lines: Vec<String> = wrong
        .iter()
        .map(|(v, ids)| format!("{:?} ({:?}) gives {ids:?}, not {:?}", v.text, v.special, v.ids))
        .collect();
    assert!(wrong.is_empty(), "{name}: {} of {}:\n{}", wrong.len(), vectors.len(), lines.join("\n"));
}

/// Joined pieces are the whole, and each piece is whole characters by being a `String` without U+FFFD that the
/// whole does not have.
fn assert_streams(name: &str, tokenizer: &Tokenizer, vectors: &[Vector]) {
    for vector in vectors {
        for keep_special in [false, true] {
            let whole = tokenizer.decode(&vector.ids, keep_special);
            let mut decoder = tokenizer.decoder(None, keep_special);
            let mut joined: String = vector.ids.iter().map(|&id| decoder.push(id)).collect();
            joined += &decoder.finish();
            assert_eq!(joined, whole, "{name}: {:?}", vector.text);
        }
    }
}

pub(crate) fn vocab(name: &str) -> Metadata {
    metadata(&data::shared(&format!("vocab/ggml-vocab-{name}.gguf")))
}

fn tokenizer(metadata: &Metadata) -> Tokenizer {
    Tokenizer::from_gguf(metadata).unwrap_or_else(|error| panic!("{error}"))
}

fn passes(name: &str) -> Tokenizer {
    let tokenizer = tokenizer(&vocab(name));
    let vectors = vocab_vectors(name);
    assert_right(name, &tokenizer, &vectors);
    assert_streams(name, &tokenizer, &vectors);
    for vector in &vectors {
        assert_eq!(tokenizer.decode(&vector.ids, true), vector.text, "{name}");
    }
    tokenizer
}

#[test]
fn gpt2_vectors() {
    let tokenizer = passes("gpt-2");
    assert_eq!((tokenizer.vocab_size(), tokenizer.eos(), tokenizer.add_bos()), (50257, Some(50256), false));
    assert!(tokenizer.is_end(50256) && tokenizer.is_special(50256) && !tokenizer.is_end(0));
    assert_eq!(tokenizer.token_bytes(262), Some(&b" the"[..]));
    assert_eq!(tokenizer.token_bytes(50257), None);
}

#[test]
fn llama3_vectors() {
    let tokenizer = passes("llama-bpe");
    assert_eq!((tokenizer.bos(), tokenizer.add_bos()), (Some(128000), true));
    let ends: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(|&id| tokenizer.is_end(id)).collect();
    assert_eq!(ends, [128001, 128009]);
    assert_eq!(tokenizer.token_text(128009).as_deref(), Some("<|eot_id|>"));
}

#[test]
fn qwen2_vectors() {
    let tokenizer = passes("qwen2");
    assert!(!tokenizer.add_bos() && tokenizer.is_end(151643) && tokenizer.is_end(151645));
}

#[test]
fn sentence_piece_vectors() {
    let tokenizer = passes("llama-spm");
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(1), Some(2), true));
    assert_eq!(tokenizer.token_bytes(3 + 0x0a), Some(&b"\n"[..]));
    // The name of a special token or of a byte in plain text stays text.
    for text in ["<s>", "</s>", "<unk>", "<0x0A>"] {
        let ids = tokenizer.encode(text, Special::Plain).expect("tokens");
        assert!(ids.iter().all(|&id| !tokenizer.is_special(id) && id > 2 + 256), "{text}: {ids:?}");
        assert_eq!(tokenizer.decode(&ids, false), text);
    }
    assert_eq!(tokenizer.encode("<s>", Special::Parse).expect("tokens"), [1]);
}

#[test]
fn smollm2_vectors_with_the_real_model() {
    let tokenizer = tokenizer(&metadata(&data::real_model()));
    let vectors = smollm2_vectors();
    assert_right("smollm2", &tokenizer, &vectors);
    assert_streams("smollm2", &tokenizer, &vectors);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(1), Some(2), false));
    assert!(tokenizer.is_end(0) && !tokenizer.is_end(1) && tokenizer.is_end(2));
}

#[test]
fn a_wrong_splitter_is_noticed() {
    for (name, pre) in [
        ("gpt-2", "smollm"),
        ("gpt-2", "llama-bpe"),
        ("llama-bpe", "qwen2"),
        ("llama-bpe", "gpt-2"),
        ("qwen2", "smollm"),
    ] {
        let metadata = altered(&vocab(name), "tokenizer.ggml.pre", Value::Text(pre.into()));
        assert!(!wrong(&tokenizer(&metadata), &vocab_vectors(name)).is_empty(), "{name} with {pre}");
    }
    let smollm2 = metadata(&data::real_model());
    let smollm2 = altered(&smollm2, "tokenizer.ggml.pre", Value::Text("gpt-2".into()));
    assert!(!wrong(&tokenizer(&smollm2), &smollm2_vectors()).is_empty());
}

#[test]
fn wrong_scores_spaces_and_merges_are_noticed() {
    let spm = vocab("llama-spm");
    let vectors = vocab_vectors("llama-spm");
    let unprefixed = altered(&spm, "tokenizer.ggml.add_space_prefix", Value::Bool(false));
    assert!(!wrong(&tokenizer(&unprefixed), &vectors).is_empty());
    let scores = spm.floats("tokenizer.ggml.scores").expect("floats").expect("scores");
    let reversed = Value::Array(Array::Float(scores.iter().map(|score| -score).collect()));
    let reversed = altered(&spm, "tokenizer.ggml.scores", reversed);
    assert!(!wrong(&tokenizer(&reversed), &vectors).is_empty());
    let gpt2 = vocab("gpt-2");
    let merges = gpt2.texts("tokenizer.ggml.merges").expect("texts").expect("merges");
    let reversed = Value::Array(Array::Text(merges.iter().rev().cloned().collect()));
    let reversed = altered(&gpt2, "tokenizer.ggml.merges", reversed);
    assert!(!wrong(&tokenizer(&reversed), &vocab_vectors("gpt-2")).is_empty());
}

#[test]
fn the_stories_tokenizer_agrees_with_the_original() {
    let tokenizer = tokenizer(&metadata(&data::shared("stories260k/stories260K-f32.gguf")));
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos(), tokenizer.add_bos()), (512, Some(1), true));
    // tok512.bin: the longest token's length, then for each token its score, its length and its text.
    let original = fs::read(data::shared("stories260k/tok512.bin")).expect("tok512.bin");
    let mut rest = &original[4..];
    for id in 0..512 {
        let length = u32::from_le_bytes(rest[4..8].try_into().expect("4 bytes")) as usize;
        let text = &rest[8..8 + length];
        if id > 2 + 256 {
            assert_eq!(tokenizer.token_bytes(id), Some(text), "token {id}");
        }
        rest = &rest[8 + length..];
    }
    assert!(rest.is_empty());
    for text in ["Once upon a time, there was a little girl.", " two  spaces", "naïve 🦙\n", ""] {
        let ids = tokenizer.encode(text, Special::Plain).expect("tokens");
        assert_eq!(tokenizer.decode(&ids, false), text, "{ids:?}");
    }
    let ids = tokenizer.encode("Once upon a time", Special::Plain).expect("tokens");
    assert_eq!(ids, [403, 407, 261, 378]);
}

#[test]
fn a_leading_space_belongs_to_text_that_goes_on() {
    let tokenizer = tokenizer(&vocab("llama-spm"));
    let hello = tokenizer.encode("Hello", Special::Plain).expect("tokens");
    assert_eq!(tokenizer.decoder(None, false).push(hello[0]), "Hello");
    assert_eq!(tokenizer.decoder(Some(1), false).push(hello[0]), "Hello");
    assert_eq!(tokenizer.decoder(Some(hello[0]), false).push(hello[0]), " Hello");
}

#[test]
fn long_and_monotonous_text_is_cut_like_short_text() {
    for name in ["gpt-2", "llama-bpe", "qwen2"] {
        let tokenizer = tokenizer(&vocab(name));
        let encode = |text: &str| {
            let start = Instant::now();
            let ids = tokenizer.encode(text, Special::Parse).expect("tokens");
            assert!(start.elapsed() < Duration::from_secs(20), "{name} took {:?}", start.elapsed());
            assert_eq!(tokenizer.decode(&ids, true), text);
            ids
        };
        for run in ["a", "\n", " \n", "'", "é"] {
            encode(&run.repeat(200_000));
        }
        for words in [" a1", " 1a", "\t x", " don't"] {
            assert_eq!(encode(&words.repeat(200_000)), encode(words).repeat(200_000), "{name} {words:?}");
        }
        // The library takes a pattern that gives up for one that has found everything.
        let ids = encode(&(" ".repeat(200_000) + "a"));
        assert_eq!(tokenizer.token_bytes(ids[ids.len() - 1]), Some(&b" a"[..]), "{name}");
    }
}

fn refused(metadata: &Metadata) -> Error {
    Tokenizer::from_gguf(metadata).expect_err("a refusal")
}

#[test]
fn malformed_vocabularies_are_refused() {
    let bad = |file: &str| metadata(&data::shared("badgguf").join(file));
    for (file, kind, says) in [
        ("pre_unknown.gguf", Kind::Unsupported, "\"zork\" is not known (tokenizer.ggml.pre); known are"),
        ("no_tokens_key.gguf", Kind::BadFile, "no tokens (tokenizer.ggml.tokens)"),
        ("vocab_empty.gguf", Kind::BadFile, "the vocabulary is empty"),
        ("token_type_short.gguf", Kind::BadFile, "10 entries for 300 tokens"),
        ("token_type_unknown.gguf", Kind::BadFile, "type 99"),
        ("bos_out_of_range.gguf", Kind::BadFile, "the BOS token is 300"),
        ("merge_no_space.gguf", Kind::BadFile, "merge 41 is \"qz\", without a space"),
        ("token_duplicate.gguf", Kind::BadFile, "merge 40, \"s\" and \"t\", needs \"st\""),
        ("merge_missing_token.gguf", Kind::BadFile, "needs \"qz\", which is no token"),
    ] {
        let error = refused(&bad(file));
        assert!(error.kind() == kind && error.to_string().contains(says), "{file}: {error:?}");
    }
    let valid = bad("valid.gguf");
    assert_eq!(tokenizer(&valid).vocab_size(), 300);

    let other = altered(&valid, "tokenizer.ggml.model", Value::Text("bert".into()));
    assert_eq!(refused(&other).kind(), Kind::Unsupported);
    // Of two tokens with the same text, the first is the one that text becomes.
    let mut texts = valid.texts("tokenizer.ggml.tokens").expect("texts").expect("tokens").to_vec();
    texts.push("the".into());
    let twice = altered(&valid, "tokenizer.ggml.tokens", Value::Array(Array::Text(texts)));
    let types = Value::Array(Array::Signed([&[3; 3][..], &[1; 298]].concat()));
    let twice = tokenizer(&altered(&twice, "tokenizer.ggml.token_type", types));
    let ids = twice.encode("the", Special::Plain).expect("tokens");
    assert_eq!(
        (ids.len(), twice.token_bytes(ids[0]), twice.token_bytes(300)),
        (1, Some(&b"the"[..]), Some(&b"the"[..]))
    );
    assert!(ids[0] < 300);

    let end = altered(&valid, "tokenizer.ggml.eot_token_id", Value::Unsigned(300));
    assert!(refused(&end).to_string().contains("the end token is 300"));
}

/// The `tokenizer.json` that says what the metadata say, with special tokens as Hugging Face's files have them.
fn tokenizer_json(metadata: &Metadata, merges: &[String], parts: &serde_json::Value) -> serde_json::Value {
    let tokens = metadata.texts("tokenizer.ggml.tokens").expect("texts").expect("tokens");
    let types = metadata.integers("tokenizer.ggml.token_type").expect("integers").expect("types");
    let vocab: serde_json::Map<String, serde_json::Value> =
        tokens.iter().zip(0..).map(|(text, id): (_, u32)| (text.clone(), id.into())).collect();
    let special = tokens.iter().zip(&types).enumerate().filter(|(_, (_, kind))| [2, 3].contains(*kind));
    let added: Vec<serde_json::Value> = special
        .map(|(id, (content, _))| {
            serde_json::json!({"id": id, "content": content, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false})
        })
        .collect();
    let mut json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
            "byte_fallback": false, "vocab": vocab, "merges": merges},
    });
    merge(&mut json, parts);
    json
}

fn merge(into: &mut serde_json::Value, from: &serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            from.iter()
                .for_each(|(key, value)| merge(into.entry(key).or_insert_with(|| value.clone()), value));
        }
        (into, from) => *into = from.clone(),
    }
}

pub(crate) fn from_json(json: &serde_json::Value, config: Option<&str>) -> pocketlm::Result<Tokenizer> {
    let config = config.map(|config| Config::parse(config.as_bytes()).expect("a config"));
    Tokenizer::from_json(json.to_string().as_bytes(), config.as_ref())
}

pub(crate) fn smollm2_json() -> serde_json::Value {
    let metadata = metadata(&data::real_model());
    let merges = metadata.texts("tokenizer.ggml.merges").expect("texts").expect("merges");
    let parts = serde_json::json!({
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    });
    tokenizer_json(&metadata, merges, &parts)
}

#[test]
fn tokenizer_json_gives_the_same_tokens() {
    let config = r#"{"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}}"#;
    let tokenizer = from_json(&smollm2_json(), Some(config)).expect("a tokenizer");
    let vectors = smollm2_vectors();
    assert_right("smollm2", &tokenizer, &vectors);
    assert_streams("smollm2", &tokenizer, &vectors);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(1), Some(2), false));
    assert!(tokenizer.is_end(0) && tokenizer.is_end(2) && tokenizer.is_special(1));
    assert_eq!(tokenizer.token_bytes(260), self::tokenizer(&metadata(&data::real_model())).token_bytes(260));
}

#[test]
fn tokenizer_json_of_sentence_piece_gives_the_same_tokens() {
    let metadata = vocab("llama-spm");
    let tokens = metadata.texts("tokenizer.ggml.tokens").expect("texts").expect("tokens");
    let known: std::collections::HashSet<&str> = tokens.iter().map(String::as_str).collect();
    let scores = metadata.floats("tokenizer.ggml.scores").expect("floats").expect("scores");
    let mut order: Vec<(&String, f64)> = tokens.iter().zip(scores.iter().copied()).skip(259).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut merges = Vec::new();
    for (token, _) in order {
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let cuts = cuts.filter(|(left, right)| known.contains(left) && known.contains(right));
        merges.extend(cuts.map(|(left, right)| format!("{left} {right}")));
    }
    let parts = serde_json::json!({
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true},
    });
    let tokenizer = from_json(&tokenizer_json(&metadata, &merges, &parts), None).expect("a tokenizer");
    let vectors = vocab_vectors("llama-spm");
    assert_right("llama-spm", &tokenizer, &vectors);
    for vector in &vectors {
        assert_eq!(tokenizer.decode(&vector.ids, true), vector.text);
    }
    assert_eq!((tokenizer.bos(), tokenizer.add_bos(), tokenizer.is_end(2)), (Some(1), true, true));
    assert!(tokenizer.is_special(0) && !tokenizer.is_special(13));
    assert!(!tokenizer.encode("<s>", Special::Plain).expect("tokens").contains(&1));
}

#[test]
fn malformed_tokenizer_json_is_refused() {
    use serde_json::json;
    let sound = json!({
        "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    });
    let tokenizer = from_json(&sound, None).expect("a tokenizer");
    assert_eq!(tokenizer.encode("abba", Special::Plain).expect("tokens"), [2, 1, 0]);
    let cases = [
        (json!({"model": {"merges": [["ab", "ab"]]}}), Kind::BadFile, "needs \"abab\""),
        (json!({"model": {"merges": ["a b c"]}}), Kind::BadFile, "is no token"),
        (json!({"model": {"merges": ["ab"]}}), Kind::BadFile, "merge 0 is no pair"),
        (json!({"model": {"merges": 5}}), Kind::BadFile, "no merges"),
        (json!({"model": {"vocab": {"c": -1}}}), Kind::BadFile, "\"c\" has no id"),
        (json!({"model": {"vocab": {"c": 4_294_967_295u32}}}), Kind::BadFile, "the id 4294967295"),
        (json!({"model": {"type": "Unigram"}}), Kind::Unsupported, "Unigram"),
        (json!({"model": {"end_of_word_suffix": "</w>"}}), Kind::Unsupported, "end_of_word_suffix"),
        (json!({"decoder": {"type": "WordPiece"}}), Kind::Unsupported, "WordPiece"),
        (json!({"decoder": null}), Kind::Unsupported, "decoder"),
        (json!({"pre_tokenizer": {"type": "FixedLength", "length": 0}}), Kind::Unsupported, "FixedLength"),
        (
            json!({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}}),
            Kind::BadFile,
            "pre-tokenizer",
        ),
        (json!({"normalizer": {"type": "Precompiled"}}), Kind::Unsupported, "Precompiled"),
        (json!({"added_tokens": [{"id": 3}]}), Kind::BadFile, "added token 0"),
        (json!({"model": 5}), Kind::BadFile, "no model"),
    ];
    for (change, kind, says) in cases {
        let mut json = sound.clone();
        merge(&mut json, &change);
        let error = from_json(&json, None).expect_err(says);
        assert!(error.kind() == kind && error.to_string().contains(says), "{says}: {error:?}");
    }
    assert_eq!(Tokenizer::from_json(b"[1", None).expect_err("no JSON").kind(), Kind::BadFile);
}
