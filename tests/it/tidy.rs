//! The rules of the house that a machine can check: which room may name which, what stands where.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pocketlm::Format;
use pocketlm::kernel::KernelId;

/// The rooms, from the ground up. A file may name its own room and those of lower rank; `error` lies under
/// `base`, which the house counts as the same floor.
const RANKS: &[(&str, usize)] = &[
    ("error", 0),
    ("base", 1),
    ("quant", 2),
    ("format", 3),
    ("kernel", 4),
    ("text", 4),
    ("sample", 4),
    ("plan", 5),
    ("model", 6),
    ("backend", 6),
    ("engine", 7),
    ("models", 8),
];

/// Files that may hold `unsafe`.
const UNSAFE_FILES: &[&str] = &[
    "bindings/c/src/condense.rs",
    "bindings/c/src/conversation.rs",
    "bindings/c/src/engine.rs",
    "bindings/c/src/estimate.rs",
    "bindings/c/src/input.rs",
    "bindings/c/src/model.rs",
    "bindings/c/src/options.rs",
    "bindings/c/src/prompt.rs",
    "bindings/c/src/rounds.rs",
    "bindings/c/src/session.rs",
    "bindings/c/src/status.rs",
    "bindings/c/src/stream.rs",
    "bindings/c/src/tools.rs",
    "src/backend/cpu/pool.rs",
    "src/backend/cpu/simd/avx2.rs",
    "src/backend/cpu/simd/neon.rs",
    "src/backend/wgpu/cache.rs",
    "src/backend/wgpu/device.rs",
    "src/backend/wgpu/pipelines.rs",
    "src/base/bytes.rs",
];

/// The only file that submits to the GPU's queue.
const SUBMITTER: &str = "src/backend/wgpu/submit.rs";

const LINE_LIMIT: usize = 600;

#[test]
fn the_stair_goes_one_way() {
    report(each("src", "rs").iter().flat_map(|(path, source)| stair(path, source)));
}

#[test]
fn an_import_that_goes_up_is_seen() {
    let planted: &[(&str, &str, &str)] = &[
        ("src/kernel/rope.rs", "use crate::engine::Engine;", "src/kernel/rope.rs:1 names engine"),
        ("src/kernel/mod.rs", "\nuse crate::text::Tokenizer;", "src/kernel/mod.rs:2 names text"),
        ("src/model/lower.rs", "let x = crate::backend::cpu::new();", "names backend"),
        ("src/plan/mod.rs", "use crate::{base::Bytes, model::{Linear, Slot}};", "names model"),
        (
            "src/plan/mod.rs",
            "use crate::{\n    base::Bytes,\n    engine,\n};",
            "src/plan/mod.rs:1 names engine",
        ),
        ("src/quant/q4_0.rs", "use super::super::plan::Plan;", "names plan"),
        ("src/plan/mod.rs", "use super::engine::Engine;", "names engine"),
        ("src/base/mod.rs", "#[cfg(test)]\nmod tests {\n use crate::quant::Format;\n}", "names quant"),
        ("src/error.rs", "use crate::base::Bytes;", "names base"),
        ("src/format/mod.rs", "fn f() -> crate::Kind {}", "names the front door (Kind)"),
        ("src/format/mod.rs", "use crate::*;", "names the front door (*)"),
        ("src/attic/mod.rs", "", "is in no room"),
    ];
    for (path, source, expected) in planted {
        let said = stair(Path::new(path), source);
        assert!(said.len() == 1 && said[0].contains(expected), "{path}, {source:?}: {said:?}");
    }
    let fine: &[(&str, &str)] = &[
        ("src/engine/mod.rs", "use crate::{model::Model, backend, error::{Error, Kind}};"),
        ("src/plan/mod.rs", "// crate::engine and\n/* crate::model::Linear */ let s = \"crate::engine\";"),
        ("src/plan/mod.rs", "//! [`crate::Kind`]\nuse crate::plan::Step;"),
        ("src/quant/q4_0.rs", "use super::Layout;\nmod tests { use super::super::Format; }"),
        ("src/model/arch/llama.rs", "use super::super::Linear; pub(in crate::model) fn f() {}"),
        ("src/lib.rs", "pub use crate::engine::Engine;"),
        ("src/bin/pocketlm/main.rs", "use crate::args;"),
    ];
    for (path, source) in fine {
        let said = stair(Path::new(path), source);
        assert!(said.is_empty(), "{path}: {said:?}");
    }
}

/// Who stands outside sees the front door, and no room.
#[test]
fn who_stands_outside_names_no_room() {
    let outside = each("bindings", "rs").into_iter().chain(each("apps", "rs"));
    report(outside.flat_map(|(path, source)| peeks(&path, &source)));
    let planted = "use pocketlm::{Engine, engine::Signal};\nlet x = pocketlm::plan::Plan::new();";
    assert_eq!(peeks(Path::new("bindings/c/src/lib.rs"), planted).len(), 2);
    let fine = "use pocketlm::{Error, models}; // pocketlm::plan\npocketlm::Engine::new();";
    assert!(peeks(Path::new("bindings/c/src/lib.rs"), fine).is_empty());
}

#[test]
fn only_the_doors_read_the_environment_and_one_file_submits() {
    report(each("src", "rs").iter().flat_map(|(path, source)| reach(path, source)));
    let planted = "fn f() { queue.submit([]); std::env::var_os(\"HOME\"); }";
    assert_eq!(reach(Path::new("src/backend/wgpu/mod.rs"), planted).len(), 2);
    assert_eq!(reach(Path::new(SUBMITTER), planted).len(), 1);
    for door in ["src/bin/pocketlm/main.rs", "src/models/hub.rs"] {
        assert!(reach(Path::new(door), "env::var(\"A\")").is_empty(), "{door}");
    }
}

#[test]
fn files_are_short() {
    let of_rust = each("src", "rs").into_iter().chain(each("tests", "rs")).chain(each("bindings", "rs"));
    let of_rust = of_rust.chain(each("apps", "rs"));
    report(of_rust.chain(each("shaders", "wgsl")).filter_map(|(path, source)| too_long(&path, &source)));
    assert!(too_long(Path::new("a.rs"), &"\n".repeat(LINE_LIMIT)).is_none());
    assert!(too_long(Path::new("a.rs"), &"\n".repeat(LINE_LIMIT + 1)).is_some());
}

/// A file that no other names is neither compiled nor tested, and nobody hears of it.
#[test]
fn every_file_is_compiled() {
    let bindings = each("bindings/c/src", "rs").into_iter().chain(each("bindings/ffi/src", "rs"));
    let apps = each("apps/desktop/src", "rs").into_iter().chain(each("apps/desktop/tests", "rs"));
    let outside = bindings.chain(apps);
    let files: Vec<_> = each("src", "rs").into_iter().chain(each("tests/it", "rs")).chain(outside).collect();
    report(lost(&files));
    let planted = [
        ("src/lib.rs", "mod a;"),
        ("src/a/mod.rs", "list! { b, } // c"),
        ("src/a/b.rs", ""),
        ("src/a/c.rs", ""),
    ];
    let planted = planted.map(|(path, source)| (PathBuf::from(path), source.to_owned()));
    assert_eq!(lost(&planted), ["src/a/c.rs is named by no file beside it"]);
}

#[test]
fn unsafe_is_rare_named_and_explained() {
    let sources = each("src", "rs").into_iter().chain(each("bindings", "rs")).chain(each("apps", "rs"));
    report(sources.flat_map(|(path, source)| unsafety(&path, &source)));
    for file in UNSAFE_FILES {
        assert!(
            code(&read(&root().join(file))).contains("unsafe"),
            "{file} has no unsafe any more: strike it"
        );
    }
    let named = Path::new("src/base/bytes.rs");
    assert_eq!(unsafety(Path::new("src/plan/mod.rs"), "// SAFETY: planted.\nunsafe { f() }").len(), 1);
    assert_eq!(unsafety(named, "let x = unsafe { f() };").len(), 1);
    assert!(unsafety(named, "// SAFETY: planted.\nlet x = unsafe { f() }; // \"unsafe\"").is_empty());
    assert!(unsafety(named, "#[unsafe(no_mangle)]\npub unsafe extern \"C\" fn f() {}").is_empty());
    assert_eq!(unsafety(Path::new("src/plan/mod.rs"), "#[unsafe(no_mangle)]\npub fn f() {}").len(), 1);
    assert!(unsafety(named, "/// # Safety\n/// Planted.\npub unsafe fn f() {}").is_empty());
}

#[test]
fn shaders_have_their_homes() {
    let kernels = KernelId::ALL.iter().map(|id| id.kernel().name.to_owned()).collect();
    let formats: BTreeSet<_> = Format::ALL.iter().map(|format| format.name().to_owned()).collect();
    report(stems_differ("shaders", &stems("shaders"), &kernels));
    // Formats of one GPU order share a shader, which has the name of one of them.
    let decoders: BTreeSet<_> = each("shaders/quant", "wgsl")
        .into_iter()
        .filter(|(_, source)| Format::ALL.iter().any(|format| format.wgsl().contains(source)))
        .filter_map(|(path, _)| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    report(stems_differ("shaders/quant", &stems("shaders/quant"), &decoders));
    report(decoders.difference(&formats).map(|name| format!("shaders/quant/{name}.wgsl has no format")));
    report(kernels.difference(&stems("src/kernel")).map(|name| format!("src/kernel/{name}.rs is missing")));
    report(formats.difference(&stems("src/quant")).map(|name| format!("src/quant/{name}.rs is missing")));
    let set = |stems: &[&str]| stems.iter().map(|stem| (*stem).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(stems_differ("planted", &set(&["a", "b_x"]), &set(&["b"])).len(), 2);
    assert!(stems_differ("planted", &set(&["b", "b_x"]), &set(&["b"])).is_empty());
}

#[test]
fn no_file_names_a_machine() {
    let mut files = Vec::new();
    for folder in
        ["src", "shaders", "tests", "docs", "benches", "examples", "fuzz", "bindings", "apps", ".ci"]
    {
        walk(&root().join(folder), &mut files);
    }
    // Where the tree is a linked one, `.git` is a file that says where the repository lies.
    files.extend(entries(&root()).into_iter().filter(|path| path.is_file() && !path.ends_with(".git")));
    report(files.iter().filter_map(|path| {
        let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let place = machine_path(&String::from_utf8_lossy(&text))?;
        Some(format!("{} names {place}", path.display()))
    }));
    assert_eq!(machine_path(&["see /ho", "me/someone/x"].concat()), Some(["/ho", "me/"].concat()));
    assert_eq!(machine_path("see ~/.cache and https://example.org/homepage"), None);
}

/// Paths of `source` that `path` may not name, each with its line.
fn stair(path: &Path, source: &str) -> Vec<String> {
    let room = path.iter().nth(1).and_then(|part| part.to_str()).unwrap_or_default().trim_end_matches(".rs");
    if matches!(room, "lib" | "bin") {
        return Vec::new();
    }
    let Some(own) = rank(room) else { return vec![format!("{} is in no room", path.display())] };
    let code = code(source);
    let mut found = Vec::new();
    for (at, name) in roots(&code) {
        let line = code[..at].matches('\n').count() + 1;
        let place = format!("{}:{line}", path.display());
        match rank(&name) {
            Some(other) if name == room || other < own => {}
            Some(_) => found.push(format!("{place} names {name}, which does not lie below {room}")),
            None => found.push(format!("{place} names the front door ({name}); name the room")),
        }
    }
    found
}

fn peeks(path: &Path, source: &str) -> Vec<String> {
    let code = code(source);
    let places = code.match_indices("pocketlm::");
    let names = places.flat_map(|(at, found)| first_names(&code[at + found.len()..]));
    let rooms = names.filter(|name| name != "models" && rank(name).is_some());
    rooms.map(|name| format!("{} names the room {name}", path.display())).collect()
}

fn rank(room: &str) -> Option<usize> {
    RANKS.iter().find(|(name, _)| *name == room).map(|(_, rank)| *rank)
}

/// What follows `crate::`, and rooms that follow `super::`, each with its place.
fn roots(code: &str) -> Vec<(usize, String)> {
    let after = |prefix: &'static str| {
        let places = code.match_indices(prefix).filter(|(at, _)| {
            let before = code[..*at].chars().next_back().unwrap_or(' ');
            !before.is_alphanumeric() && !matches!(before, '_' | '$')
        });
        places.flat_map(move |(at, _)| {
            first_names(&code[at + prefix.len()..]).into_iter().map(move |name| (at, name))
        })
    };
    after("crate::").chain(after("super::").filter(|(_, name)| rank(name).is_some())).collect()
}

/// `a` of `a::b`, and `a` and `c` of `{a::b, c}`.
fn first_names(rest: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        let text = text.trim_start();
        text.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '*')).collect()
    };
    let Some(group) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let mut names = vec![word(group)];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(word(&group[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn reach(path: &Path, source: &str) -> Vec<String> {
    let code = code(source);
    let mut found = Vec::new();
    if path != Path::new(SUBMITTER) && code.contains("queue.submit(") {
        found.push(format!("{} submits to the queue; only {SUBMITTER} does", path.display()));
    }
    let is_door = path.starts_with("src/bin") || path.starts_with("src/models");
    if !is_door && code.contains("env::var") {
        found.push(format!("{} reads the environment; only doors do", path.display()));
    }
    found
}

fn unsafety(path: &Path, source: &str) -> Vec<String> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (number, line) in code(source).lines().enumerate() {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        if !words.any(|word| word == "unsafe") {
            continue;
        }
        let place = format!("{}:{}", path.display(), number + 1);
        if !UNSAFE_FILES.iter().any(|file| Path::new(file) == path) {
            found.push(format!("{place} is unsafe, and the file is not in UNSAFE_FILES"));
        }
        // A door of the C interface: the header says what its callers promise.
        if line.contains("#[unsafe(no_mangle)]") || line.contains("unsafe extern ") {
            continue;
        }
        let before = &lines[number.saturating_sub(12)..number];
        if !before.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
            found.push(format!("{place} does not say why it is safe"));
        }
    }
    found
}

/// Files whose name no root of their folder has.
fn lost(files: &[(PathBuf, String)]) -> Vec<String> {
    const ROOTS: [&str; 3] = ["mod.rs", "main.rs", "lib.rs"];
    let is_named = |path: &Path| {
        let is_root = ROOTS.iter().any(|root| path.ends_with(root));
        let named = if is_root { path.parent().unwrap_or(path) } else { path };
        let (stem, folder) = (named.file_stem().unwrap_or_default(), named.parent().unwrap_or(named));
        let roots: Vec<_> =
            files.iter().filter(|(root, _)| ROOTS.iter().any(|name| *root == folder.join(name))).collect();
        // The roots of crates are named by Cargo.
        roots.is_empty()
            || roots.iter().any(|(_, source)| {
                code(source).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| stem == word)
            })
    };
    let lost = files.iter().filter(|(path, _)| !is_named(path));
    lost.map(|(path, _)| format!("{} is named by no file beside it", path.display())).collect()
}

fn too_long(path: &Path, source: &str) -> Option<String> {
    let lines = source.lines().count();
    (lines > LINE_LIMIT).then(|| format!("{} has {lines} lines; split it", path.display()))
}

/// A shader is called as what it belongs to, or as that and a variant: `matvec`, `matvec_subgroup`.
fn stems_differ(folder: &str, here: &BTreeSet<String>, due: &BTreeSet<String>) -> Vec<String> {
    let is_variant = |stem: &str| stem.match_indices('_').any(|(at, _)| due.contains(&stem[..at]));
    let missing = due.difference(here).map(|stem| format!("{folder}/{stem}.wgsl is missing"));
    let extra = here.difference(due).filter(|stem| !is_variant(stem));
    missing.chain(extra.map(|stem| format!("{folder}/{stem}.wgsl belongs to nothing in the list"))).collect()
}

/// A folder that exists on one machine only, named in `text`.
fn machine_path(text: &str) -> Option<String> {
    // In pieces, so that this file does not name them.
    let places = [["/wo", "rk/"], ["/ho", "me/"], ["/ro", "ot/"], ["/tm", "p/"], ["/Us", "ers/"]];
    places.iter().map(|pieces| pieces.concat()).find(|place| {
        text.match_indices(place.as_str()).any(|(at, _)| {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            !before.is_alphanumeric() && !matches!(before, '.' | '~' | '_' | '-' | '}')
        })
    })
}

/// `source` with comments and the content of strings blanked; every byte keeps its place.
fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + blank_len(&bytes[at..], at.checked_sub(1).map(|before| bytes[before]));
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(code).expect("only whole tokens were blanked")
}

/// Bytes of the comment or literal that `rest` starts with; 0 where it starts with code.
fn blank_len(rest: &[u8], before: Option<u8>) -> usize {
    let find = |needle: &[u8], from: usize| {
        let place = rest[from..].windows(needle.len()).position(|window| window == needle);
        place.map_or(rest.len(), |place| from + place + needle.len())
    };
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match rest {
        [b'/', b'/', ..] => find(b"\n", 2),
        [b'/', b'*', ..] => find(b"*/", 2),
        [b'"', ..] => quoted_len(rest, b'"'),
        [b'r', b'"' | b'#', ..] if !in_word || before == Some(b'b') => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            match rest.get(1 + hashes) {
                Some(b'"') => find(&[b"\"".as_slice(), &b"#".repeat(hashes)].concat(), 2 + hashes),
                _ => 0,
            }
        }
        // A character, not a lifetime.
        [b'\'', b'\\', ..] => quoted_len(rest, b'\''),
        [b'\'', b'"' | b'/', b'\'', ..] => 3,
        _ => 0,
    }
}

fn quoted_len(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn report(found: impl IntoIterator<Item = String>) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "\n  {}\n", found.join("\n  "));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files with an extension under a folder of the repository: path from the root, content.
fn each(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    assert!(!paths.is_empty(), "nothing under {folder}");
    let from_root =
        |path: &PathBuf| path.strip_prefix(root()).expect("it was found under the root").to_owned();
    paths.iter().map(|path| (from_root(path), read(path))).collect()
}

fn stems(folder: &str) -> BTreeSet<String> {
    let files = entries(&root().join(folder)).into_iter().filter(|path| path.is_file());
    files.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        match path.is_dir() {
            true => walk(&path, files),
            false => files.push(path),
        }
    }
}

/// What lies in a folder, in order; nothing where it is not there.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a folder that can be read").path()).collect();
    paths.sort();
    paths
}
