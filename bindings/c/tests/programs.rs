//! Programs in C and C++ against the library: `tests/c`, compiled with every warning an error, run as they are, under the
//! address and undefined-behaviour sanitizers, and under valgrind. The small model is the repository's; the real one is
//! named by `POCKETLM_TEST_MODEL`.
#![allow(clippy::print_stdout, reason = "what a model says is worth reading")]

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use pocketlm::{Device, Engine, EngineOptions, GenerateOptions, LoadOptions, Prompt, Sampling};

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];
const SANITIZERS: [&str; 3] =
    ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn small_model() -> PathBuf {
    root().join("../../tests/fixtures/stories260k/stories260K-f32.gguf")
}

/// Where Cargo has put the library.
fn library() -> PathBuf {
    let program = std::env::current_exe().expect("this program has a place");
    let folder = program.parent().expect("it lies in a folder").to_owned();
    assert!(folder.join("libpocketlm_c.a").exists(), "no libpocketlm_c.a in {}", folder.display());
    folder
}

/// Runs a command, which has to end well, and gives what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{complained}", output.status);
    said
}

/// Compiles a program of `tests/c`.
fn compile(source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let (compiler, standard) =
        if source.ends_with(".cpp") { ("c++", "-std=c++17") } else { ("cc", "-std=c11") };
    let mut command = Command::new(compiler);
    command.args([standard, "-g", "-D_POSIX_C_SOURCE=200809L"]).args(WARNINGS).args(flags);
    command.arg("-I").arg(root().join("include")).arg(root().join("tests/c").join(source));
    command.arg(library().join("libpocketlm_c.a")).args(["-lpthread", "-ldl", "-lm", "-o"]).arg(&program);
    run(&mut command);
    program
}

/// What Rust answers: tokens with commas.
fn answer(sampling: Sampling, count: u32) -> String {
    let options =
        EngineOptions { device: Device::Cpu, exact: true, threads: Some(2), ..EngineOptions::default() };
    let model = Engine::new(options).load(small_model(), &LoadOptions::default(), |_| Ok(()));
    let options = GenerateOptions { max_tokens: Some(count), sampling, ..GenerateOptions::default() };
    let prompt = Prompt::Raw("Once upon a time".into());
    let finish = model.unwrap().session().generate(&prompt, &options).unwrap().finish().unwrap();
    finish.tokens.iter().fold(String::new(), |mut list, token| {
        let comma = if list.is_empty() { "" } else { "," };
        write!(list, "{comma}{token}").expect("a string can be written");
        list
    })
}

fn laws(program: &mut Command, name: &str) {
    let seeded = Sampling {
        temperature: Some(1.0),
        top_k: Some(40),
        repeat_penalty: Some(1.1),
        seed: Some(7),
        ..Sampling::default()
    };
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.session"));
    program.arg(small_model()).arg(&scratch);
    program.args([answer(Sampling::default(), 60), answer(seeded, 40)]);
    assert_eq!(run(program), "laws: ok\n");
    std::fs::remove_file(scratch).expect("a session was saved");
}

fn misuse(program: &mut Command) {
    assert_eq!(run(program.arg(small_model())), "misuse: ok\n");
}

/// The program under valgrind: what it loses or reads wrongly is a failure.
fn valgrind(program: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]);
    command.arg(program);
    command
}

#[test]
fn the_laws_hold_through_c() {
    laws(&mut Command::new(compile("laws.c", "laws", &["-O1"])), "laws");
}

#[test]
fn the_laws_hold_under_sanitizers() {
    laws(&mut Command::new(compile("laws.c", "laws-sanitized", &SANITIZERS)), "laws-sanitized");
}

#[test]
fn misuse_is_refused_under_sanitizers() {
    misuse(&mut Command::new(compile("misuse.c", "misuse-sanitized", &SANITIZERS)));
}

#[test]
fn misuse_is_refused_under_valgrind() {
    misuse(&mut valgrind(&compile("misuse.c", "misuse", &["-O1"])));
}

#[test]
fn the_laws_hold_under_valgrind() {
    laws(&mut valgrind(&compile("laws.c", "laws-valgrind", &["-O1"])), "laws-valgrind");
}

#[test]
fn a_fault_is_seen_by_the_sanitizers_and_by_valgrind() {
    let sanitized = compile("fault.c", "fault-sanitized", &SANITIZERS);
    let told = Command::new(sanitized).output().expect("the program runs");
    assert!(String::from_utf8_lossy(&told.stderr).contains("heap-use-after-free"), "{told:?}");
    let told = valgrind(&compile("fault.c", "fault", &["-O1"])).output().expect("valgrind runs");
    assert_eq!(told.status.code(), Some(9), "{told:?}");
}

#[test]
fn the_header_is_cpp() {
    run(&mut Command::new(compile("header.cpp", "header", &SANITIZERS)));
    // And its declarations alone are C11, without what POSIX adds.
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alone.c");
    std::fs::write(&source, "#include <pocketlm.h>\nint main(void) { return 0; }\n")
        .expect("it can be written");
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-fsyntax-only"]).args(WARNINGS).arg("-I").arg(root().join("include"));
    run(command.arg(source));
}

fn real_model() -> OsString {
    std::env::var_os("POCKETLM_TEST_MODEL").expect("POCKETLM_TEST_MODEL names the real model")
}

#[test]
fn a_real_model_has_tools_called_and_its_conversation_made_shorter() {
    let said = run(Command::new(compile("tools.c", "tools-sanitized", &SANITIZERS)).arg(real_model()));
    assert!(said.ends_with("tools: ok\n"), "{said}");
    print!("{said}");
}

/// With the real model, on the CPU under the sanitizers and on a GPU without: drivers lose memory of their own.
#[test]
fn a_real_model_talks() {
    let model = real_model();
    let said =
        run(Command::new(compile("chat.c", "chat-sanitized", &SANITIZERS)).arg(&model).args(["2", "8"]));
    assert!(said.starts_with("on ") && said.ends_with("chat: ok\n"), "{said}");
    print!("{said}");
    if std::env::var_os("POCKETLM_NO_GPU").is_none() {
        print!("{}", run(Command::new(compile("chat.c", "chat", &["-O1"])).arg(&model).args(["1", "8"])));
    }
}
