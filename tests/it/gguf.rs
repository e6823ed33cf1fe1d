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

/// The parts of a model that another program split, in a folder of their own.
fn parts() -> Scratch {
    let folder = Scratch::new();
    for number in 1..=3 {
        let name = part(number);
        fs::copy(data::fixture("split").join(&name), folder.join(&name)).expect("a copy");
    }
    folder
}

fn part(number: u32) -> String {
    format!("tiny-{number:05}-of-00003.gguf")
}

#[test]
fn parts_are_one_model() {
    let folder = parts();
    // By its first part, and by its folder.
    for path in [folder.join(part(1)), folder.to_path_buf()] {
        let checkpoint = Checkpoint::open(path).expect("opens");
        let Dialect::Gguf(metadata) = &checkpoint.dialect else { panic!("another dialect") };
        assert_eq!(metadata.get("general.name"), Some(&Value::Text("tiny".to_owned())));
        assert_eq!(checkpoint.tensors.len(), 5);
        for number in 0..5u32 {
            let tensor = checkpoint.tensor(&format!("blk.{number}.attn_norm.weight")).expect("a tensor");
            assert_eq!(tensor.dims, [2, 12]);
            assert_eq!(tensor.file.file_name().unwrap(), part(number / 2 + 1).as_str());
            let last = f32::from_le_bytes(tensor.bytes[92..].try_into().expect("4 bytes"));
            assert_eq!(last, (100 * number + 23) as f32);
        }
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    /// What is done to the three parts, how the error is to be, and what it says.
    type Fault = (&'static str, fn(&Scratch), Kind, &'static str);
    fn change(folder: &Scratch, number: u32, key: &str, to: u8) {
        let path = folder.join(part(number));
        let mut bytes = fs::read(&path).expect("a part");
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).expect("the key");
        // Behind the key and its type.
        bytes[at + key.len() + 4] = to;
        fs::write(path, bytes).expect("a part");
    }
    let faults: [Fault; 7] = [
        (
            "missing",
            |f| fs::remove_file(f.join(part(2))).expect("a part"),
            Kind::NotFound,
            "00002-of-00003.gguf",
        ),
        (
            "repeated",
            |f| {
                fs::copy(f.join(part(2)), f.join(part(3))).expect("a copy");
            },
            Kind::BadFile,
            "number 1, where 2",
        ),
        ("of another count", |f| change(f, 2, "split.count", 4), Kind::BadFile, "number of parts is 4"),
        (
            "of another model",
            |f| change(f, 3, "split.tensors.count", 6),
            Kind::BadFile,
            "number of tensors is 6",
        ),
        (
            "a tensor twice",
            |f| {
                let bytes = fs::read(f.join(part(2))).expect("a part");
                let at = bytes.windows(6).position(|window| window == b"blk.2.").expect("a name");
                let renamed = [&bytes[..at], b"blk.1.", &bytes[at + 6..]].concat();
                fs::write(f.join(part(2)), renamed).expect("a part");
            },
            Kind::BadFile,
            "the tensor is in",
        ),
        ("not GGUF", |f| fs::write(f.join(part(2)), b"GGML").expect("a part"), Kind::BadFile, "not GGUF"),
        (
            "fewer tensors",
            |f| (1..=3).for_each(|number| change(f, number, "split.tensors.count", 6)),
            Kind::BadFile,
            "5 tensors are in the parts, where there should be 6",
        ),
    ];
    for (what, fault, kind, says) in faults {
        let folder = parts();
        fault(&folder);
        let error = Checkpoint::open(folder.join(part(1))).expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(error.to_string().contains(says), "{what}: {error}");
    }
    let folder = parts();
    let error = Checkpoint::open(folder.join(part(2))).expect_err("the second part");
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("part 2") && error.to_string().contains(&part(1)), "{error}");
    fs::rename(folder.join(part(1)), folder.join("tiny.gguf")).expect("a name");
    let error = Checkpoint::open(folder.join("tiny.gguf")).expect_err("another name");
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("NAME-00001-of-00003.gguf"), "{error}");
}
