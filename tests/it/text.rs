//! Tokenizers and streams against other implementations' vectors.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pocketlm::format::{Array, Checkpoint, Dialect, Metadata, Value};
use pocketlm::text::{Special, Tokenizer};
use pocketlm::{Error, Kind};

use crate::data;

fn metadata(path: &Path) -> Metadata {
    let checkpoint = Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"));
    let Dialect::Gguf(metadata) = checkpoint.dialect else { panic!("{} is no GGUF", path.display()) };
    metadata
}

/// The metadata with one key set to something else.
fn altered(metadata: &Metadata, key: &str, value: Value) -> Metadata {
    let mut altered = Metadata::default();
    for (old, value) in metadata.iter().filter(|(old, _)| *old != key) {
        altered.insert(old.to_owned(), value.clone()).expect("unique keys");
    }
    altered.insert(key.to_owned(), value).expect("a new key");
    altered
}

struct Vector {
    text: String,
    ids: Vec<u32>,
    special: Special,
}

/// llama.cpp's vectors: special tokens recognised, none added.
fn vocab_vectors(name: &str) -> Vec<Vector> {
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

fn smollm2_vectors() -> Vec<Vector> {
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

fn assert_right(name: &str, tokenizer: &Tokenizer, vectors: &[Vector]) {
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
            let mut stream = tokenizer.stream(None, keep_special);
            let mut joined: String = vector.ids.iter().map(|&id| stream.push(id)).collect();
            joined += &stream.finish();
            assert_eq!(joined, whole, "{name}: {:?}", vector.text);
        }
    }
}

fn vocab(name: &str) -> Metadata {
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
    assert_eq!(tokenizer.stream(None, false).push(hello[0]), "Hello");
    assert_eq!(tokenizer.stream(Some(1), false).push(hello[0]), "Hello");
    assert_eq!(tokenizer.stream(Some(hello[0]), false).push(hello[0]), " Hello");
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
