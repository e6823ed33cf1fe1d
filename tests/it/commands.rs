//! The commands that compute, as a user types them: what they print, in which form, and how they end.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::data::{self, Scratch, fixture, real_model};
use crate::program::{End, pocketlm};

fn stories() -> String {
    text_of(&fixture("stories260k/stories260K-f32.gguf"))
}

fn smollm2() -> String {
    text_of(&real_model())
}

fn text_of(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// Runs a command to its end.
fn run(words: &[&str]) -> End {
    let cache = Scratch::new();
    End::of(&pocketlm(&cache, words).output().expect("the program starts"))
}

/// What a command with `--json` prints on the CPU.
fn object(words: &[&str]) -> Value {
    let end = run(words);
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(end.stdout.lines().count(), 1, "one object and nothing else: {end:?}");
    serde_json::from_str(&end.stdout).expect("JSON")
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn every_device_tells_the_same_story() {
    let stories = stories();
    let tell = |device, exact: &[&str]| {
        let words = ["generate", "-m", &stories, "-p", "", "-n", "200", "--json", "--device", device];
        let mut report = object(&[&words, exact].concat());
        assert_eq!(
            report["device"]["backend"] == "cpu",
            device == "cpu",
            "a device that nobody asked for: {report}"
        );
        assert_eq!(report["tokens"].as_array().map(Vec::len), Some(200));
        assert_eq!(report["prompt_tokens"], json!([1]), "only the beginning of a text");
        report["text"].take()
    };
    let story = tell("cpu", &["--exact"]);
    let begins =
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.";
    assert!(story.as_str().expect("a text").starts_with(begins), "{story}");
    assert_eq!(tell("cpu", &[]), story);
    #[cfg(feature = "wgpu")]
    {
        assert_eq!(tell("gpu", &["--exact"]), story);
        assert_eq!(tell("gpu", &[]), story);
    }
}

#[test]
fn generate_reports_in_json_what_it_prints() {
    let words = ["generate", "-m", &stories(), "--device", "cpu", "-p", "Tim was", "-n", "20"];
    let report = object(&[&words[..], &["--json"]].concat());
    assert_eq!(
        keys(&report),
        [
            "device",
            "finish_reason",
            "prompt_tokens",
            "recoveries",
            "slices",
            "text",
            "timings",
            "tokens",
            "tool_calls"
        ]
    );
    assert_eq!(keys(&report["slices"]), ["count", "max_ms", "p50_ms", "p95_ms"]);
    assert_eq!(keys(&report["device"]), ["backend", "name"]);
    let (rates, counts) = (
        ["decode_tok_s", "load_ms", "prefill_tok_s", "ttft_ms"],
        ["accepted_tokens", "cached_tokens", "guessed_tokens"],
    );
    let timings = &report["timings"];
    assert_eq!(keys(timings).len(), rates.len() + counts.len());
    assert_eq!(report["finish_reason"], "length");
    assert!(rates.iter().all(|rate| timings[rate].as_f64().unwrap() > 0.0));
    assert!(counts.iter().all(|count| timings[count] == 0));
    let end = run(&words);
    assert_eq!((end.code, end.stdout.trim_end()), (Some(0), report["text"].as_str().unwrap().trim_end()));

    // A stop string ends the text before it; a seed repeats a draw; ids and a file stand for a text.
    let stopped = object(&[&words[..], &["--json", "--stop", "."]].concat());
    let until = report["text"].as_str().unwrap().split('.').next();
    assert_eq!((&stopped["finish_reason"], stopped["text"].as_str()), (&json!("stop"), until));
    let drawn = |seed| object(&[&words[..], &["--json", "--temp", "1", "--seed", seed]].concat());
    assert_eq!(drawn("7")["tokens"], drawn("7")["tokens"]);
    assert_ne!(drawn("7")["tokens"], drawn("8")["tokens"]);
    let ids: Vec<String> =
        report["prompt_tokens"].as_array().unwrap().iter().map(ToString::to_string).collect();
    let of = |flag, value: &str| {
        object(&["generate", "-m", &stories(), "--device", "cpu", flag, value, "-n", "20", "--json"])
    };
    assert_eq!(of("--ids", &ids.join(","))["tokens"], report["tokens"]);
    let scratch = Scratch::new();
    let file = scratch.join("prompt");
    fs::write(&file, "Tim was").unwrap();
    assert_eq!(of("-f", &text_of(&file))["tokens"], report["tokens"]);
}

#[test]
fn a_question_is_answered_and_a_conversation_remembered() {
    let model = smollm2();
    let common = ["chat", "-m", &model, "--device", "cpu", "--temp", "0", "-n", "24"];
    let one = run(&[&common[..], &["What is the capital of France?"]].concat());
    assert_eq!(one.code, Some(0), "{one:?}");
    assert!(one.stdout.contains("Paris"), "{one:?}");
    assert!(one.stderr.contains("note: computing on CPU"), "what was chosen is said: {one:?}");

    let cache = Scratch::new();
    let mut child = pocketlm(&cache, &common)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines =
        "What is the capital of France?\n/stats\n/nonsense\nWhat country is it in?\n/reset\n\n/quit\n";
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let talk = End::of(&child.wait_with_output().unwrap());
    assert_eq!(talk.code, Some(0), "{talk:?}");
    let said: Vec<&str> = talk.stdout.lines().collect();
    assert_eq!(said[0], one.stdout.trim_end(), "{talk:?}");
    assert!(said[1].contains("tokens of the context are used"), "{talk:?}");
    assert!(said[2..].iter().any(|line| line.contains("France")), "the first turn is forgotten: {talk:?}");
    assert!(talk.stderr.contains("note: /nonsense is no command"), "{talk:?}");
    assert!(talk.stderr.contains("note: the conversation begins anew"), "{talk:?}");
}

#[test]
fn prompts_are_the_oracles() {
    let bytes = fs::read(data::shared("smollm2/oracle.json")).unwrap();
    let oracles: Vec<Value> = serde_json::from_slice(&bytes).unwrap();
    let fox = &oracles[1];
    let prompt = fox["prompt"].as_str().expect("a prompt");
    let words = ["generate", "-m", &smollm2(), "--device", "cpu", "--raw", "-p", prompt, "-n", "5", "--json"];
    let report = object(&words);
    assert_eq!(report["prompt_tokens"], fox["prompt_ids"]);
    assert_eq!(report["tokens"].as_array().unwrap()[..], fox["greedy_ids"].as_array().unwrap()[..5]);
}

#[test]
fn positions_are_scored() {
    let words = ["score", "-m", &stories(), "--device", "cpu", "-p", "Once upon a", "--json", "--top", "3"];
    let report = object(&words);
    assert_eq!(keys(&report), ["positions"]);
    let positions = report["positions"].as_array().unwrap();
    let tokens = object(&["tokenize", "-m", &stories(), "-p", "Once upon a", "--json"]);
    let scored: Vec<&Value> = positions.iter().map(|position| &position["token"]).collect();
    assert_eq!(scored, tokens["tokens"].as_array().unwrap().iter().collect::<Vec<_>>());
    for position in positions {
        let top: Vec<(u32, f64)> = serde_json::from_value(position["top"].clone()).unwrap();
        assert_eq!(top.len(), 3);
        assert!(top.is_sorted_by(|a, b| a.1 >= b.1) && top.iter().all(|(_, log)| *log < 0.0));
    }
    let last: Vec<(u32, f64)> = serde_json::from_value(positions.last().unwrap()["top"].clone()).unwrap();
    let time = object(&["tokenize", "-m", &stories(), "--ids", &last[0].0.to_string(), "--json"]);
    assert_eq!(time["text"].as_str().unwrap().trim(), "time", "the likeliest end of the phrase");
}

#[test]
fn perplexity_is_that_of_the_windows() {
    let scratch = Scratch::new();
    let file = scratch.join("text");
    fs::write(&file, "Once upon a time, there was a little girl named Lily. ".repeat(12)).unwrap();
    let of = |window| {
        let file = text_of(&file);
        let words = ["perplexity", "-m", &stories(), "--device", "cpu", "-f", &file, "-c", window, "--json"];
        object(&words)
    };
    let report = of("64");
    assert_eq!(keys(&report)[..2], ["chunks", "perplexity"]);
    let (chunks, tokens) = (report["chunks"].as_u64().unwrap(), report["tokens"].as_u64().unwrap());
    assert_eq!((chunks, report["scored"].as_u64()), (tokens / 64, Some(tokens / 64 * 31)));
    let perplexity = report["perplexity"].as_f64().unwrap();
    assert!(perplexity > 1.0 && perplexity < 20.0, "{perplexity}");
    let short = run(&["perplexity", "-m", &stories(), "--device", "cpu", "-f", &text_of(&file), "-c", "500"]);
    short.fails(2, &["500", "smaller -c"]);
}

#[test]
fn text_becomes_tokens_with_a_vocabulary_alone() {
    let vocabulary = text_of(&data::shared("vocab/ggml-vocab-llama-bpe.gguf"));
    let of = |words: &[&str]| object(&[&["tokenize", "-m", &vocabulary, "--json"], words].concat());
    let report = of(&["-p", "Hello, y'all!<|end_of_text|>"]);
    assert_eq!(keys(&report), ["text", "tokens"]);
    let tokens = report["tokens"].as_array().unwrap();
    assert_eq!((&tokens[0], tokens.last()), (&json!(128_000), Some(&json!(128_001))));
    let plain = of(&["-p", "Hello, y'all!<|end_of_text|>", "--no-special"]);
    assert!(!plain["tokens"].as_array().unwrap().contains(&json!(128_001)), "{plain}");
    let ids: Vec<String> = plain["tokens"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(of(&["--ids", &ids.join(",")])["text"], "Hello, y'all!<|end_of_text|>");
    run(&["tokenize", "-m", &vocabulary, "--ids", "999999"]).fails(2, &["999999", "vocabulary"]);
    run(&["generate", "-m", &vocabulary, "-p", "a"]).fails(3, &["ggml-vocab-llama-bpe.gguf"]);
}

#[test]
fn a_file_is_inspected() {
    let words = ["inspect", &stories(), "--tensors", "--plan"];
    let end = run(&words);
    assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""));
    for due in ["llama", "blk.0.attn_q.weight", "plan decode", "plan prefill", "attend"] {
        assert!(end.stdout.contains(due), "{due} is missing in {}", end.stdout);
    }
    object(&[&words[..], &["--json"]].concat());
}

/// Every malformed file ends in an answer or in one line and the code of model files.
#[test]
fn malformed_files_end_in_one_line() {
    let folder = data::shared("badgguf");
    let files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gguf"))
        .collect();
    assert!(files.len() > 50, "{} files", files.len());
    let mut refused = 0;
    for path in files {
        let path = text_of(&path);
        for words in
            [&["inspect", &path][..], &["generate", "-m", &path, "--device", "cpu", "-p", "a", "-n", "1"]]
        {
            let end = run(words);
            match end.code {
                Some(0) => {}
                Some(3) => {
                    let errors = end.stderr.lines().filter(|line| line.starts_with("error: "));
                    assert_eq!(errors.count(), 1, "{path}: {end:?}");
                    refused += 1;
                }
                _ => panic!("{path}: {end:?}"),
            }
        }
    }
    assert!(refused > 50, "only {refused} were refused");
}

#[test]
fn devices_are_listed_and_checked() {
    let devices = object(&["devices", "--json"]);
    assert_eq!(devices["cpu"]["backend"], "cpu");
    assert!(run(&["devices"]).fine().starts_with("cpu "));
    let doctor = run(&["doctor"]);
    assert_eq!(doctor.code, Some(0), "{doctor:?}");
    assert!(doctor.stdout.contains("Once upon a time") && doctor.stdout.contains("one story"), "{doctor:?}");
    for kernel in ["matvec", "attend", "rope"] {
        assert!(doctor.stdout.contains(kernel), "{doctor:?}");
    }
}

#[test]
fn a_report_says_how_every_variant_did() {
    let folder = Scratch::new();
    let file = folder.join("report.json");
    let path = file.to_str().unwrap();
    let words = ["doctor", "--full", "--kernel", "top_k", "--kernel", "rms_norm", "--report", path];
    let said = run(&words);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains(path), "{said:?}");
    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(report["wrong"], Value::Null);
    assert!(report["machine"]["threads"].as_u64() > Some(0) && report["pocketlm"].is_string());
    for device in report["devices"].as_array().unwrap() {
        let checks = device["checks"].as_array().unwrap();
        assert!(checks.len() > 20 && device["story"].is_string(), "{device}");
        for check in checks {
            let (off, allowed) = (check["off"].as_f64().unwrap(), check["allowed"].as_f64().unwrap());
            assert!(check["is_right"] == true && off <= allowed, "{check}");
            assert!(check["worst"].as_array().unwrap().len() == 4, "{check}");
        }
        let variants = |kernel: &str| -> BTreeSet<String> {
            let of = checks.iter().filter(|check| check["kernel"] == kernel);
            of.map(|check| check["variant"].as_str().unwrap().to_owned()).collect()
        };
        if !device["facts"].is_null() {
            assert_eq!(variants("top_k"), ["plain", "select"].map(str::to_owned).into());
            assert!(device["facts"]["quirks"].is_array() && device["facts"]["quarantine"].is_array());
        }
    }
    run(&["doctor", "--kernel", "nonsense"]).fails(2, &["rms_norm"]);
    run(&["doctor", "--report", "no/such/folder/report.json"]).fails(1, &["no/such/folder"]);
}

#[test]
fn what_cannot_be_computed_is_refused_with_its_code() {
    let on_cpu = |words: &[&str]| run(&[words, &["-m", &stories(), "--device", "cpu"]].concat());
    run(&["generate", "-m", "no/such.gguf", "-p", "a"]).fails(3, &["no/such.gguf"]);
    run(&["generate", "-m", &stories(), "--device", "99", "-p", "a"]).fails(4, &["device 99", "CPU"]);
    on_cpu(&["generate"]).fails(2, &["--prompt"]);
    on_cpu(&["generate", "-p", "a", "--temp=-1"]).fails(2, &["temperature"]);
    on_cpu(&["generate", "-p", "a b c d e f g h i j k l m", "-c", "8"]).fails(2, &["8", "context"]);
    on_cpu(&["generate", "-p", "a b c d e f g h i j k l m", "-c", "8", "--json"]).fails(2, &["8", "context"]);
    on_cpu(&["chat", "Hello"]).fails(3, &["chat template", "generate"]);
    on_cpu(&["generate", "-f", "no-such-prompt", "-p"]).fails(2, &["-p"]);
    on_cpu(&["generate", "-f", "no-such-prompt"]).fails(1, &["no-such-prompt"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_an_answer_in_order() {
    let cache = Scratch::new();
    let model = smollm2();
    let words = ["generate", "-m", &model, "--device", "cpu", "-p", "Once upon a time", "-n", "4000"];
    let mut child = pocketlm(&cache, &words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut first = [0];
    stdout.read_exact(&mut first).expect("an answer begins");
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(sent.success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with('\n'), "the line ends: {rest:?}");
    let status = child.wait().unwrap();
    let errors: Vec<String> = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .filter(|line| !line.starts_with("note: "))
        .collect();
    assert_eq!((status.code(), errors), (Some(130), vec!["error: interrupted".to_owned()]));
}

#[test]
fn a_short_soak_ends_well() {
    let end = run(&["doctor", "--soak", "4", "--on", "cpu", "--seed", "1", "--json"]);
    assert_eq!(end.code, Some(0), "{end:?}");
    let report: serde_json::Value = serde_json::from_str(&end.stdout).expect("JSON");
    for what in ["engines", "sessions", "tokens", "faults", "recoveries"] {
        assert!(report[what].as_u64() > Some(0), "{what}: {report}");
    }
}
