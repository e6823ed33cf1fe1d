//! GGUF headers written byte by byte, and the facts of a real model.

use std::fs;
use std::path::PathBuf;

use pocketlm::format::{Array, Checkpoint, Dialect, Metadata, Value};
use pocketlm::{Kind, Result};

use crate::data::{self, Scratch};
use crate::formats::load;

/// A file of no tensors with these entries: key, value type, value.
fn open(entries: &[(&str, u32, Vec<u8>)]) -> Result<Metadata> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(0u64.to_le_bytes());
    bytes.extend((entries.len() as u64).to_le_bytes());
    for (key, kind, value) in entries {
        bytes.extend(text(key));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(value);
    }
    let folder = Scratch::new();
    let path = folder.join("model.gguf");
    fs::write(&path, bytes).expect("a scratch file");
    match Checkpoint::open(path)?.dialect {
        Dialect::Gguf(metadata) => Ok(metadata),
        _ => panic!("another dialect"),
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn array(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

#[test]
fn every_value_type_is_read() {
    let minus = |bytes: usize| [vec![0xfe], vec![0xff; bytes - 1]].concat();
    let scalars: [(u32, Vec<u8>, Value); 12] = [
        (0, vec![200], Value::Unsigned(200)),
        (1, minus(1), Value::Signed(-2)),
        (2, vec![1, 2], Value::Unsigned(0x201)),
        (3, minus(2), Value::Signed(-2)),
        (4, vec![1, 0, 0, 0x80], Value::Unsigned(0x8000_0001)),
        (5, minus(4), Value::Signed(-2)),
        (6, 1.5f32.to_le_bytes().to_vec(), Value::Float(1.5)),
        (7, vec![1], Value::Bool(true)),
        (8, text("Ġ"), Value::Text("Ġ".to_owned())),
        (10, u64::MAX.to_le_bytes().to_vec(), Value::Unsigned(u64::MAX)),
        (11, minus(8), Value::Signed(-2)),
        (12, 0.1f64.to_le_bytes().to_vec(), Value::Float(0.1)),
    ];
    for (kind, bytes, expected) in scalars {
        let twice = array(kind, 2, &bytes.repeat(2));
        let metadata = open(&[("one", kind, bytes), ("two", 9, twice), ("none", 9, array(kind, 0, &[]))]);
        let metadata = metadata.unwrap_or_else(|error| panic!("type {kind}: {error}"));
        assert_eq!(metadata.get("one"), Some(&expected), "type {kind}");
        let two = match expected {
            Value::Unsigned(value) => Array::Unsigned(vec![value; 2]),
            Value::Signed(value) => Array::Signed(vec![value; 2]),
            Value::Float(value) => Array::Float(vec![value; 2]),
            Value::Bool(value) => Array::Bool(vec![value; 2]),
            Value::Text(value) => Array::Text(vec![value; 2]),
            Value::Array(_) => panic!("an array among the scalars"),
        };
        assert_eq!(metadata.get("two"), Some(&Value::Array(two)), "type {kind}");
    }
}

#[test]
fn what_is_no_value_is_refused() {
    let cases = [
        ("no boolean", 7, vec![2], "2 is not a boolean"),
        ("unknown type", 13, vec![0], "the value type 13"),
        ("array of unknown", 9, array(13, 1, &[0]), "the value type 13"),
        ("array of no booleans", 9, array(7, 2, &[1, 3]), "3 is not a boolean"),
        ("array too long", 9, array(0, 1 << 24, &vec![0; 1 << 24]), "16777216 elements"),
        ("text past the end", 8, 9u64.to_le_bytes().to_vec(), "9 bytes of text"),
    ];
    for (key, kind, value, says) in cases {
        let error = open(&[(key, kind, value)]).expect_err(key);
        assert_eq!(error.kind(), Kind::BadFile, "{error}");
        assert!(error.to_string().contains(says) && error.to_string().contains(key), "{error}");
        assert!(error.offset().is_some(), "{error}");
    }
}

#[test]
fn a_part_of_a_split_model_names_the_parts() {
    let entries = [("split.no", 2, vec![1, 0]), ("split.count", 2, vec![3, 0])];
    let error = open(&entries).expect_err("a part");
    assert_eq!(error.kind(), Kind::Unsupported);
    let message = error.to_string();
    assert!(message.contains("part 2") && message.contains("00003-of-00003.gguf"), "{message}");
    open(&[("split.count", 2, vec![1, 0])]).expect("the only part");
}

/// `valid.gguf` with its version changed. Versions 2 and 3 differ only in what byte orders they allow.
fn with_version(version: u32) -> (Scratch, PathBuf) {
    let mut bytes = fs::read(data::shared("badgguf/valid.gguf")).expect("valid.gguf");
    bytes[4..8].copy_from_slice(&version.to_le_bytes());
    let folder = Scratch::new();
    let path = folder.join("versioned.gguf");
    fs::write(&path, bytes).expect("a scratch file");
    (folder, path)
}

#[test]
fn versions_2_and_3_are_read_and_others_named() {
    for version in [2, 3] {
        let (_folder, path) = with_version(version);
        Checkpoint::open(path).expect("opens");
    }
    for version in [0, 1, 4] {
        let (_folder, path) = with_version(version);
        let error = Checkpoint::open(path).expect_err("refused");
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.to_string().contains(&format!("version {version} ")), "{error}");
    }
}

#[test]
fn a_layer_that_is_not_counted_is_refused() {
    let mut bytes = fs::read(data::shared("badgguf/valid.gguf")).expect("valid.gguf");
    let key = b"llama.block_count";
    let at = bytes.windows(key.len()).position(|window| window == key).expect("the key") + key.len();
    assert_eq!(bytes[at..at + 8], [4, 0, 0, 0, 2, 0, 0, 0]);
    bytes[at + 4] = 1;
    let folder = Scratch::new();
    let path = folder.join("fewer.gguf");
    fs::write(&path, bytes).expect("a scratch file");
    let error = load(&path).expect_err("two layers, one counted");
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(
        error.to_string().contains("llama with 1 layers") && error.to_string().contains("tensor blk.1."),
        "{error}"
    );
}
