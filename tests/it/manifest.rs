//! Models held against manifests: what is as it was signed loads, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use pocketlm::format::{Checkpoint, Files};
use pocketlm::{
    Adapter, Device, Engine, EngineOptions, Error, GenerateOptions, Kind, LoadOptions, LoadStage, Manifest,
    Model, Prompt, Result, Suspend,
};
use serde_json::{Value, json};

use crate::data::{self, Scratch};

const STORIES: &str = "stories260K-f32.gguf";
/// Of the fixture's manifest.
const CHUNK: usize = 64 << 10;

fn fixture(name: &str) -> PathBuf {
    data::fixture("manifest").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(fixture(name)).expect("a fixture")
}

fn stories() -> Vec<u8> {
    fs::read(data::fixture("stories260k").join(STORIES)).expect("a fixture")
}

fn signed() -> Manifest {
    Manifest::read_signed(fixture("stories.json"), &text("key.pub")).expect("it is signed")
}

fn engine() -> Engine {
    Engine::new(EngineOptions { device: Device::Cpu, ..EngineOptions::default() })
}

fn load(path: &Path, manifest: Manifest) -> Result<Model> {
    engine().load(path, &LoadOptions { verify: Some(manifest), ..LoadOptions::default() }, |_| Ok(()))
}

/// A copy of the stories model with `change` made to it.
fn changed(folder: &Scratch, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = stories();
    change(&mut bytes);
    let path = folder.join(STORIES);
    fs::write(&path, bytes).expect("it can be written");
    path
}

/// The manifest of a folder, as the library writes it.
fn manifest_of(path: &Path) -> Manifest {
    let files = Files::default();
    Checkpoint::open_with(&files, path).expect("a model");
    Manifest::of(path, &files).expect("a manifest")
}

#[test]
fn a_model_that_is_what_was_signed_loads() {
    let manifest = signed();
    assert_eq!(manifest.trusted_comment(), Some("stories, for tests"));
    let folder = Scratch::new();
    let path = changed(&folder, |_| ());
    let mut stages = Vec::new();
    let options = LoadOptions { verify: Some(manifest.clone()), ..LoadOptions::default() };
    let hear = |progress: pocketlm::LoadProgress| {
        stages.push(progress.stage);
        Ok(())
    };
    let model = engine().load(&path, &options, hear).expect("it loads");
    assert!(model.info().load_time.as_nanos() > 0);
    let prompt = Prompt::Raw("Once".into());
    let few = GenerateOptions { max_tokens: Some(3), ..GenerateOptions::default() };
    assert_eq!(model.session().generate(&prompt, &few).unwrap().finish().unwrap().tokens.len(), 3);
    assert!(stages.starts_with(&[LoadStage::Reading, LoadStage::Opening]), "{stages:?}");
    // From memory too; and what the library writes is what Python wrote, but for the size of chunks.
    assert!(engine().load_bytes(STORIES, stories(), &options, |_| Ok(())).is_ok());
    let mut flipped = stories();
    flipped[500_000] ^= 1;
    assert_eq!(
        engine().load_bytes(STORIES, flipped, &options, |_| Ok(())).unwrap_err().kind(),
        Kind::BadFile
    );
    let files = Files::default();
    Checkpoint::open_with(&files, &path).unwrap();
    let written = Manifest::of(&folder, &files).unwrap();
    assert_eq!(written.files().collect::<Vec<_>>(), manifest.files().collect::<Vec<_>>());
    assert_eq!(Manifest::parse(written.to_json().unwrap().as_bytes()).unwrap(), written);
    assert!(load(&path, written).is_ok());
}

/// Whatever byte is wrong, the load ends with the file and the chunk, be it that the header cannot even be read.
#[test]
fn a_flipped_bit_stops_the_load() {
    let folder = Scratch::new();
    let len = stories().len();
    let places = [0, 5, 9, 30, 1000, 20_000, 65_535, 65_536, 300_000, 777_777, len - 1];
    for at in places {
        let path = changed(&folder, |bytes| bytes[at] ^= 0x10);
        let error = load(&path, signed()).expect_err("a wrong byte");
        let chunk = format!("{STORIES}, byte {}, chunk {}", at / CHUNK * CHUNK, at / CHUNK);
        assert_eq!(error.kind(), Kind::BadFile);
        assert!(error.to_string().contains(&chunk), "byte {at}: {error}");
        // The guard is what says so: without it most of these load.
        let unverified = engine().load(&path, &LoadOptions::default(), |_| Ok(()));
        assert!(unverified.is_ok() || at < 65_536, "byte {at}");
    }
}

#[test]
fn files_of_another_length_are_refused() {
    let folder = Scratch::new();
    let len = stories().len();
    for change in [-1, 1, CHUNK as i64, -(len as i64 / 2)] {
        let path = changed(&folder, |bytes| bytes.resize((len as i64 + change) as usize, 0));
        let error = load(&path, signed()).expect_err("another length");
        assert_eq!(error.kind(), Kind::BadFile);
        assert!(error.to_string().contains(&format!("{len}")), "{change}: {error}");
    }
    fs::remove_file(folder.join(STORIES)).unwrap();
    assert!(load(&folder.join(STORIES), signed()).is_err());
}

#[test]
fn a_swapped_file_is_refused() {
    let folder = Scratch::new();
    let path = folder.join(STORIES);
    fs::copy(data::fixture("archs/qwen2.gguf"), &path).unwrap();
    assert_eq!(load(&path, signed()).unwrap_err().kind(), Kind::BadFile);
    // The right bytes under another name are another file.
    let other = folder.join("other.gguf");
    fs::write(&other, stories()).unwrap();
    let error = load(&other, signed()).unwrap_err();
    assert!(error.to_string().contains("does not know"), "{error}");
}

#[test]
fn each_file_that_is_read_must_be_known() {
    let folder = Scratch::new();
    for file in fs::read_dir(data::fixture("hf/single")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    let manifest = manifest_of(&folder);
    let refused = |words: &str| {
        let error = load(&folder, manifest.clone()).expect_err(words);
        assert_eq!(error.kind(), Kind::BadFile);
        assert!(error.to_string().contains(words), "{error}");
    };
    assert!(load(&folder, manifest.clone()).is_ok());
    // A file that nobody signed and that would have been read.
    fs::write(folder.join("chat_template.jinja"), "{{ 'obey' }}").unwrap();
    refused("chat_template.jinja");
    fs::remove_file(folder.join("chat_template.jinja")).unwrap();
    // One that was signed and would not be missed.
    let config = folder.join("generation_config.json");
    let content = fs::read(&config).unwrap();
    fs::remove_file(&config).unwrap();
    refused("generation_config.json");
    fs::write(&config, [&content[..content.len() - 1], b" "].concat()).unwrap();
    refused("generation_config.json");
    fs::write(&config, content).unwrap();
    // A file that is not read does not matter.
    fs::write(folder.join("README.md"), "hello").unwrap();
    assert!(load(&folder, manifest).is_ok());
}

#[test]
fn adapters_are_files_like_others() {
    let folder = Scratch::new();
    for name in ["base.gguf", "first.gguf"] {
        fs::copy(data::fixture("lora").join(name), folder.join(name)).unwrap();
    }
    let base = folder.join("base.gguf");
    let load = |adapter: &Path, manifest: &Manifest| {
        let adapters = vec![Adapter { path: adapter.to_owned(), weight: 1.0 }];
        let options = LoadOptions { adapters, verify: Some(manifest.clone()), ..LoadOptions::default() };
        engine().load(&base, &options, |_| Ok(()))
    };
    let files = Files::default();
    Checkpoint::open_with(&files, &base).unwrap();
    let without = Manifest::of(&folder, &files).unwrap();
    pocketlm::model::open_adapter(&files, &folder.join("first.gguf")).unwrap();
    let with = Manifest::of(&folder, &files).unwrap();
    assert!(load(&folder.join("first.gguf"), &with).is_ok());
    assert!(load(&folder.join("first.gguf"), &without).is_err());
    assert!(load(&data::fixture("lora").join("first.gguf"), &with).is_err(), "outside of the folder");
    let mut bytes = fs::read(folder.join("first.gguf")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(folder.join("first.gguf"), bytes).unwrap();
    assert!(load(&folder.join("first.gguf"), &with).unwrap_err().to_string().contains("first.gguf"));
}

#[test]
fn a_signature_is_by_the_key_over_the_file() {
    let json = fs::read(fixture("stories.json")).unwrap();
    let by = |signature: &[u8], key: &str| Manifest::parse_signed(&json, signature, key);
    let (right, key) = (text("stories.json.minisig"), text("key.pub"));
    assert!(by(right.as_bytes(), &key).is_ok());
    // The key alone, as an app pins it.
    assert!(by(right.as_bytes(), key.lines().nth(1).unwrap()).is_ok());
    assert!(by(text("other.minisig").as_bytes(), &text("other.pub")).is_ok());
    let refused = |outcome: Result<Manifest>| outcome.expect_err("refused").kind();
    assert_eq!(refused(by(text("other.minisig").as_bytes(), &key)), Kind::BadFile, "another key");
    assert_eq!(refused(by(right.as_bytes(), &text("other.pub"))), Kind::BadFile, "another key");
    assert_eq!(refused(by(text("legacy.minisig").as_bytes(), &key)), Kind::BadFile, "legacy");
    for key in ["", "not a key", "RWQ", &right] {
        assert_eq!(refused(by(right.as_bytes(), key)), Kind::InvalidArgument, "{key}");
    }
    // Every byte of the manifest counts, white space too, and so does what the signer says of it.
    for at in 0..json.len() {
        let mut other = json.clone();
        other[at] ^= 1;
        assert_eq!(
            refused(Manifest::parse_signed(&other, right.as_bytes(), &key)),
            Kind::BadFile,
            "byte {at}"
        );
    }
    assert_eq!(refused(by(right.replace("for tests", "for real").as_bytes(), &key)), Kind::BadFile);
    // What minisign calls untrusted is no part of it.
    let other = right.replacen("untrusted comment: not looked at", "untrusted comment: obey", 1);
    assert_ne!(other, right);
    assert_eq!(by(other.as_bytes(), &key).unwrap(), signed());
    assert!(
        Manifest::read_signed(data::fixture("stories260k/README.md"), &key).is_err(),
        "no signature beside it"
    );
}

#[test]
fn manifests_that_make_no_sense_are_refused() {
    let sound: Value = serde_json::from_slice(&fs::read(fixture("stories.json")).unwrap()).unwrap();
    let parse = |value: &Value| Manifest::parse(value.to_string().as_bytes());
    assert!(parse(&sound).is_ok());
    let with = |change: &dyn Fn(&mut Value)| {
        let mut value = sound.clone();
        change(&mut value);
        parse(&value).expect_err("refused")
    };
    let kind = |change: &dyn Fn(&mut Value)| with(change).kind();
    let escapes = ["../a", "a/../../b", "/etc/passwd", "a//b", "./a", "a/.", "", "a\\b", "C:a", "a\0b", ".."];
    for name in escapes {
        let error: Error = with(&|value| value["files"][0]["name"] = name.into());
        assert!(
            error.kind() == Kind::BadFile && error.to_string().contains("does not stay"),
            "{name:?}: {error}"
        );
    }
    let twice = |value: &mut Value| {
        let first = value["files"][0].clone();
        value["files"].as_array_mut().unwrap().push(first);
    };
    let changes: [&dyn Fn(&mut Value); 12] = [
        &twice,
        &|value| value["files"] = json!([]),
        &|value| value["pocketlm_manifest"] = 0.into(),
        &|value| value["chunk_bytes"] = 0.into(),
        &|value| value["chunk_bytes"] = 1.into(),
        &|value| value["chunk_bytes"] = u64::MAX.into(),
        &|value| value["files"][0]["bytes"] = u64::MAX.into(),
        &|value| value["files"][0]["chunks"] = json!([]),
        &|value| value["files"][0]["chunks"][0] = "00".into(),
        &|value| value["files"][0]["chunks"][0] = "G".repeat(64).into(),
        &|value| value["more"] = 1.into(),
        &|value| value["files"][0]["more"] = 1.into(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert_eq!(kind(change), Kind::BadFile, "change {number}");
    }
    assert_eq!(kind(&|value| value["pocketlm_manifest"] = 2.into()), Kind::Unsupported);
    let long = [b"{\"pocketlm_manifest\": 1".to_vec(), vec![b' '; 17 << 20], b"}".to_vec()].concat();
    assert_eq!(Manifest::parse(&long).unwrap_err().kind(), Kind::BadFile);
}

/// A device that comes back reads the weights again: they are held against the manifest again.
#[test]
fn weights_that_are_read_again_are_verified_again() {
    let folder = Scratch::new();
    let path = changed(&folder, |_| ());
    let engine = engine();
    let options = LoadOptions { verify: Some(signed()), ..LoadOptions::default() };
    let model = engine.load(&path, &options, |_| Ok(())).unwrap();
    let few = GenerateOptions { max_tokens: Some(3), ..GenerateOptions::default() };
    let tell =
        || model.session().generate(&Prompt::Raw("Once".into()), &few).and_then(|stream| stream.finish());
    let release = || {
        engine.suspend(Suspend { release: true, ..Suspend::default() });
        engine.tick(std::time::Duration::ZERO).unwrap();
    };
    release();
    engine.resume();
    assert!(tell().is_ok());
    release();
    let mut bytes = stories();
    bytes[600_000] ^= 1;
    // In place: the file is mapped.
    use std::io::{Seek, Write};
    let mut file = fs::File::options().write(true).open(&path).unwrap();
    file.seek(std::io::SeekFrom::Start(600_000)).unwrap();
    file.write_all(&bytes[600_000..600_001]).unwrap();
    engine.resume();
    let error = tell().expect_err("weights that nobody signed");
    assert!(error.kind() == Kind::BadFile && error.to_string().contains("chunk 9"), "{error}");
}

#[cfg(feature = "cli")]
#[test]
fn the_program_writes_and_takes_manifests() {
    use crate::program::{End, pocketlm};
    let folder = Scratch::new();
    let path = changed(&folder, |_| ());
    let path_text = path.to_str().unwrap();
    let run = |words: &[&str]| End::of(&pocketlm(&folder, words).output().unwrap());
    let manifest = format!("{path_text}.manifest.json");
    assert_eq!(run(&["manifest", path_text]).fine(), manifest);
    let (signed, key) = (fixture("stories.json"), fixture("key.pub"));
    let tell = |more: &[&str]| {
        let words = ["generate", "-m", path_text, "--device", "cpu", "-p", "Once", "-n", "3"];
        run(&[&words, more].concat())
    };
    assert_eq!(tell(&["--verify", &manifest]).code, Some(0));
    let by_key = ["--verify", signed.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let end = tell(&by_key);
    assert!(end.code == Some(0) && end.stderr.contains("signed: stories, for tests"), "{end:?}");
    tell(&["--verify", &manifest, "--key", key.to_str().unwrap()]).fails(3, &["minisig"]);
    changed(&folder, |bytes| bytes[900_000] ^= 4);
    tell(&["--verify", &manifest]).fails(3, &[STORIES, "chunk 0", "manifest"]);
    tell(&by_key).fails(3, &[STORIES, "chunk 13"]);
    assert_eq!(tell(&[]).code, Some(0), "nobody asked");
}
