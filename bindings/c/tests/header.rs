//! `include/pocketlm.h` is what `src` says. `POCKETLM_WRITE_HEADER=1 cargo test -p pocketlm-c` writes it.

use std::fs;
use std::path::Path;

fn header(root: &Path) -> String {
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml can be read");
    let bindings = cbindgen::Builder::new().with_crate(root).with_config(config).generate();
    let mut header = Vec::new();
    bindings.expect("the doors can be written in C").write(&mut header);
    String::from_utf8(header).expect("a header is text")
}

#[test]
fn the_header_is_what_the_source_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (path, made) = (root.join("include/pocketlm.h"), header(root));
    if std::env::var_os("POCKETLM_WRITE_HEADER").is_some() {
        fs::write(&path, &made).expect("the header can be written");
    }
    let committed = fs::read_to_string(&path).expect("the header is there");
    let differs = made.lines().zip(committed.lines()).position(|(made, committed)| made != committed);
    assert!(
        made == committed,
        "include/pocketlm.h is not what src says, from line {} on; POCKETLM_WRITE_HEADER=1 writes it",
        1 + differs.unwrap_or(made.lines().count().min(committed.lines().count()))
    );
}

/// Each function that C can call, by file, and whether all that it does is behind `door`.
fn doors(source: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for part in source.split("#[unsafe(no_mangle)]\n").skip(1) {
        let name = part.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap_or_default();
        let body = part.split_once("{\n").map_or("", |(_, body)| body);
        let body = body.split_once("\n}\n").map_or(body, |(body, _)| body);
        let lines: Vec<&str> = body.lines().map(str::trim).filter(|line| !line.starts_with("//")).collect();
        let is_behind = lines.first().is_some_and(|line| line.starts_with("door(|| "));
        found.push((name.to_owned(), is_behind));
    }
    found
}

#[test]
fn every_door_that_can_fail_catches_what_unwinds() {
    // They compute nothing: numbers, literals, fields.
    const PLAIN: &[&str] = &[
        "plm_abi_version",
        "plm_version",
        "plm_status_name",
        "plm_last_error",
        "plm_last_error_message",
        "plm_text_of",
    ];
    let mut count = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("src is there") {
        let path = entry.expect("a file").path();
        for (name, is_behind) in doors(&fs::read_to_string(&path).expect("source is text")) {
            let is_plain = PLAIN.contains(&name.as_str())
                || name.ends_with("_default")
                || name.starts_with("plm_prompt_");
            assert!(is_behind != is_plain, "{name} in {}: is it behind `door`?", path.display());
            count += 1;
        }
    }
    assert!(count > 40, "only {count} doors were seen");
    let planted = "#[unsafe(no_mangle)]\npub extern \"C\" fn plm_open(\n) -> i32 {\n    1\n}\n";
    assert_eq!(doors(planted), [("plm_open".to_owned(), false)]);
}
